from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlops_assets.scoring.archive import Bounds
from mlops_assets.scoring.fetch import FetchError, fetch
from tests.scoring.test_archive import tarred, zipped

FILES = {"rent-1/manifest.json": b"{}", "rent-1/model.onnx": bytes(100_000)}
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server on this machine that answers all requests alike; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        scheme = "https" if context else "http"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def content(data: bytes, announced: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if announced != -1:
            request.send_header("content-length", str(announced or len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def sending_on(to: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("location", to)
        request.end_headers()

    return answer


def read(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("make", [zipped, tarred])
def test_by_http_from_this_machine_and_by_file(tmp_path: Path, make: Callable[..., bytes]) -> None:
    first, second, archive = tmp_path / "1", tmp_path / "2", tmp_path / "a bundle"
    first.mkdir()
    second.mkdir()
    with serving(content(make(FILES))) as url:
        assert read(fetch(f"{url}/whatever?sig=secret", first)) == FILES
    archive.write_bytes(make(FILES))
    assert read(fetch(archive.as_uri(), second)) == FILES
    assert {p.name for p in (*first.iterdir(), *second.iterdir())} == {"unpacked"}
    assert archive.is_file()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody knows, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_https_asks_who_answers(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    with serving(content(zipped(FILES)), context) as url:
        with pytest.raises(FetchError, match="certificate verify failed"):
            fetch(url, first)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert read(fetch(url, second)) == FILES
    with (
        serving(sending_on("http://127.0.0.1:1/"), context) as url,
        pytest.raises(FetchError, match=r"sends on to http://127\.0\.0\.1:1/, but http is for"),
    ):
        fetch(url, first)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/a.zip", "http is for this machine alone; use https://"),
        ("http://localhost.example.com/a.zip", "http is for this machine alone"),
        ("ftp://127.0.0.1/a.zip", "must begin with https:// or file:///"),
        ("data:,x", "must begin with https://"),
        ("a.zip", "must begin with https://"),
        ("https:///a.zip", "must begin with https://"),
        ("https://[::1/a.zip", "not a URL"),
        ("https://user:word@example.com/a.zip", "example.com/a.zip: a URL with a password"),
        ("http://127.0.0.1:1/a b?sig=secret", "not a URL"),
        ("file:///nowhere/a.zip", "No such file or directory"),
    ],
)
def test_a_url_that_is_not_asked(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(FetchError, match=message) as caught:
        fetch(url, tmp_path)
    assert "word" not in str(caught.value).replace("password", "")
    assert "secret" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("file:///etc/passwd", "not allowed"),
        ("http://example.com/?sig=secret", "sends on to http://example.com/, but http is for"),
        ("https://me:word@example.com/", "a URL with a password"),
    ],
)
def test_where_it_is_not_sent_on_to(tmp_path: Path, to: str, message: str) -> None:
    with serving(sending_on(to)) as url, pytest.raises(FetchError, match=message) as caught:
        fetch(f"{url}/?sig=own", tmp_path)
    assert "secret" not in str(caught.value)
    assert "sig=own" not in str(caught.value)


def test_it_is_sent_on_within_reason(tmp_path: Path) -> None:
    with serving(content(zipped(FILES))) as last, serving(sending_on(last)) as url:
        assert read(fetch(url, tmp_path)) == FILES
    with (
        serving(lambda request: sending_on(request.path + "x")(request)) as url,
        pytest.raises(FetchError, match="the server answers 302"),
    ):
        fetch(url, tmp_path)


def test_an_error_a_cut_and_too_much(tmp_path: Path) -> None:
    data = zipped(FILES)
    with (
        serving(lambda r: r.send_error(404)) as url,
        pytest.raises(FetchError, match=r"/x: the server answers 404 Not Found$"),
    ):
        fetch(f"{url}/x?sig=secret", tmp_path)
    with (
        serving(content(data, len(data) + 7)) as url,
        pytest.raises(FetchError, match="ends 7 bytes before its end"),
    ):
        fetch(url, tmp_path)
    with pytest.raises(FetchError, match="refused"):
        fetch(url, tmp_path)
    for announced in (len(data), -1):  # with a length, and without one
        with (
            serving(content(data, announced)) as url,
            pytest.raises(FetchError, match="larger than 100 bytes"),
        ):
            fetch(url, tmp_path, Bounds(archive=100))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("part", ["head", "body", "silence"])
def test_a_server_that_dawdles(tmp_path: Path, part: str) -> None:
    """Each piece comes in time; only all of them together do not."""
    ended = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        piece = {"head": b"x: y\r\n", "body": b"z", "silence": b""}[part]
        if part != "head":
            request.wfile.write(b"content-length: 100000\r\n\r\n")
        while not ended.wait(0.05):
            request.wfile.write(piece)

    bounds = Bounds(seconds=0.5, stall_seconds=0.3 if part == "silence" else 5)
    with (
        serving(answer) as url,
        pytest.raises(FetchError, match=r"not there within 0\.5 s|timed out"),
    ):
        fetch(url, tmp_path, bounds)
    ended.set()


def test_what_it_is_no_archive_of(tmp_path: Path) -> None:
    with (
        serving(content(b"<html>sign in</html>")) as url,
        pytest.raises(FetchError, match=r"127.0.0.1:\d+: neither a \.zip nor a \.tar\.gz"),
    ):
        fetch(url, tmp_path)
