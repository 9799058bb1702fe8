"""What people are told, and where: the log, a chat, e-mail."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from mlops_assets.strict import SpecError
from resources.delivery import Mail, NotTakenError, post, send_mail

WEBHOOK = "MLOPS_ALERT_WEBHOOK"
SMTP = "MLOPS_ALERT_SMTP"
EMAIL = "MLOPS_ALERT_EMAIL"
FROM = "MLOPS_ALERT_FROM"

_ADDRESS = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+")
_ENCODE = "percent-encode @ : / ? # % in user and password"


class AlertError(Exception):
    """Destinations that did not take an alert; the message says which and why, and no secret."""

    def __init__(self, failed: Mapping[str, NotTakenError]) -> None:
        self.failed = dict(failed)
        super().__init__("; ".join(f"{name}: {error.why}" for name, error in failed.items()))


@dataclass(frozen=True)
class Alert:
    """One message."""

    #: What it is about; the same key is the same message.
    key: str
    title: str
    text: str
    url: str | None = None


@dataclass(frozen=True)
class AlertSettings:
    """Where alerts go beside the log."""

    webhook: str | None = field(default=None, repr=False)
    mail: Mail | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> AlertSettings:
        """Read ``MLOPS_ALERT_*``; a variable that is absent or empty switches its way off.

        Raises:
            SpecError: with the first variable that is wrong; it never repeats a secret.
        """
        found = {name: variables.get(name, "").strip() for name in (WEBHOOK, SMTP, EMAIL, FROM)}
        return cls(_webhook(found[WEBHOOK]), _mail(found[SMTP], found[EMAIL], found[FROM]))


class Alerts:
    """Sends alerts to every destination that is set up."""

    def __init__(self, settings: AlertSettings) -> None:
        self._ways: dict[str, Callable[[Alert], None]] = {"log": _to_log}
        webhook, mail = settings.webhook, settings.mail
        if webhook:
            self._ways[f"webhook {urlsplit(webhook).hostname}"] = lambda alert: post(
                webhook, alert.title, alert.text, alert.url
            )
        if mail:
            self._ways[f"e-mail by {mail.host}"] = lambda alert: send_mail(
                mail, alert.title, alert.text, alert.url
            )

    @property
    def destinations(self) -> tuple[str, ...]:
        """Names of all destinations, as people read them."""
        return tuple(self._ways)

    def send(
        self,
        alert: Alert,
        log: Callable[[str], object],
        skip: Collection[str] = (),
        delivered: Callable[[str], object] | None = None,
    ) -> None:
        """Deliver an alert.

        Args:
            alert: the message.
            log: is told what was delivered.
            skip: destinations that have it already, or are not to be tried.
            delivered: called with a destination as soon as it has taken the alert.

        Raises:
            AlertError: after all destinations were tried, with those that did not take it.
        """
        failed: dict[str, NotTakenError] = {}
        for name, way in self._ways.items():
            if name in skip:
                continue
            try:
                way(alert)
            except NotTakenError as error:
                failed[name] = error
                continue
            if delivered:
                delivered(name)
            log(f"sent to {name}: {alert.title}")
        if failed:
            raise AlertError(failed)


def _to_log(alert: Alert) -> None:
    logging.getLogger("mlops.alerts").warning("%s\n%s", alert.title, alert.text)


def _wrong(variable: str, problem: str) -> SpecError:
    return SpecError(f"environment variable {variable}", [problem])


def _parsed(variable: str, value: str, schemes: tuple[str, ...], form: str) -> SplitResult:
    """The parts of a URL."""
    problem = _wrong(variable, f"must be a URL such as {form} (what was found is not shown)")
    try:
        url = urlsplit(value)
        httpx.URL(value)
        fine = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except (ValueError, httpx.InvalidURL):
        fine, url = False, urlsplit("")
    if not fine or any(c.isspace() for c in value):
        raise problem  # outside the handler: the parser's own message repeats the secret
    return url


def _webhook(value: str) -> str | None:
    if value:
        _parsed(WEBHOOK, value, ("https", "http"), "https://hooks.slack.com/services/...")
    return value or None


def _mail(smtp: str, email: str, sender: str) -> Mail | None:
    if not smtp and not email:
        return None
    if not smtp:
        raise _wrong(SMTP, f"missing, as {EMAIL} is set; e.g. smtp://user:password@host:587")
    form = f"smtp://user:password@host:587 or smtps://user:password@host; {_ENCODE}"
    url = _parsed(SMTP, smtp, ("smtp", "smtps"), form)
    if url.path.strip("/") or url.query or url.fragment:
        raise _wrong(SMTP, f"nothing may follow the port; {_ENCODE}")
    user, password = (unquote(part) if part else None for part in (url.username, url.password))
    if (user is None) != (password is None):
        raise _wrong(SMTP, "must have both user and password, or neither")
    recipients = tuple(a.strip() for a in email.split(",") if a.strip())
    if not recipients:
        raise _wrong(EMAIL, f"missing, as {SMTP} is set; addresses, separated by commas")
    for address in recipients:
        if not _ADDRESS.fullmatch(address):
            raise _wrong(
                EMAIL, f"'{address}' is no address; such as ada@example.org, bob@example.org"
            )
    if not sender and not (user and _ADDRESS.fullmatch(user)):
        raise _wrong(FROM, "missing: the address that alerts are sent from")
    if sender and not _ADDRESS.fullmatch(sender):
        raise _wrong(FROM, f"'{sender}' is no address such as mlops@example.org")
    tls = url.scheme == "smtps"
    port = url.port or (465 if tls else 587 if user else 25)
    return Mail(url.hostname or "", port, tls, sender or user or "", recipients, user, password)
