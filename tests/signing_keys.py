"""Keys that sign versions, made for one test."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def write_key(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> tuple[Path, str]:
    """A new key: the file of its private half, and the public one as PEM."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    path = folder / f"{name}.pem"
    path.write_bytes(private(key))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return path, public.decode()


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
