"""Where alerts go in tests: a chat's webhook and a mail server, on loopback."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: In the path of the webhook's URL, and the password of the mail server.
TOKEN = "T0KEN-of-the-hook"
PASSWORD = "pass:w/rd@9"


@dataclass
class Chat:
    """A webhook; answers with the next of ``answers``, then with 200."""

    port: int = 0
    answers: list[tuple[int, str]] = field(default_factory=list)
    #: Every body that was asked to be posted, with the status that it was answered.
    posts: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/{TOKEN}"

    @property
    def texts(self) -> list[str]:
        """What it took."""
        return [body["text"] for status, body in self.posts if status == 200]

    @property
    def titles(self) -> list[str]:
        return [text.splitlines()[0].strip("*") for text in self.texts]


@contextmanager
def chat(port: int = 0) -> Generator[Chat]:
    found = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = found.answers.pop(0) if found.answers else (200, "ok")
            found.posts.append((status, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@dataclass
class Post:
    """A mail server's settings, and what it took."""

    port: int = 0
    #: Offers STARTTLS with this certificate.
    tls: ssl.SSLContext | None = None
    #: Recipients whom it refuses.
    refuses: tuple[str, ...] = ()
    #: What it says to a finished message.
    answer: str = "250 ok"
    #: "AUTH" requests as they were decoded, with whether the line was encrypted.
    logins: list[tuple[str, bool]] = field(default_factory=list)
    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)


class _Conversation(socketserver.StreamRequestHandler):
    """One client, served as RFC 5321 says."""

    server: _Server

    def say(self, *lines: str) -> None:
        for line in lines:
            self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        post, encrypted, recipients = self.server.post, False, list[str]()
        self.say("220 mail.test")
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    offers = ["250-STARTTLS"] if post.tls and not encrypted else []
                    self.say("250-mail.test", *offers, "250 AUTH PLAIN")
                case "STARTTLS":
                    assert post.tls
                    self.say("220 go on")
                    try:
                        self.request = post.tls.wrap_socket(self.request, server_side=True)
                    except (ssl.SSLError, ConnectionError):
                        return  # the client does not trust the certificate
                    self.rfile, self.wfile = self.request.makefile("rb"), self._writer()
                    encrypted = True
                case "AUTH":
                    login = base64.b64decode(rest.split()[-1]).decode()
                    post.logins.append((login, encrypted))
                    right = login.split("\0")[-1] == PASSWORD
                    # A server that is careless with what it was told.
                    self.say(
                        "235 welcome" if right else f"535 no: {line} {login.split(chr(0))[-1]}"
                    )
                case "MAIL":
                    recipients.clear()
                    self.say("250 ok")
                case "RCPT":
                    address = rest.partition("<")[2].partition(">")[0]
                    if address in post.refuses:
                        self.say("550 nobody of that name")
                        continue
                    recipients.append(address)
                    self.say("250 ok")
                case "DATA":
                    self.say("354 go on")
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    if post.answer.startswith("250"):
                        message = message_from_bytes(
                            content.replace(b"\r\n", b"\n"), policy=policy.default
                        )
                        assert isinstance(message, EmailMessage)
                        post.mails.append((list(recipients), message))
                    self.say(post.answer)
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 ok")

    def _writer(self) -> Any:
        return socketserver._SocketWriter(self.request)  # type: ignore[attr-defined]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, post: Post, implicit: ssl.SSLContext | None) -> None:
        self.post = post
        super().__init__(("127.0.0.1", 0), _Conversation)
        if implicit:
            self.socket = implicit.wrap_socket(self.socket, server_side=True)


@contextmanager
def mail_server(post: Post, implicit: ssl.SSLContext | None = None) -> Generator[Post]:
    """Serve until the end of the block; ``implicit``: TLS from the first byte."""
    with _Server(post, implicit) as server:
        post.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield post
        server.shutdown()
        thread.join()
