"""A bundle's archive from a URL: bounded in size and time.

What arrives is trusted no further than that: who calls checks the manifest against the digest he
was told, and every file against the manifest, before anything is loaded.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, url2pathname

from mlops_assets.scoring.archive import ArchiveError, Bounds, unpack

#: Bytes read from the network at a time.
CHUNK = 1 << 20


class FetchError(Exception):
    """A bundle that cannot be fetched; names the URL, without what may be secret in it."""


def fetch(url: str, folder: Path, bounds: Bounds | None = None) -> Path:
    """Download an archive, .zip or .tar.gz, and unpack it.

    Args:
        url: https or file; http from this machine alone.
        folder: an empty one; the archive lies in it while it is unpacked.
        bounds: what it may take.

    Returns:
        The folder with what the archive held.

    Raises:
        FetchError: no such URL, no such archive, or it takes more than it may.
    """
    try:
        place = shown(url)
    except ValueError:
        raise FetchError("not a URL: it must begin with https:// or file:///") from None
    bounds = bounds or Bounds()
    archive, unpacked = folder / "archive", folder / "unpacked"
    try:
        _within(bounds.seconds, lambda: _download(url, archive, bounds))
        unpacked.mkdir()
        unpack(archive, unpacked, bounds)
    except (ArchiveError, FetchError) as error:
        raise FetchError(f"{place}: {error}") from None
    finally:
        archive.unlink(missing_ok=True)
    return unpacked


def shown(url: str) -> str:
    """A URL for people: its query may hold a signature, its first part a password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return SplitResult(parts.scheme, place, parts.path, "", "").geturl()


# -- download


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do something that may hang where no timeout reaches: in a resolver, between two headers."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise FetchError(f"not there within {seconds:g} s")
    if failed:
        raise failed[0]


def _download(url: str, to: Path, bounds: Bounds) -> None:
    _require_trusted(url)
    deadline = time.monotonic() + bounds.seconds
    size = 0
    try:
        with closing(_open(url, bounds)) as source, to.open("xb") as target:
            # One read from the network at a time: what trickles in does not pass the deadline.
            while chunk := source.read1(CHUNK):
                size += len(chunk)
                if size > bounds.archive:
                    raise FetchError(f"larger than {bounds.archive} bytes")
                if time.monotonic() > deadline:
                    raise FetchError(f"not there within {bounds.seconds:g} s")
                target.write(chunk)
            missing = getattr(source, "length", None)
    except urllib.error.HTTPError as error:
        raise FetchError(f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise FetchError(str(error.reason)) from None
    except InvalidURL:  # its text has all of the URL
        raise FetchError("not a URL") from None
    except (OSError, HTTPException) as error:
        raise FetchError(str(error) or type(error).__name__) from None
    if missing:
        raise FetchError(f"ends {missing} bytes before its end")


def _open(url: str, bounds: Bounds) -> Any:
    if urlsplit(url).scheme == "file":
        return Path(url2pathname(urlsplit(url).path)).open("rb")
    # Not urlopen: it would follow to any scheme.
    opener = urllib.request.OpenerDirector()
    for handler in (
        # http stays on this machine, where no proxy has a part in it.
        urllib.request.ProxyHandler({n: p for n, p in getproxies().items() if n == "https"}),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener.open(url, timeout=bounds.stall_seconds)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to where it might have been sent in the first place."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str):
        _require_trusted(newurl, sent_on_from=req.type)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_trusted(url: str, sent_on_from: str | None = None) -> None:
    parts = urlsplit(url)
    start = f"sends on to {shown(url)}, but " if sent_on_from else ""
    if parts.username or parts.password:
        raise FetchError(f"{start}a URL with a password ends up in logs; sign its query instead")
    if parts.scheme == "file" and not sent_on_from:
        return
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise FetchError(f"{start}it must begin with https:// or file:///")
    if parts.scheme == "http" and (sent_on_from == "https" or not _is_loopback(parts.hostname)):
        raise FetchError(f"{start}http is for this machine alone; use https://")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
