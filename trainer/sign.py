"""``trainer sign``: the signature of a model folder, and keys to make it with. See ``detector.adapters.signature``."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detector.adapters.aside import aside
from detector.adapters.folder import MANIFEST, STREAMS, read_model
from detector.adapters.signature import SIGNATURE, check_signature, fingerprint
from schemas.errors import ModelError, UserError


def new_key(path: str) -> str:
    """Write a private key (readable by its owner alone) and, beside it, NAME.pub; returns the key's fingerprint."""
    for name in (path, f"{path}.pub"):
        if os.path.lexists(name):
            raise UserError(f"{name} exists: a key is never overwritten; name another file")
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for name, data, mode in ((path, pem, 0o600), (f"{path}.pub", public, 0o644)):
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise UserError(f"{name} cannot be written: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    return fingerprint(private.public_key())


def sign(folder: str, key: str) -> str:
    """Sign the model folder; returns the key's fingerprint. Raises UserError.

    Only a model that can be read is signed: its files have the hashes that the manifest names.
    """
    private, place = private_key(key), Path(folder)
    manifest = (place / MANIFEST).read_bytes() if (place / MANIFEST).is_file() else b""
    model = read_model(place)
    if STREAMS not in model.manifest.files:
        raise ModelError(f"{folder} was made before {STREAMS} had its hash in {MANIFEST}: fit the model again")
    with aside(place / SIGNATURE) as file:
        file.buffer.write(private.sign(manifest))
    public = private.public_key()
    check_signature(place, (place / MANIFEST).read_bytes(), [public])
    read_model(place)  # as it is now: nobody has replaced it meanwhile
    return fingerprint(public)


def private_key(path: str) -> Ed25519PrivateKey:
    """The key of a PEM file. Raises UserError where it is none, or is encrypted and nobody can be asked."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"--key {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        key = serialization.load_pem_private_key(text, None)
    except TypeError:  # it is encrypted
        if not sys.stdin.isatty():
            raise UserError(f"--key {path} has a password: sign at a terminal, which asks for it") from None
        try:
            key = serialization.load_pem_private_key(text, getpass.getpass(f"Password of {path}: ").encode())
        except (ValueError, TypeError):
            raise UserError(f"--key {path} cannot be opened with this password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"--key {path} is no private key in PEM: make one with `trainer sign --new-key FILE`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"--key {path} is of another kind than Ed25519: make one with `trainer sign --new-key FILE`")
    return key
