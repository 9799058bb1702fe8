"""What can be said to a standalone server, on its command line or by environment variables."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODEL_DIR = "AZUREML_MODEL_DIR"
COMMAND = "python -m mlops_assets.scoring"
PORT = 5001
KEY_VARIABLES = ("MLOPS_PRIMARY_KEY", "MLOPS_SECONDARY_KEY")
EPILOG = f"""\
The version comes from --bundle, from --url, or from where {MODEL_DIR} says that Azure ML has
mounted it; its folder is the first one with a manifest.json, at most two levels down. Its files
must be what the manifest says, and the manifest what --digest says.

Or it follows --generation-url: versions, their traffic and the keys are what is written there, now
and later; it reads that as the container's managed identity, and serves on when it cannot.

Every request needs one of two keys: from --keys, a key a line, followed when it changes; or from
the variables that --key-variables names. Without keys the server answers whoever reaches it. That
has to be said, --no-keys, and is refused unless it listens on this machine alone, or Azure ML
stands before it and checks keys itself ({MODEL_DIR} is set).

Each option can be given as the variable in [brackets], so that an image needs no other command.
All that is written goes to --state; the rest of the file system may be read-only.

It ends with 0 when it is told to, by SIGTERM or SIGINT, and else with one line that says why:
2 wrong options, 3 --state is in use, 4 the port cannot be had, 5 no version found, 6 a file is not
what it must be, 7 no usable keys, 8 the download failed, 9 the version cannot be loaded.
"""


class Options(argparse.Namespace):
    """The command line, parsed."""

    bundle: Path | None
    url: str | None
    generation_url: str | None
    instance: str | None
    digest: str | None
    version: int | None
    public_key: str | None
    signature: str | None
    compared_edges: list[float] | None
    host: str
    port: int
    workers: int
    keys: Path | None
    key_variables: list[str]
    no_keys: bool
    cors_origins: list[str]
    access_log: bool
    capture_share: float
    capture: Path | None
    capture_columns: list[str]
    capture_exclude: list[str]
    capture_rotate_megabytes: float
    capture_rotate_seconds: float
    capture_keep_days: int
    state: Path | None


def parse(
    arguments: list[str] | None, variables: MutableMapping[str, str], command: str = COMMAND
) -> Options:
    """Read the options; ends the process with 2 if they are none.

    Args:
        arguments: ``sys.argv`` by default.
        variables: the environment; what may be secret is removed from it.
        command: how the server was called.
    """
    parser = argparse.ArgumentParser(
        prog=command,
        description="Serve one version of a model over HTTP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, variable: str, default: str | None = None, **more: Any) -> None:
        # Empty is unset: not every place can leave a variable out.
        given = variables.get(variable) or default
        more["help"] += f" [{variable}]"
        parser.add_argument(name, default=given, **more)

    def flag(name: str, variable: str, text: str) -> None:
        add(name, variable, "false", nargs="?", const=True, type=_flag, metavar="", help=text)

    add(
        "--bundle",
        "MLOPS_BUNDLE",
        type=Path,
        metavar="DIR",
        help="the version's folder, or one above it",
    )
    add(
        "--url",
        "MLOPS_BUNDLE_URL",
        help="an archive of it: https, file, or http from this machine; asks for --digest",
    )
    add(
        "--generation-url",
        "MLOPS_GENERATION_URL",
        type=_generation_url,
        metavar="URL",
        help="follow a folder of blobs: https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER",
    )
    add(
        "--instance",
        "MLOPS_INSTANCE",
        type=_instance,
        metavar="NAME",
        help="what this server is called there; its machine's name by default",
    )
    add(
        "--digest",
        "MLOPS_BUNDLE_DIGEST",
        type=_digest,
        metavar="SHA256",
        help="of its manifest.json: the version's own",
    )
    add(
        "--version",
        "MLOPS_BUNDLE_VERSION",
        type=_version,
        metavar="N",
        help="its number; as its folder is named by default",
    )
    add(
        "--public-key",
        "MLOPS_PUBLIC_KEY",
        metavar="FILE",
        help="refuse it unless its model.sig is by this key; PEM, or a file of it",
    )
    add(
        "--signature",
        "MLOPS_SIGNATURE",
        metavar="FILE",
        help="where its signature lies, if not beside its files; or the signature itself",
    )
    add(
        "--compared-edges",
        "MLOPS_COMPARED_EDGES",
        type=_edges,
        metavar="[A,B]",
        help="count its predictions by these edges too: those of the version beside it",
    )
    add("--host", "MLOPS_HOST", "127.0.0.1", help="address to listen on; 127.0.0.1 by default")
    add(
        "--port",
        "MLOPS_PORT",
        str(PORT),
        type=_port,
        help=f"port to listen on; {PORT} by default, 0 is any free one",
    )
    add(
        "--workers",
        "MLOPS_WORKERS",
        "1",
        type=_workers,
        metavar="N",
        help="processes that answer; 1 by default",
    )
    add("--keys", "MLOPS_KEYS", type=Path, metavar="FILE", help="two keys, a line each")
    add(
        "--key-variables",
        "MLOPS_KEY_VARIABLES",
        ",".join(KEY_VARIABLES),
        type=_names,
        metavar="A,B",
        help=f"variables with the keys; {','.join(KEY_VARIABLES)} by default",
    )
    flag("--no-keys", "MLOPS_NO_KEYS", "ask for no key")
    add(
        "--cors-origins",
        "MLOPS_CORS_ORIGINS",
        "",
        type=_names,
        metavar="A,B",
        help="pages of these origins may ask from a browser",
    )
    flag("--access-log", "MLOPS_ACCESS_LOG", "a log line for every request")
    add(
        "--capture-share",
        "MLOPS_CAPTURE_SHARE",
        "0",
        type=partial(_number, least=0, most=1),
        metavar="SHARE",
        help="keep this share of the requests and their answers; 0, none, by default",
    )
    add(
        "--capture",
        "MLOPS_CAPTURE",
        type=Path,
        metavar="DIR",
        help="where they are kept, as Parquet; a folder of --state by default",
    )
    add(
        "--capture-columns",
        "MLOPS_CAPTURE_COLUMNS",
        "",
        type=partial(_columns, variable="MLOPS_CAPTURE_COLUMNS"),
        metavar="A,B",
        help="keep these columns alone; or a JSON list, for names with a comma",
    )
    add(
        "--capture-exclude",
        "MLOPS_CAPTURE_EXCLUDE",
        "",
        type=partial(_columns, variable="MLOPS_CAPTURE_EXCLUDE"),
        metavar="A,B",
        help="keep these columns nowhere; or a JSON list, likewise",
    )
    add(
        "--capture-rotate-megabytes",
        "MLOPS_CAPTURE_ROTATE_MEGABYTES",
        "16",
        type=partial(_number, least=0.001, most=1024),
        metavar="N",
        help="begin another file when so much waits for one; 16 by default",
    )
    add(
        "--capture-rotate-seconds",
        "MLOPS_CAPTURE_ROTATE_SECONDS",
        "60",
        type=partial(_number, least=0.1, most=3600),
        metavar="N",
        help="and after so many seconds; 60 by default",
    )
    add(
        "--capture-keep-days",
        "MLOPS_CAPTURE_KEEP_DAYS",
        "30",
        type=partial(_integer, least=0, most=36500),
        metavar="N",
        help="remove files of older days; 30 by default",
    )
    add(
        "--state",
        "MLOPS_STATE",
        type=Path,
        metavar="DIR",
        help="where it writes; a temporary folder by default",
    )
    options = parser.parse_args(arguments, Options())
    if options.bundle and options.url:
        parser.error("--bundle and --url exclude each other")
    if options.url and not options.digest:
        parser.error("--url asks for --digest: what comes from elsewhere is checked")
    if options.generation_url and (options.bundle or options.url or options.keys):
        parser.error("--generation-url says which versions and keys; it excludes other ones")
    if options.generation_url and options.no_keys:
        parser.error("--generation-url comes with keys; it excludes --no-keys")
    if options.keys and options.no_keys:
        parser.error("--keys and --no-keys exclude each other")
    variables.pop("MLOPS_BUNDLE_URL", None)  # its query may be a signature
    return options


def _generation_url(text: str) -> str:
    parts = urlsplit(text)
    levels = [level for level in parts.path.split("/") if level]
    if parts.scheme != "https" or not parts.hostname or len(levels) < 2:
        raise argparse.ArgumentTypeError("it is https://ACCOUNT.blob.core.windows.net/CONTAINER/…")
    if parts.query or "@" in parts.netloc:
        raise argparse.ArgumentTypeError("it is read as the managed identity: no signature in it")
    return text


def _instance(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9.-]{0,199}", text):
        raise argparse.ArgumentTypeError("not a name of letters, digits, dots and hyphens")
    return text


def _digest(text: str) -> str:
    found = text.removeprefix("sha256:").lower()
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise argparse.ArgumentTypeError("not a SHA-256: 64 hexadecimal digits")
    return found


def _port(text: str) -> int:
    return _integer(text, 0, 65535)


def _version(text: str) -> int:
    return _integer(text, 0, 999_999_999)


def _workers(text: str) -> int:
    return _integer(text, 1, 64)


def _integer(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text[:9]) <= most:
        raise argparse.ArgumentTypeError(f"not a number from {least} to {most}: {text[:40]!r}")
    return int(text)


def _number(text: str, least: float, most: float) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not least <= found <= most:
        message = f"not a number from {least:g} to {most:g}: {text[:40]!r}"
        raise argparse.ArgumentTypeError(message)
    return found


def _edges(text: str) -> list[float]:
    try:
        found = json.loads(text)
        edges = [float(edge) for edge in found]
    except (ValueError, TypeError):
        edges = None
    if edges is None or edges != sorted(edges):
        raise argparse.ArgumentTypeError(f"no JSON list of rising numbers: {text[:40]!r}")
    return edges


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _columns(text: str, variable: str) -> list[str]:
    """Names between commas, or a JSON list, for those that hold a comma themselves."""
    if not text.lstrip().startswith("[") and '"' not in text:
        return _names(text)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(n, str) for n in found):
        message = f"{variable} is neither names between commas nor a JSON list of them: "
        raise argparse.ArgumentTypeError(f"{message}{text[:40]!r}")
    return found


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"neither true nor false: {text[:40]!r}")
    return text.lower() in ("true", "1")
