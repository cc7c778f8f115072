"""Signed models: ``trainer sign``, trusted_keys, and what is covered."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import tiny_model

from detector.adapters.folder import read_model, write_model
from detector.cli import main as detector
from schemas.errors import ModelError, SettingsError
from trainer.cli import main as trainer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tiny_model(), tmp_path / "m", {"report.html": b"<p>", "weights.safetensors": b"w"})
    return tmp_path / "m"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert trainer(["sign", "--new-key", str(tmp_path / "key")]) == 0
    return tmp_path / "key"


def test_a_signed_model_is_taken(folder: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert trainer(["sign", str(folder), "--key", str(key)]) == 0
    assert "signed with the key" in capsys.readouterr().out
    assert read_model(folder, f"{key}.pub").manifest == read_model(folder).manifest


def test_an_unsigned_model_is_refused_where_keys_are_named(folder: Path, key: Path) -> None:
    read_model(folder)
    with pytest.raises(ModelError, match="is not signed, and trusted_keys is set"):
        read_model(folder, f"{key}.pub")


def test_another_keys_signature_is_refused(folder: Path, key: Path, tmp_path: Path) -> None:
    assert trainer(["sign", "--new-key", str(tmp_path / "other")]) == 0
    assert trainer(["sign", str(folder), "--key", str(tmp_path / "other")]) == 0
    with pytest.raises(ModelError, match="none of trusted_keys"):
        read_model(folder, f"{key}.pub")


def test_any_of_several_keys_will_do_in_a_file_or_a_folder(folder: Path, key: Path, tmp_path: Path) -> None:
    trainer(["sign", "--new-key", str(tmp_path / "other")])
    trainer(["sign", str(folder), "--key", str(key)])
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "other.pub").read_bytes() + Path(f"{key}.pub").read_bytes())
    read_model(folder, str(both))
    (tmp_path / "keys").mkdir()
    for name in ("other.pub", "key.pub"):
        shutil.copy(tmp_path / name, tmp_path / "keys" / name)
    (tmp_path / "keys" / "README").write_text("no key")
    read_model(folder, str(tmp_path / "keys"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "model.onnx", "streams.npz"])
def test_one_flipped_bit_anywhere_is_refused(name: str, folder: Path, key: Path) -> None:
    trainer(["sign", str(folder), "--key", str(key)])
    flip(folder / name)
    with pytest.raises(ModelError):
        read_model(folder, f"{key}.pub")


def test_thresholds_cannot_be_changed_with_their_hash(folder: Path, key: Path) -> None:
    trainer(["sign", str(folder), "--key", str(key)])
    write_model(tiny_model(threshold=1e9), folder.parent / "evil")
    for name in ("streams.npz", "manifest.json"):
        shutil.copy(folder.parent / "evil" / name, folder / name)
    assert read_model(folder).streams.threshold[0] == 1e9  # without keys nobody can tell
    with pytest.raises(ModelError, match="none of trusted_keys"):
        read_model(folder, f"{key}.pub")


def test_a_model_that_is_fitted_anew_has_no_signature(folder: Path, key: Path) -> None:
    trainer(["sign", str(folder), "--key", str(key)])
    write_model(tiny_model(window=5), folder)
    assert not (folder / "manifest.sig").exists()


def old(folder: Path) -> None:
    """As version 2 was written: without the hash of streams.npz."""
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    del said["files"]
    path.write_text(json.dumps(said | {"format_version": 2}))


def test_an_old_folder_is_read_but_never_as_a_signed_one(folder: Path, key: Path, tmp_path: Path) -> None:
    old(folder)
    assert read_model(folder).manifest.format_version == 2
    with pytest.raises(ModelError, match="is not signed"):
        read_model(folder, f"{key}.pub")
    assert trainer(["sign", str(folder), "--key", str(key)]) == 2
    openssl(
        "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", folder / "manifest.json", "-out", folder / "manifest.sig"
    )
    with pytest.raises(ModelError, match="does not cover it"):
        read_model(folder, f"{key}.pub")


def test_a_new_manifest_cannot_leave_a_hash_out(folder: Path) -> None:
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"files": {}}))
    with pytest.raises(ModelError, match=r"streams\.npz is not a file that manifest\.json names"):
        read_model(folder)


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def test_keys_and_signatures_are_those_of_openssl(folder: Path, tmp_path: Path, key: Path) -> None:
    mine = tmp_path / "mine.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", mine)
    openssl("pkey", "-in", mine, "-pubout", "-out", tmp_path / "mine.pub")
    assert trainer(["sign", str(folder), "--key", str(mine)]) == 0
    read_model(folder, str(tmp_path / "mine.pub"))
    openssl(
        "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", tmp_path / "mine.pub", "-in", folder / "manifest.json",
        "-sigfile", folder / "manifest.sig",
    )  # fmt: skip
    openssl(
        "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", folder / "manifest.json", "-out", folder / "manifest.sig"
    )
    read_model(folder, f"{key}.pub")


def test_what_is_no_public_key_is_named(folder: Path, tmp_path: Path, key: Path) -> None:
    def refused(words: str, content: bytes | None = None, path: Path = tmp_path / "k.pem") -> None:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match=words) as raised:
            read_model(folder, str(path))
        assert "\n" not in str(raised.value)

    refused("no such file")
    refused("holds no public key", b"")
    refused("holds no public key", b"ssh-ed25519 AAAA")
    refused("holds a private key", key.read_bytes())
    refused("is damaged", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    openssl("genpkey", "-algorithm", "X25519", "-out", tmp_path / "x")
    openssl("pkey", "-in", tmp_path / "x", "-pubout", "-out", tmp_path / "x.pub")
    refused("of another kind than Ed25519", path=tmp_path / "x.pub")
    (tmp_path / "none").mkdir()
    refused("holds no public key", path=tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key", "nothing"], "no such file"),
        (["--key", "m/manifest.json"], "no private key in PEM"),
        (["--key", "key.pub"], "no private key in PEM"),
        (["--key", "locked"], "has a password"),
        (["--new-key", "key"], "only makes a key"),
    ],
)
def test_what_cannot_sign_is_one_line(
    arguments: list[str], words: str, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", "locked")
    assert trainer(["sign", "m", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (folder / "manifest.sig").exists()


def test_a_key_is_never_overwritten(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = key.read_bytes()
    assert trainer(["sign", "--new-key", str(key)]) == 2
    assert key.read_bytes() == before
    key.unlink()
    assert trainer(["sign", "--new-key", str(key)]) == 2  # its public part is still there
    assert not key.exists()


def test_a_damaged_model_is_not_signed(folder: Path, key: Path) -> None:
    flip(folder / "streams.npz")
    assert trainer(["sign", str(folder), "--key", str(key)]) == 2
    assert not (folder / "manifest.sig").exists()


def test_the_detector_refuses_in_one_line(folder: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "d.csv").write_text("timestamp,c0,c1,c2\n")
    arguments = ["--model", str(folder), "--trusted-keys", f"{key}.pub"]
    for command in (["run"], ["score", str(folder.parent / "d.csv"), "--out", str(folder.parent / "o.csv")]):
        assert detector([*command, *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"detector: {folder} is not signed")
        assert said.count("\n") == 1


def test_without_the_package_the_setting_says_what_to_install(folder: Path, key: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from detector.cli import main\n"
        f"sys.exit(main(['run', '--model', {str(folder)!r}, '--trusted-keys', {f'{key}.pub'!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'residual[signed]'" in done.stderr
    assert done.stderr.count("\n") == 1
