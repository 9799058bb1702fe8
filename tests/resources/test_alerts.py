"""Alerts reach the log, a chat and a mailbox, and never carry a secret."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mlops_assets.strict import SpecError
from resources.alerts import Alert, AlertError, Alerts, AlertSettings
from resources.delivery import webhook_body
from tests.receivers import PASSWORD, TOKEN, Chat, Post, chat, mail_server

ALERT = Alert(
    "gate/rent/2/quality",
    "rent version 2: gate quality is closed",
    "r2 0.1 < 0.5 & more\nrun: 123",
    "http://localhost:3000/runs/123",
)


@pytest.fixture
def hook() -> Iterator[Chat]:
    with chat() as found:
        yield found


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A mail server's certificate for 127.0.0.1, which this process trusts."""
    key, pem = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mail.test -addext"
    subprocess.run(
        [*request.split(), "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


def alerts(**variables: str) -> Alerts:
    named = {f"MLOPS_ALERT_{name}": value for name, value in variables.items()}
    return Alerts(AlertSettings.from_variables(named))


def by_mail(post: Post, scheme: str = "smtp", password: str = PASSWORD) -> Alerts:
    return alerts(
        SMTP=f"{scheme}://mlops%40example.org:{quote(password, safe='')}@127.0.0.1:{post.port}",
        EMAIL="ada@example.org, bob@example.org",
    )


def sent(to: Alerts, alert: Alert = ALERT) -> list[str]:
    lines: list[str] = []
    to.send(alert, lines.append)
    return lines


def refusal(to: Alerts) -> str:
    with pytest.raises(AlertError) as caught:
        to.send(ALERT, print)
    # What a tick stores of an error: the message, its causes and its context.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def test_without_settings_an_alert_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    to = alerts()
    assert to.destinations == ("log",)
    assert sent(to) == ["sent to log: rent version 2: gate quality is closed"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mlops.alerts", logging.WARNING)
    assert "gate quality is closed\nr2 0.1 < 0.5" in record.getMessage()


def test_a_chat_gets_the_text_of_slack(hook: Chat) -> None:
    assert sent(alerts(WEBHOOK=hook.url))[1].startswith("sent to webhook 127.0.0.1: rent version")
    assert hook.posts == [
        (
            200,
            {
                "text": "*rent version 2: gate quality is closed*\nr2 0.1 &lt; 0.5 &amp; more\n"
                "run: 123\nhttp://localhost:3000/runs/123"
            },
        )
    ]


@pytest.mark.parametrize(
    "host",
    [
        "prod-15.uksouth.logic.azure.com:443",
        "contoso.webhook.office.com",
        "default0f.6b.environment.api.powerplatform.com:443",
    ],
)
def test_teams_gets_an_adaptive_card(host: str) -> None:
    body = webhook_body(f"https://{host}/x", ALERT.title, ALERT.text, ALERT.url)
    assert body["type"] == "message"
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.2")
    assert [b["text"] for b in card["body"]] == [ALERT.title, *ALERT.text.splitlines()]
    assert card["actions"][0]["url"] == ALERT.url


def test_a_name_that_only_looks_like_teams_does_not() -> None:
    assert "text" in webhook_body("https://logic.azure.com.example.org/x", "a", "b", None)


def test_a_server_error_is_tried_once_more(hook: Chat) -> None:
    hook.answers = [(503, "busy")]
    sent(alerts(WEBHOOK=hook.url))
    assert [status for status, _ in hook.posts] == [503, 200]
    hook.answers = [(503, "busy"), (502, "still busy")]
    assert refusal(alerts(WEBHOOK=hook.url)) == "webhook 127.0.0.1: answers 502 still busy"
    hook.answers = [(404, "no_service"), (500, "never asked")]
    assert refusal(alerts(WEBHOOK=hook.url)) == "webhook 127.0.0.1: answers 404 no_service"
    assert len(hook.answers) == 1


def test_a_webhook_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    with chat() as gone:
        pass
    assert "webhook 127.0.0.1: cannot connect" in refusal(alerts(WEBHOOK=gone.url))
    assert "gate quality is closed" in caplog.text, "the log has it all the same"


def test_a_webhook_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.delivery.TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/services/{TOKEN}"
        assert "ReadTimeout" in refusal(alerts(WEBHOOK=url))


def test_an_e_mail(hook: Chat, certificate: ssl.SSLContext) -> None:
    with mail_server(Post(tls=certificate)) as post:
        sent(by_mail(post))
    ((recipients, mail),) = post.mails
    assert recipients == ["ada@example.org", "bob@example.org"]
    assert mail["Subject"] == "[mlops] rent version 2: gate quality is closed"
    assert mail["From"] == "mlops@example.org"
    assert mail.get_content() == f"{ALERT.text}\n\n{ALERT.url}\n"
    assert post.logins == [(f"\0mlops@example.org\0{PASSWORD}", True)]


def test_an_e_mail_encrypted_from_the_first_byte(certificate: ssl.SSLContext) -> None:
    with mail_server(Post(), implicit=certificate) as post:
        sent(by_mail(post, "smtps"))
    assert len(post.mails) == 1


def test_a_certificate_that_nobody_trusts(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with mail_server(Post(tls=certificate)) as post:
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(by_mail(post))
    assert post.logins == []


def test_a_password_never_leaves_the_machine_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(Post()) as post:
        sent(by_mail(post))  # 127.0.0.1
        monkeypatch.setattr("resources.delivery.is_loopback", lambda _: False)
        assert "offers no STARTTLS" in refusal(by_mail(post))
    assert len(post.logins) == 1


def test_a_mail_server_without_login() -> None:
    with mail_server(Post()) as post:
        url = f"smtp://127.0.0.1:{post.port}"
        sent(alerts(SMTP=url, EMAIL="ada@example.org", FROM="mlops@example.org"))
    assert post.logins == []
    assert post.mails[0][1]["From"] == "mlops@example.org"


def test_a_title_of_two_lines_is_no_other_header() -> None:
    with mail_server(Post()) as post:
        sent(by_mail(post), Alert("k", "fails\nBcc: eve@example.org", "text äöü"))
    ((recipients, mail),) = post.mails
    assert mail["Bcc"] is None
    assert "eve@example.org" not in recipients
    assert mail.get_content() == "text äöü\n"


def test_one_refused_recipient_does_not_keep_it_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with mail_server(Post(refuses=("bob@example.org",))) as post:
        sent(by_mail(post))
        assert "127.0.0.1 refuses e-mail for bob@example.org" in caplog.text
        post.refuses = ("bob@example.org", "ada@example.org")
        assert "550" in refusal(by_mail(post))
    assert len(post.mails) == 1


def test_all_destinations_are_tried_and_those_that_have_it_are_known(hook: Chat) -> None:
    with mail_server(Post()) as post:
        url = f"smtp://127.0.0.1:{post.port}"
        to = alerts(WEBHOOK=hook.url, SMTP=url, EMAIL="ada@example.org", FROM="m@example.org")
        hook.answers = [(403, "no")]
        have: list[str] = []
        with pytest.raises(AlertError, match=r"^webhook 127\.0\.0\.1: answers 403 no$"):
            to.send(ALERT, print, delivered=have.append)
        assert have == ["log", "e-mail by 127.0.0.1"]
        to.send(ALERT, print, skip=have, delivered=have.append)
    assert sorted(have) == sorted(to.destinations)
    assert len(hook.texts) == len(post.mails) == 1


def test_no_secret_is_told(hook: Chat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with mail_server(Post()) as post:
        smtp = f"smtp://mlops:{quote(PASSWORD, safe='')}@127.0.0.1:{post.port}"
        settings = AlertSettings.from_variables(
            {
                "MLOPS_ALERT_WEBHOOK": hook.url,
                "MLOPS_ALERT_SMTP": smtp,
                "MLOPS_ALERT_EMAIL": "ada@example.org",
                "MLOPS_ALERT_FROM": "mlops@example.org",
            }
        )
        told = [repr(settings), str(settings), repr(Alerts(settings))]
        told += sent(Alerts(settings))
        hook.answers = [(404, f"nothing at /services/{TOKEN} or {hook.url}")]
        told.append(refusal(Alerts(settings)))
        wrong = by_mail(post, password=f"x{PASSWORD}")
        told.append(refusal(wrong))
    assert "535" in told[-1]
    assert "***" in told[-1]
    assert "answers 404 nothing at /***/*** or ***" in told[-2]
    for text in (*told, caplog.text):
        assert TOKEN not in text
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text
    assert logging.getLogger("httpx").filters == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WEBHOOK": "hooks.example.org/SECRET"}, "WEBHOOK: must be a URL such as https://hooks"),
        ({"WEBHOOK": "ftp://example.org/SECRET"}, "WEBHOOK: must be a URL"),
        ({"WEBHOOK": "https://exa mple.org/SECRET"}, "WEBHOOK: must be a URL"),
        ({"WEBHOOK": "https://example.org:SECRET/"}, "WEBHOOK: must be a URL"),
        ({"WEBHOOK": "https://[SECRET/"}, "WEBHOOK: must be a URL"),
        ({"SMTP": "smtp://a:SECRET@host:2x", "EMAIL": "a@b"}, "SMTP: must be a URL"),
        ({"SMTP": "smtp://a:SEC/RET@host", "EMAIL": "a@b"}, "percent-encode"),
        ({"SMTP": "smtp://a:SEC#SECRET@host", "EMAIL": "a@b"}, "percent-encode"),
        ({"SMTP": "smtp://host/SECRET", "EMAIL": "a@b"}, "SMTP: nothing may follow the port"),
        ({"SMTP": "http://a:SECRET@host", "EMAIL": "a@b"}, "SMTP: must be a URL such as smtp"),
        ({"SMTP": "smtp://SECRET@host", "EMAIL": "a@b"}, "both user and password"),
        ({"SMTP": "smtp://a:SECRET@host"}, "EMAIL: missing, as MLOPS_ALERT_SMTP is set"),
        ({"EMAIL": "ada@example.org"}, "SMTP: missing, as MLOPS_ALERT_EMAIL is set"),
        ({"SMTP": "smtp://a:SECRET@host", "EMAIL": "ada"}, "EMAIL: 'ada' is no address"),
        ({"SMTP": "smtp://a:SECRET@host", "EMAIL": "a@b"}, "FROM: missing"),
        ({"SMTP": "smtp://a:SECRET@host", "EMAIL": "a@b", "FROM": "me"}, "FROM: 'me' is no addr"),
    ],
)
def test_wrong_variables(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        alerts(**variables)
    assert str(caught.value).startswith("environment variable MLOPS_ALERT_")
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__context__ is None


def test_ports_and_sender_by_default() -> None:
    def mail(smtp: str, sender: str = "") -> tuple[int, bool, str]:
        variables = {"SMTP": smtp, "EMAIL": "ada@example.org", "FROM": sender}
        named = {f"MLOPS_ALERT_{name}": value for name, value in variables.items()}
        found = AlertSettings.from_variables(named).mail
        assert found
        return found.port, found.tls, found.sender

    assert mail("smtps://m%40example.org:x@host") == (465, True, "m@example.org")
    assert mail("smtp://u:x@host", "m@example.org") == (587, False, "m@example.org")
    assert mail("smtp://host", "m@example.org") == (25, False, "m@example.org")
