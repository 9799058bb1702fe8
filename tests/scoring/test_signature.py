"""Signatures over real bundles with real keys, and who asks for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.signature import Signed, SigningError, require_signature, sign, verify
from resources.endpoints.base import EndpointError, VersionRef
from resources.endpoints.local import LocalSettings
from tests.bundles import exported
from tests.local_servers import ASK, local_endpoints
from tests.local_servers import replace as make_only
from tests.signing_keys import private, write_key
from tests.standalone_servers import KEYS, refused, standalone


class Case:
    """A version, two keys, and its signature by the first one."""

    def __init__(self, folder: Path) -> None:
        self.version = exported(folder, 1)
        self.bundle, self.digest = self.version.bundle, self.version.digest
        self.private, self.public = write_key(folder, "release")
        _, self.other = write_key(folder, "other")
        self.path = folder / "signatures" / "1.sig"
        sign(self.bundle, self.digest, self.private, self.path)
        self.signed = Signed(str(self.path), self.public)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_right_key(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    version = exported(tmp_path, 1)
    key, public = write_key(tmp_path, "key", curve)
    before = {p.name for p in version.bundle.iterdir()}
    sign(version.bundle, version.digest, key, tmp_path / "sig")
    assert {p.name for p in version.bundle.iterdir()} == before
    verify(version.bundle, version.digest, Signed(str(tmp_path / "sig"), public))


def test_the_signature_may_lie_in_the_bundle(case: Case) -> None:
    inside = case.bundle / "model.sig"
    shutil.copy(case.path, inside)
    verify(case.bundle, case.digest, Signed(str(inside), case.public))
    sign(case.bundle, case.digest, case.private, inside)  # again: it is no part of what is signed
    verify(case.bundle, case.digest, Signed(str(inside), case.public))


def test_its_own_command_line_agrees(case: Case, tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_text(case.public)
    done = subprocess.run(
        [
            sys.executable, "-m", "model_signing", "verify", "key", case.bundle,
            "--signature", case.path, "--public_key", tmp_path / "public.pem",
        ],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_refused(case: Case) -> None:
    with pytest.raises(IntegrityError, match=r"2\.sig: not there: the version is not signed"):
        verify(case.bundle, case.digest, Signed(str(case.path.with_name("2.sig")), case.public))
    with pytest.raises(IntegrityError, match=r"1\.sig: signed with another key"):
        verify(case.bundle, case.digest, replace(case.signed, public_key=case.other))
    with pytest.raises(IntegrityError, match="the public key: not a public key"):
        verify(case.bundle, case.digest, replace(case.signed, public_key="no PEM"))
    with pytest.raises(IntegrityError, match=r"1\.sig: the signature of another version"):
        verify(case.bundle, "0" * 64, case.signed)
    other = exported(case.path.parent, 2)
    with pytest.raises(
        IntegrityError, match=r"manifest\.json, .*: not what was signed as .*1\.sig"
    ):
        verify(other.bundle, other.digest, case.signed)


def test_a_signature_that_hides_whose_it_is(case: Case) -> None:
    value = json.loads(case.path.read_text())
    value["verificationMaterial"]["publicKey"]["hint"] = None
    case.path.write_text(json.dumps(value))
    verify(case.bundle, case.digest, case.signed)
    with pytest.raises(IntegrityError, match=r"1\.sig: not a signature by this key"):
        verify(case.bundle, case.digest, replace(case.signed, public_key=case.other))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "no JSON", '{"dsseEnvelope": {}}'])
def test_a_file_that_is_no_signature(case: Case, text: str) -> None:
    case.path.write_text(text)
    with pytest.raises(IntegrityError, match=r"1\.sig: not a signature"):
        verify(case.bundle, case.digest, case.signed)


@pytest.mark.parametrize("name", ["model.onnx", "model.pkl", "manifest.json", "sample.json"])
def test_a_changed_and_a_missing_file(case: Case, name: str) -> None:
    path = case.bundle / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=rf"{name}: not what was signed"):
        require_signature(case.bundle, case.digest, case.signed)
    path.unlink()
    with pytest.raises(IntegrityError, match=rf"{name}: missing"):
        verify(case.bundle, case.digest, case.signed)


def test_keys_that_cannot_sign(case: Case, tmp_path: Path) -> None:
    key = tmp_path / "rsa.pem"
    key.write_bytes(private(rsa.generate_private_key(65537, 2048)))
    for path, message in ((key, "rsa.pem: not a private key"), (tmp_path / "x", "x: No such")):
        with pytest.raises(SigningError, match=message):
            sign(case.bundle, case.digest, path, case.path)
    with pytest.raises(IntegrityError, match=r"manifest\.json: SHA-256 is"):
        sign(case.bundle, "0" * 64, case.private, case.path)


def test_an_endpoint_that_asks_for_a_signature(case: Case, tmp_path: Path) -> None:
    plain = case.version
    signed = replace(plain, signed=case.signed)
    wrong = replace(plain, signed=replace(case.signed, public_key=case.other))
    unsigned_two = exported(tmp_path, 2)
    missing = str(case.path.with_name("2.sig"))
    with (
        local_endpoints(tmp_path / "endpoints") as endpoints,
        endpoints.open("tiny", "staging", LocalSettings()) as target,
    ):
        with pytest.raises(EndpointError, match=r"version 1 .*1\.sig: signed with another key"):
            target.stage(wrong)
        refused_two = replace(unsigned_two, signed=Signed(missing, case.public))
        with pytest.raises(EndpointError, match=r"version 2 .*2\.sig: not there: .* not signed"):
            target.stage(refused_two)
        make_only(target, signed)
        assert target.score(None, ASK).status == 200
        make_only(target, unsigned_two)  # an environment that does not ask
        assert target.score(None, ASK).status == 200
        model = case.bundle / "model.onnx"
        model.write_bytes(model.read_bytes()[::-1])
        with pytest.raises(EndpointError, match=r"version 1 .*model\.onnx: not what was signed"):
            target.stage(signed)
        assert [d.version for d in target.live().values()] == [2]


def test_a_version_that_serves_is_checked_when_a_signature_is_asked_for(
    case: Case, tmp_path: Path
) -> None:
    plain: VersionRef = case.version
    with (
        local_endpoints(tmp_path / "endpoints") as endpoints,
        endpoints.open("tiny", "staging", LocalSettings()) as target,
    ):
        make_only(target, plain)
        wrong = replace(plain, signed=replace(case.signed, public_key=case.other))
        with pytest.raises(EndpointError, match="signed with another key"):
            target.stage(wrong)


def test_a_standalone_server(case: Case, tmp_path: Path) -> None:
    arguments = ("--bundle", case.bundle, "--port", "0")
    code, line = refused(*arguments, MLOPS_PUBLIC_KEY=case.public, **KEYS)
    assert (code, "model.sig: not there: the version is not signed" in line) == (6, True)
    shutil.copy(case.path, case.bundle / "model.sig")
    code, line = refused(*arguments, MLOPS_PUBLIC_KEY=case.other, **KEYS)
    assert (code, "model.sig: signed with another key" in line) == (6, True)
    code, line = refused(*arguments, "--public-key", tmp_path / "nowhere", **KEYS)
    assert (code, "nowhere: no public key" in line) == (6, True)
    public = tmp_path / "public.pem"
    public.write_text(case.public)
    with standalone(
        tmp_path / "state", "--bundle", case.bundle, "--public-key", public, **KEYS
    ) as server:
        assert server.ask(body={"data": [{"a": 1, "b": 2}]})[0] == 200
