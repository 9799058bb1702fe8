"""One version without the platform around it, for containers and for whoever unpacked a package.

It is the endpoint's server: what a deployment would have written is written into a folder here,
and the same supervisor and workers serve it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict
from enum import IntEnum
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from mlops_assets.files import digest_file, to_json, write_atomic
from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.capture.upload import Uploader
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.generation import Entry, Generation, GenerationFile, read_acks
from mlops_assets.scoring.keys import KEYS, KeyFileError, read_keys, write_keys
from mlops_assets.scoring.logs import log_to_stderr
from mlops_assets.scoring.metrics import COUNTS, Metrics
from mlops_assets.scoring.options import COMMAND, MODEL_DIR, Options, parse
from mlops_assets.scoring.predictor import (
    MANIFEST,
    MODELS,
    SAMPLE,
    read_manifest,
    served_format,
)
from mlops_assets.scoring.signature import SIGNATURE, Signed
from mlops_assets.scoring.supervisor import (
    LOCK,
    SETTINGS,
    ListenError,
    Settings,
    Supervisor,
    take,
)

#: How far below the folder that was named the version may lie.
DEPTH = 2
FETCHED = "fetched"
#: Where requests are kept, here and in blob storage.
CAPTURED = "captured"


class Exit(IntEnum):
    """Exit codes; 2 is the command line's own."""

    STATE = 3
    PORT = 4
    NO_BUNDLE = 5
    INTEGRITY = 6
    KEYS = 7
    FETCH = 8
    LOAD = 9
    FOLLOW = 10


class StartError(Exception):
    """The server does not start, or has to end; says why in one line."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: list[str] | None = None, *, package: str | None = None) -> int:
    """Serve until told to end; returns the exit code.

    Args:
        arguments: ``sys.argv`` by default.
        package: the command of a package, whose bundle has only those files that are loaded.
    """
    command = package or COMMAND
    options = parse(arguments, os.environ, command)
    # The first process of a container has no default that would end it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    log_to_stderr()
    try:
        with _state(options.state) as folder:
            if options.generation_url:
                _follow(folder, options, options.generation_url)
            else:
                _serve(folder, _prepare(options, folder, package is not None))
    except StartError as error:
        print(f"{command.removeprefix('python -m ')}: {error}", file=sys.stderr)
        return error.code
    return 0


def _leave(*_: object) -> None:
    sys.exit(0)


@contextmanager
def _state(wanted: Path | None) -> Generator[Path]:
    """The one folder that is written to, this server's alone."""
    try:
        if wanted is None:
            with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
                yield Path(folder)
            return
        wanted.mkdir(parents=True, exist_ok=True)
        lock = (wanted / LOCK).open("w")
    except OSError as error:
        place = error.filename or tempfile.gettempdir()
        raise StartError(Exit.STATE, f"{place}: cannot be written: {error.strerror}") from None
    with lock:
        if not take(lock.fileno(), seconds=0):
            raise StartError(Exit.STATE, f"{wanted}: another server has it; --state is another one")
        for name in (COUNTS, FETCHED):
            shutil.rmtree(wanted / name, ignore_errors=True)
        yield wanted.absolute()


def _prepare(options: Options, folder: Path, packaged: bool) -> Settings:
    """Write what a deployment would have written; raises StartError."""
    settings = _settings(options, _keys(options, folder, os.environ), folder)
    root = _root(options, folder)
    bundle = find_bundle(root)
    try:
        digest = check(bundle, options.digest, packaged)
    except IntegrityError as error:
        raise StartError(Exit.INTEGRITY, str(error)) from None
    number = version_of(bundle, root) if options.version is None else options.version
    edges = options.compared_edges
    entry = Entry(
        str(bundle),
        digest,
        number,
        100,
        signed=_signed(options, bundle, folder),
        compared=None if edges is None else tuple(edges),
    )
    GenerationFile(folder).write(Generation(1, {f"v{number}": entry}))
    write_atomic(folder / SETTINGS, to_json(asdict(settings)))
    return settings


def _settings(options: Options, keys: str | None, folder: Path) -> Settings:
    return Settings(
        port=options.port or None,
        workers=options.workers,
        host=options.host,
        keys=keys,
        cors_origins=tuple(options.cors_origins),
        access_log=options.access_log,
        capture=_capture(options, folder),
    )


def _capture(options: Options, folder: Path) -> CaptureSettings | None:
    """What is kept of the requests; raises StartError where it cannot be."""
    if not options.capture_share:
        return None
    if find_spec("pyarrow") is None:
        mend = "install it, build the image with PICKLE=true, or leave it out"
        raise StartError(Exit.STATE, f"--capture-share needs pyarrow, which is not here; {mend}")
    return CaptureSettings(
        str((options.capture or folder / CAPTURED).absolute()),
        options.capture_share,
        tuple(options.capture_columns) or None,
        tuple(options.capture_exclude),
        options.capture_rotate_megabytes,
        options.capture_rotate_seconds,
        options.capture_keep_days,
    )


def _follow(folder: Path, options: Options, url: str) -> None:
    """Serve what is written in blob storage, until told to end; raises StartError."""
    from mlops_assets.scoring import follow  # in few images there is what it needs

    try:
        source = follow.BlobFolder(url)
    except ImportError as error:
        mend = "build the image with AZURE=true"
        raise StartError(Exit.FOLLOW, f"{url} cannot be followed: {error}; {mend}") from None
    settings = _settings(options, KEYS, folder)
    write_atomic(folder / SETTINGS, to_json(asdict(settings)))
    name = options.instance or follow.default_instance()
    thread = follow.Follower(folder, source, name).start()
    if settings.capture is not None:
        place = f"{CAPTURED}/{source.subject}"
        finished = Path(settings.capture.folder)
        Uploader(finished, source, place, Metrics(folder)).start()
    try:
        told = Supervisor(folder, settings, lambda: not thread.is_alive()).run()
    except ListenError as error:
        raise StartError(Exit.PORT, f"{error}; --port has another one") from None
    if not told:
        raise StartError(Exit.FOLLOW, f"{url}: no longer followed; see the log")


def _serve(folder: Path, settings: Settings) -> None:
    """Serve the folder until told to end; raises StartError where the version is refused."""
    refused: list[str] = []

    def failed() -> bool:
        refused.extend(text for ack in read_acks(folder) for text in ack.errors.values())
        return bool(refused)

    try:
        told = Supervisor(folder, settings, failed).run()
    except ListenError as error:
        raise StartError(Exit.PORT, f"{error}; --port has another one") from None
    if not told:
        kind, _, text = refused[0].partition(": ")
        changed = kind == IntegrityError.__name__
        message = text if changed else f"the version cannot be loaded: {refused[0]}"
        raise StartError(Exit.INTEGRITY if changed else Exit.LOAD, message)


# -- the version


def _root(options: Options, folder: Path) -> Path:
    if options.url:
        from mlops_assets.scoring.fetch import FetchError, fetch  # TLS and more, seldom needed

        fetched = folder / FETCHED
        fetched.mkdir()
        try:
            return fetch(options.url, fetched)
        except FetchError as error:
            raise StartError(Exit.FETCH, str(error)) from None
    mounted = os.environ.get(MODEL_DIR)
    root = options.bundle or (Path(mounted) if mounted else None)
    if root is None:
        message = f"no version: give --bundle or --url, or mount it and set {MODEL_DIR}"
        raise StartError(Exit.NO_BUNDLE, message)
    return root.absolute()


def find_bundle(root: Path) -> Path:
    """The folder with the manifest: ``root`` itself, or the only one at most two levels below.

    Raises:
        StartError: there is none, or there are several side by side.
    """
    level = [root]
    for _ in range(DEPTH + 1):
        found = [folder for folder in level if (folder / MANIFEST).is_file()]
        if len(found) > 1:
            names = ", ".join(str(folder) for folder in found)
            raise StartError(Exit.NO_BUNDLE, f"{root}: several versions: {names}; name one")
        if found:
            return found[0]
        level = [below for folder in level for below in _folders(folder)]
    message = f"{root}: no {MANIFEST} in it, nor in a folder at most {DEPTH} levels below"
    raise StartError(Exit.NO_BUNDLE, message)


def _folders(folder: Path) -> list[Path]:
    try:
        # Hidden ones are other tools': Kubernetes mounts a second copy as ..data.
        return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise StartError(Exit.NO_BUNDLE, f"{folder}: {error.strerror}") from None


def check(bundle: Path, digest: str | None, packaged: bool = False) -> str:
    """Check every file of a bundle, before anything of it is loaded.

    Args:
        bundle: its folder.
        digest: SHA-256 that its manifest must have, if it is known.
        packaged: what is not loaded may be missing; else a missing file is half a copy.

    Returns:
        The manifest's SHA-256.

    Raises:
        IntegrityError: a file is missing or another one; names it.
    """
    manifest, found = read_manifest(bundle, digest)
    # The other model may be missing anywhere.
    optional = {name for kind, name in MODELS.items() if kind != served_format(manifest)}
    if packaged:
        optional |= manifest["files"].keys() - {SAMPLE, *MODELS.values()}
    for name, expected in sorted(manifest["files"].items()):
        path = bundle / name
        if name in optional and not path.exists():
            continue
        try:
            actual = digest_file(path)
        except OSError as error:
            raise IntegrityError(f"{path}: {error.strerror}; the manifest names it") from None
        if actual != expected:
            raise IntegrityError(f"{path}: not what the manifest says; it was changed since")
    return found


def version_of(bundle: Path, root: Path) -> int:
    """A version's number by its folder's name, or that of the folder that was mounted; else 0."""
    for folder in (bundle, root):
        number = re.search(r"(?:^|-)(\d{1,9})$", folder.name)
        if number:
            return int(number[1])
    return 0


def _signed(options: Options, bundle: Path, folder: Path) -> Signed | None:
    public_key, signature = options.public_key, options.signature
    if public_key is None:
        return None
    try:
        pem = public_key if public_key.startswith("-----BEGIN") else Path(public_key).read_text()
    except (OSError, ValueError) as error:
        raise StartError(Exit.INTEGRITY, f"{public_key}: no public key: {error}") from None
    path = bundle / SIGNATURE
    if signature is not None and signature.startswith("{"):
        path = folder / SIGNATURE
        write_atomic(path, signature)
    elif signature is not None:
        path = Path(signature).absolute()
    return Signed(str(path), pem)


# -- the keys


def _keys(options: Options, folder: Path, variables: MutableMapping[str, str]) -> str | None:
    """Where the keys lie; None where none are asked for, and that is safe."""
    given = {name: variables.pop(name, "") for name in options.key_variables}
    keys = [key.strip().encode() for key in given.values() if key.strip()]
    for name, key in given.items():
        if len(key.split()) > 1:
            raise StartError(Exit.KEYS, f"{name}: a key has no space in it")
    if options.keys is not None:
        path = options.keys.absolute()
    elif keys:
        path = folder / KEYS
        write_keys(path, keys)
    elif options.no_keys:
        _require_guarded(options.host, variables)
        return None
    else:
        names = " and ".join(options.key_variables)
        message = f"no keys: give --keys, or set {names}; --no-keys where none are wanted"
        raise StartError(Exit.KEYS, message)
    try:
        read_keys(path)
    except KeyFileError as error:
        raise StartError(Exit.KEYS, str(error)) from None
    return str(path)


def _require_guarded(host: str, variables: MutableMapping[str, str]) -> None:
    try:
        alone = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not alone and not variables.get(MODEL_DIR):
        message = f"--no-keys on {host} would let anybody in: give keys, or listen on 127.0.0.1"
        raise StartError(Exit.KEYS, message)
