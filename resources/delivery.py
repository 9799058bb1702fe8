"""Ways to hand a message to people: a chat's webhook, and e-mail."""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import smtplib
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

import httpx

#: How long a destination may take to answer, in seconds, each time it is waited for.
TIMEOUT_SECONDS = 10.0

#: Hosts of Teams: they want an Adaptive Card; everything else takes Slack's ``{"text": ...}``.
TEAMS_HOSTS = (
    ".logic.azure.com",
    ".webhook.office.com",
    ".powerplatform.com",
    ".powerautomate.com",
    ".flow.microsoft.com",
)

#: Answers of a webhook that say that the message is wrong, and not the destination.
_MESSAGE_REFUSED = (400, 413, 422)


class NotTakenError(Exception):
    """A destination did not take a message; says why, without a secret."""

    def __init__(self, why: str, message_refused: bool = False) -> None:
        self.why = why
        #: The destination works; another message may be taken.
        self.message_refused = message_refused
        super().__init__(why)


@dataclass(frozen=True)
class Mail:
    """How e-mail is sent."""

    host: str
    port: int
    #: TLS from the first byte (smtps); otherwise STARTTLS where the server offers it.
    tls: bool
    sender: str
    recipients: tuple[str, ...]
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def post(url: str, title: str, text: str, link: str | None = None) -> None:
    """Post a message to the webhook of a chat; once more after a server error.

    Raises:
        NotTakenError: unreachable, or any answer but 2xx.
    """
    body = webhook_body(url, title, text, link)
    problem = _post_once(url, body)
    if problem and problem.again:
        problem = _post_once(url, body)
    if problem:
        raise NotTakenError(without(_secrets_of(url), problem.why), problem.message_refused)


@dataclass(frozen=True)
class _Problem:
    why: str
    #: Whether to try once more at once.
    again: bool = False
    message_refused: bool = False


def _post_once(url: str, body: dict[str, Any]) -> _Problem | None:
    with _unlogged(url):
        try:
            answer = httpx.post(url, json=body, timeout=TIMEOUT_SECONDS)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return _Problem(f"cannot connect ({error or type(error).__name__})", again=True)
        except httpx.HTTPError as error:
            return _Problem(f"{type(error).__name__} {error}".strip())  # may have been taken
    if answer.is_success:
        return None
    status = answer.status_code
    why = f"answers {status} {answer.text[:200].strip()}"
    return _Problem(why, again=status >= 500, message_refused=status in _MESSAGE_REFUSED)


def webhook_body(url: str, title: str, text: str, link: str | None) -> dict[str, Any]:
    """The JSON that the chat behind a webhook takes."""
    if (urlsplit(url).hostname or "").endswith(TEAMS_HOSTS):
        return _adaptive_card(title, text, link)
    shown = f"*{title}*\n{text}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": f"{shown}\n{link}" if link else shown}


def _adaptive_card(title: str, text: str, link: str | None) -> dict[str, Any]:
    def block(line: str, **style: str) -> dict[str, Any]:
        return {"type": "TextBlock", "text": line, "wrap": True, **style}

    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        # A block for each line: Teams draws a line break within one as a space.
        "body": [
            block(title, weight="Bolder", size="Medium"),
            *(block(line, spacing="Small") for line in text.splitlines() if line.strip()),
        ],
    }
    if link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": link}]
    content_type = "application/vnd.microsoft.card.adaptive"
    attachment = {"contentType": content_type, "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def send_mail(mail: Mail, title: str, text: str, link: str | None = None) -> None:
    """Send an e-mail to all recipients.

    Raises:
        NotTakenError: unreachable, no encryption for a password, or refused for all of them.
    """
    message = EmailMessage()
    message["Subject"] = " ".join(f"[mlops] {title}".split())
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message.set_content("\n\n".join(part for part in (text, link) if part) + "\n")
    try:
        refused = _converse(mail, message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        login = f"\0{mail.user}\0{mail.password}".encode()
        secrets = [mail.password or "", base64.b64encode(login).decode()]
        why = without(secrets, f"{type(error).__name__} {error}".strip())
        problem = NotTakenError(why, isinstance(error, smtplib.SMTPDataError))
    else:
        for address in refused:  # the others have it; failing would send it to them again
            logging.getLogger("mlops.alerts").error("%s refuses e-mail for %s", mail.host, address)
        return
    raise problem  # outside the handler: the chain of causes could repeat a secret


def _converse(mail: Mail, message: EmailMessage) -> list[str]:
    """Hand a message over; returns the recipients whom the server refused."""
    tls = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_SECONDS, context=tls)
        if mail.tls
        else smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_SECONDS)
    )
    with server:
        server.ehlo()
        if not mail.tls and server.has_extn("starttls"):
            server.starttls(context=tls)
            server.ehlo()
        elif mail.password and not mail.tls and not is_loopback(mail.host):
            raise smtplib.SMTPException("offers no STARTTLS; the password is not sent unencrypted")
        if mail.user and mail.password:
            server.login(mail.user, mail.password)
        return sorted(server.send_message(message))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: what goes there needs no encryption."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secrets_of(url: str) -> list[str]:
    parts = urlsplit(url)
    words = re.split(r"[/&=]", f"{parts.path}&{parts.query}&{parts.username}&{parts.password}")
    return [url, *(word for word in words if len(word) >= 6)]


def without(secrets: list[str], text: str) -> str:
    """Text of somebody else, who may have put our secrets into it, with ``***`` in their place."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


@contextmanager
def _unlogged(url: str) -> Generator[None]:
    """Keep httpx, which logs every request with its URL, from logging this one."""
    secret = str(httpx.URL(url))

    def other(record: logging.LogRecord) -> bool:
        return secret not in record.getMessage()

    logger = logging.getLogger("httpx")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
