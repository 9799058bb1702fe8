"""Asking an online endpoint of Azure ML: its key or token, the deployment, its model's own status.

The clients' own ``invoke`` keeps the name of a deployment for the next request; so it is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from resources.endpoints.azureml_operations import endpoint_errors
from resources.endpoints.base import Answer, EndpointError, Request

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

DEPLOYMENT = "azureml-model-deployment"
#: Beside 424, the status that a model itself has answered with behind a managed endpoint.
MODEL_STATUS = "ms-azureml-model-error-statuscode"
#: Seconds for one answer.
SCORE_SECONDS = 60.0
#: How often a request is sent at most that was throttled, or whose connection was lost: to score
#: twice changes nothing.
ATTEMPTS = 4
#: First pause between two attempts and longest one that a throttled request obeys, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: A token is replaced so many seconds before it ends.
EARLY_SECONDS = 120.0


@dataclass
class Access:
    """What lets in at one endpoint: asked for when it is needed, kept in memory alone."""

    client: Callable[[], MLClient]
    name: str
    _secret: str = field(default="", repr=False)
    _until: float = field(default=0.0, repr=False)

    def secret(self) -> str:
        """A key, or a token that is valid for a while; raises EndpointError."""
        if not self._secret or time.time() >= self._until:
            self._fetch()
        return self._secret

    def forget(self) -> None:
        """Ask anew next time: it was replaced."""
        self._secret = ""

    def _fetch(self) -> None:
        with endpoint_errors(f"endpoint {self.name}: its key"):
            found = self.client().online_endpoints.get_keys(self.name)
        key = getattr(found, "primary_key", None)
        if key:
            self._secret, self._until = key, float("inf")
            return
        ends = float(getattr(found, "expiry_time_utc", 0) or 0)
        refresh = float(getattr(found, "refresh_after_time_utc", 0) or ends - EARLY_SECONDS)
        self._secret = getattr(found, "access_token", None) or ""
        self._until = min(refresh, ends - EARLY_SECONDS)
        if not self._secret:
            raise EndpointError(f"endpoint {self.name}: Azure gives no key and no token for it")


class Scoring:
    """Sends requests to one endpoint."""

    def __init__(self, url: str, access: Access) -> None:
        self.url = url
        self._access = access
        self._client = httpx.Client(timeout=SCORE_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or whichever the traffic's shares choose; raises EndpointError."""
        headers = {"content-type": "application/json", **request.headers}
        if deployment is not None:
            headers[DEPLOYMENT] = deployment
        answer = self._ask(headers, request)
        if answer.status == 401 and request.authorized:  # somebody has replaced the key
            self._access.forget()
            answer = self._ask(headers, request)
        return answer

    def _ask(self, headers: dict[str, str], request: Request) -> Answer:
        if request.authorized:
            headers = {**headers, "authorization": f"Bearer {self._access.secret()}"}
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            started = time.perf_counter()
            try:
                found = self._client.post(self.url, content=request.body, headers=headers)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise EndpointError(
                        f"{self.url} does not answer: {error or type(error).__name__}"
                    ) from None
            else:
                seconds = time.perf_counter() - started
                if found.status_code != 429 or attempt == ATTEMPTS:
                    return _answer(found, seconds)
                pause = max(pause, _asked_pause(found))
            time.sleep(pause)
            pause *= 2
        raise AssertionError("not reached")


def _asked_pause(found: httpx.Response) -> float:
    text = found.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else 0.0


def _answer(found: httpx.Response, seconds: float) -> Answer:
    own = found.headers.get(MODEL_STATUS, "")
    status = int(own) if found.status_code == 424 and own.isdecimal() else found.status_code
    return Answer(status, found.content, dict(found.headers), seconds)
