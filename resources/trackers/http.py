"""Asking a tracker's REST API: one clear message for whatever goes wrong, retried where right."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import httpx

from resources.delivery import TIMEOUT_SECONDS, without
from resources.tracker import TrackerError, UnclearError

#: How often one request is sent.
MOST_TRIES = 4
#: A tracker that asks for more patience than this, in seconds, is left alone until the next time.
LONGEST_WAIT = 120.0
#: What GitHub asks for where it does not say how long.
SECONDARY_WAIT = 60.0
#: After a failure nobody knows the outcome of, so long until what was made is found, in seconds.
SETTLE_SECONDS = 3.0
#: Of a message of somebody else, so many characters are shown.
SHOWN = 300


class Api:
    """A REST API with a token."""

    def __init__(
        self,
        root: str,
        name: str,
        headers: Mapping[str, str],
        secrets: list[str],
        hints: Mapping[int, str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """An API.

        Args:
            root: its URL.
            name: what messages begin with.
            headers: of every request.
            secrets: what no message may hold.
            hints: status -> what people can do about it.
            sleep: waits so many seconds.
        """
        self.name = name
        self._root, self._headers = root, dict(headers)
        self._secrets, self._hints, self._sleep = secrets, hints, sleep

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        content_type: str = "application/json",
        missing: bool = False,
        again: bool | None = None,
    ) -> Any:
        """Send a request; the JSON of its answer.

        Args:
            method: GET, POST or PATCH.
            path: below the API's root, percent-encoded.
            params: the query.
            json: the body.
            content_type: of the body.
            missing: None for an answer 404.
            again: repeat it also where nobody knows whether it was taken, since twice is as once;
                all but POST by default.

        Raises:
            UnclearError: sent, and nobody knows whether it was done.
            TrackerError: it was not done.
        """
        again = method != "POST" if again is None else again
        for tries in range(1, MOST_TRIES + 1):
            last = tries == MOST_TRIES
            try:
                answer = httpx.request(
                    method,
                    f"{self._root}{path}",
                    params=dict(params or {}),
                    json=json,
                    headers={**self._headers, **({"content-type": content_type} if json else {})},
                    timeout=TIMEOUT_SECONDS,
                    verify=_tls(),
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # was never sent
                if last:
                    raise self._error(f"cannot connect ({error or type(error).__name__})") from None
                self._pause(tries)
                continue
            except httpx.HTTPError as error:
                if last or not again:
                    why = f"no answer ({type(error).__name__} {error}".strip() + ")"
                    raise self._error(why, UnclearError) from None
                self._pause(tries)
                continue
            if answer.is_success and _is_json(answer):
                return answer.json()
            if missing and answer.status_code == 404:
                return None
            wait = wait_of(answer)
            if wait is not None and wait <= LONGEST_WAIT and not last:
                self._sleep(wait)
                continue
            if answer.status_code >= 500 and wait is None and again and not last:
                self._pause(tries)
                continue
            raise self._refused(answer, wait) from None
        raise AssertionError("the last try returns or raises")

    def _pause(self, tries: int) -> None:
        self._sleep(2.0 ** (tries - 1) * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)

    def _refused(self, answer: httpx.Response, wait: float | None) -> TrackerError:
        status, told = answer.status_code, message_of(answer)
        if wait is not None:
            when = f"try again in {wait:.0f} s"
            return self._error(f"answers {status}: too many requests; {when} {told}".strip())
        if answer.is_redirect:
            place = answer.headers.get("location", "")[:SHOWN]
            return self._error(f"answers {status}: it has moved to {place}; set MLOPS_TRACKER anew")
        if answer.is_success:
            told = "answers with a page and not with JSON, as for a token that it does not know"
            return self._error(told)
        hint = self._hints.get(status, "")
        why = f"answers {status}: {told}" + (f"; {hint}" if hint else "")
        # A server that broke may have done what was asked all the same.
        return self._error(why, UnclearError if status >= 500 else TrackerError)

    def _error(self, why: str, kind: type[TrackerError] = TrackerError) -> TrackerError:
        return kind(without(self._secrets, f"{self.name}: {' '.join(why.split())}"))


@cache
def _tls() -> ssl.SSLContext:
    """Reading the authorities takes longer than an answer."""
    return httpx.create_ssl_context()


def wait_of(answer: httpx.Response) -> float | None:
    """Seconds until the tracker wants to be asked again; None where it did not say so.

    GitHub: ``retry-after``, else ``x-ratelimit-reset`` where nothing remains, else a minute for a
    secondary limit, each with a status of 403 or 429. Azure DevOps: 429 or 503 with
    ``retry-after``.
    """
    if answer.status_code not in (403, 429, 503):
        return None
    after = answer.headers.get("retry-after", "")
    if after.isdigit():
        return float(after)
    if answer.status_code == 503:
        return None
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return max(1.0, float(reset) - time.time())
    limited = answer.status_code == 429 or "rate limit" in answer.text[:2000].lower()
    return SECONDARY_WAIT if limited else None


def message_of(answer: httpx.Response) -> str:
    """What the tracker says about it, on one line."""
    try:
        found = answer.json()
        errors = [e.get("message") or e.get("code") or "" for e in found.get("errors", [])]
        told = "; ".join(filter(None, [str(found["message"]), *map(str, errors)]))
    except (ValueError, KeyError, TypeError, AttributeError):
        told = answer.reason_phrase
    return " ".join(told.split())[:SHOWN]


def _is_json(answer: httpx.Response) -> bool:
    # Azure DevOps answers a token that it does not know with 203 and a page to sign in.
    if answer.status_code == 203:
        return False
    try:
        answer.json()
    except ValueError:
        return False
    return True
