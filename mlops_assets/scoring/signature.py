"""Who vouches for a version: OpenSSF's signatures over a bundle's files, by an elliptic-curve key.

``model_signing`` makes and checks them, so that its own command line does too. It brings a large
family of packages along; a server checks in a process of its own, and stays as small as it was:
``python -m mlops_assets.scoring.signature`` reads one line ``{"bundle", "digest", "signature",
"public_key"}``, prints what is wrong, and exits with 0 if nothing is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlops_assets.files import write_atomic
from mlops_assets.scoring.errors import IntegrityError

#: Name of a signature that lies in its bundle; the manifest does not name it.
SIGNATURE = "model.sig"
MANIFEST = "manifest.json"
#: How long a check may take.
TIMEOUT_SECONDS = 300
_PREDICATE = "https://model_signing/signature/v1.0"


class SigningError(Exception):
    """A key that cannot sign or check, or a bundle that is not what is to be signed."""


@dataclass(frozen=True, slots=True)
class Signed:
    """By whom a version must be signed, and where the signature should lie."""

    signature: str
    #: PEM.
    public_key: str


def require_signature(bundle: Path, digest: str, signed: Signed) -> None:
    """Refuse a bundle that is not signed with a key.

    Args:
        bundle: the version's folder.
        digest: SHA-256 of its manifest.
        signed: the key's public half and the signature.

    Raises:
        IntegrityError: not signed, not with this key, or changed since; names the file.
    """
    question = json.dumps({"bundle": str(bundle), "digest": digest, **asdict(signed)})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mlops_assets.scoring.signature"],
            input=question.encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"{signed.signature}: not checked within {TIMEOUT_SECONDS} s"
        raise IntegrityError(message) from None
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        crash = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise IntegrityError(said or f"{signed.signature}: not checked: {' '.join(crash)}")


def verify(bundle: Path, digest: str, signed: Signed) -> None:
    """Check a signature in this process; see ``require_signature``."""
    path = Path(signed.signature)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(
            f"{path}: not there: the version is not signed; `mlops sign` does it"
        ) from None
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}") from None
    with tempfile.TemporaryDirectory() as folder:
        # Copies: what is checked here is what was read, whoever writes to the originals.
        signature, key = Path(folder, SIGNATURE), Path(folder, "key.pem")
        signature.write_bytes(data)
        key.write_text(signed.public_key)
        _verify(bundle, signature, key, path)
    # The files are hashed here and read again to be loaded. What binds both is the digest of the
    # manifest, which names all others: it must be the very one that was signed.
    if _signed_digest(data) != digest:
        raise IntegrityError(f"{path}: the signature of another version than {digest[:12]}…")


def sign(bundle: Path, digest: str, private_key: Path, to: Path) -> None:
    """Sign a bundle.

    Args:
        bundle: the version's folder; all its files are signed.
        digest: SHA-256 that its manifest must have.
        private_key: a PEM file of an elliptic-curve key, P-256, P-384 or P-521, not encrypted.
        to: where the signature is written.

    Raises:
        SigningError: the key cannot sign.
        IntegrityError: the manifest is another one.
    """
    from model_signing.signing import Config

    from mlops_assets.scoring.predictor import read_manifest

    read_manifest(bundle, digest)
    try:
        signer = Config().use_elliptic_key_signer(private_key=private_key)
    except OSError as error:
        raise SigningError(f"{private_key}: {error.strerror}") from None
    except Exception as error:
        raise SigningError(_no_key(str(private_key), "private", error)) from None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, SIGNATURE)
        signer.set_hashing_config(_hashing()).sign(bundle, made)
        data = made.read_bytes()
    if _signed_digest(data) != digest:  # replaced while it was signed
        raise IntegrityError(f"{bundle / MANIFEST}: changed while it was signed")
    write_atomic(to, data)


def _verify(bundle: Path, signature: Path, key: Path, shown: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from model_signing.verifying import Config

    try:
        verifier = Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise IntegrityError(_no_key("the public key", "public", error)) from None
    try:
        # Only what was signed: a signature in the bundle is no part of it.
        verifier.set_ignore_unsigned_files(True).verify(bundle, signature)
    except InvalidSignature:
        raise IntegrityError(f"{shown}: not a signature by this key") from None
    except ValueError as error:
        raise IntegrityError(_reason(str(error), bundle, shown)) from None
    except Exception as error:
        raise IntegrityError(f"{shown}: not a signature ({type(error).__name__})") from None


def _reason(text: str, bundle: Path, shown: Path) -> str:
    """What the library says, in our words: it prints digests as bytes, and all files at once."""
    if text.startswith("Key mismatch"):
        return f"{shown}: signed with another key than the one that is asked for"
    missing = re.search(r"Cannot use '(.+?)' as file", text)
    if missing:
        return f"{missing[1]}: missing; it was there when {shown} was made"
    # It is the repr of a list of texts: with a backslash before the quotes, or without.
    changed = re.findall(r"Hash mismatch for \\?'(.+?)\\?': Expected", text)
    if changed:
        names = ", ".join(str(bundle / name) for name in changed)
        return f"{names}: not what was signed as {shown}"
    return f"{shown}: not a signature: {text}"


def _hashing() -> Any:
    from model_signing.hashing import Config

    return Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _signed_digest(signature: bytes) -> str | None:
    """SHA-256 of the manifest, as a signature that was checked has it."""
    try:
        statement = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
        predicate = statement["predicate"]
        if statement["predicateType"] != _PREDICATE or predicate["serialization"] is None:
            return None
        found = [r for r in predicate["resources"] if r["name"] == MANIFEST]
        return str(found[0]["digest"]) if found[0]["algorithm"] == "sha256" else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _no_key(name: str, half: str, error: Exception) -> str:
    mend = "it must be PEM of an elliptic-curve key: P-256, P-384 or P-521"
    return f"{name}: not a {half} key ({type(error).__name__}); {mend}"


def main() -> int:
    """Answer the one question on stdin."""
    question = json.loads(sys.stdin.readline())
    signed = Signed(question["signature"], question["public_key"])
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the library prints
            verify(Path(question["bundle"]), question["digest"], signed)
    except IntegrityError as error:
        print(error)
        return 1
    except ImportError as error:
        print(f"{signed.signature}: cannot be checked without model-signing: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
