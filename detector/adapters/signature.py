"""A model's signature: Ed25519 (RFC 8032) over the bytes of manifest.json, which holds the hashes of what decides.

``manifest.sig`` is the signature's 64 bytes, as ``openssl pkeyutl -sign -rawin`` writes them too; keys are PEM files,
as ``openssl genpkey -algorithm ed25519`` and ``openssl pkey -pubout`` write them. The package ``cryptography`` is
loaded only where a key is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64

#: Bytes of a file of keys, at most: a public key has 113.
KEYS_BYTES = 1 << 20

_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


def read_keys(path: str) -> list[Ed25519PublicKey]:
    """The public keys of a PEM file, or of every .pem and .pub file of a folder. Raises SettingsError; never empty."""
    place = Path(path)
    files = sorted(f for f in place.iterdir() if f.suffix in (".pem", ".pub")) if place.is_dir() else [place]
    keys = [key for file in files for key in _keys_of(file)]
    if not keys:
        raise SettingsError(f"trusted_keys {path} holds no public key: put one there, as a file NAME.pub")
    return keys


def check_signature(folder: Path, manifest: bytes, keys: Sequence[Ed25519PublicKey]) -> None:
    """Raises ModelError unless one of the keys has signed these bytes."""
    from cryptography.exceptions import InvalidSignature

    try:
        with (folder / SIGNATURE).open("rb") as file:
            signature = file.read(SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not signed, and trusted_keys is set: sign it with `trainer sign {folder} --key FILE`"
        ) from None
    except OSError as error:
        raise ModelError(f"{folder / SIGNATURE} cannot be read: {error.strerror}") from error
    for key in keys:
        try:
            key.verify(signature, manifest)
            return
        except InvalidSignature:
            continue
    known = ", ".join(fingerprint(key) for key in keys[:3]) + (" …" if len(keys) > 3 else "")
    raise ModelError(
        f"{folder}: none of trusted_keys ({known}) has signed this manifest: do not use the model unless you know who "
        "changed it; then sign it again"
    )


def fingerprint(key: Ed25519PublicKey) -> str:
    """The first 16 digits of the SHA-256 of the raw key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _keys_of(file: Path) -> list[Ed25519PublicKey]:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise SettingsError(
            "trusted_keys needs the package cryptography: install it, as with pip install 'residual[signed]'"
        ) from None
    try:
        with file.open("rb") as opened:
            text = opened.read(KEYS_BYTES)
    except OSError as error:
        raise SettingsError(f"trusted_keys {file}: {(error.strerror or str(error)).lower()}") from None
    if b"PRIVATE KEY" in text:
        raise SettingsError(f"trusted_keys {file} holds a private key: keep that where models are signed, and nowhere")
    keys: list[Ed25519PublicKey] = []
    for block in text.split(_BEGIN)[1:]:
        try:
            key = load_pem_public_key(_BEGIN + block.partition(_END)[0] + _END)
        except (ValueError, UnsupportedAlgorithm):
            raise SettingsError(f"trusted_keys {file} is damaged: name PEM files of public keys") from None
        if not isinstance(key, Ed25519PublicKey):
            raise SettingsError(f"trusted_keys {file} holds a key of another kind than Ed25519")
        keys.append(key)
    return keys
