"""The manifest vouches for every byte, its own included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricated_vectors import encoded, make_snapshot

from drdecr.errors import SnapshotCorruptError, SnapshotError
from drdecr.index.manifest import MANIFEST, Manifest, read_manifest, write_manifest


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    make_snapshot(tmp_path, encoded([2, 3], 8)).close()
    return tmp_path / "snapshot"


def test_every_flipped_bit_of_the_manifest_is_found(snapshot: Path) -> None:
    file = snapshot / MANIFEST
    data = file.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        file.write_bytes(changed)
        with pytest.raises(SnapshotError):
            read_manifest(snapshot)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", '{"checksum": ""}', "\ud800"])
def test_something_else_is_no_manifest(snapshot: Path, text: str) -> None:
    (snapshot / MANIFEST).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(SnapshotCorruptError, match="damaged"):
        read_manifest(snapshot)


def test_newer_format_asks_for_an_upgrade(snapshot: Path) -> None:
    file = snapshot / MANIFEST
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "format_version": 99}))
    with pytest.raises(SnapshotError, match=r"has format 99.*upgrade"):
        read_manifest(snapshot)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd", "a/../../b", MANIFEST])
def test_paths_that_leave_the_snapshot_are_refused(snapshot: Path, name: str) -> None:
    manifest = read_manifest(snapshot)
    segment = manifest.segments[0].model_copy(update={"directory": name})
    write_manifest(snapshot, manifest.model_copy(update={"segments": [segment]}))
    with pytest.raises(SnapshotError, match="leads out of the snapshot"):
        read_manifest(snapshot)


def test_version_follows_the_contents(snapshot: Path) -> None:
    manifest = read_manifest(snapshot)
    assert Manifest.model_validate(manifest.model_dump()).version == manifest.version
    assert manifest.model_copy(update={"segments": []}).version != manifest.version


def test_interrupted_write_keeps_the_old_manifest(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_manifest(snapshot)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(snapshot, before.model_copy(update={"segments": []}))
    assert read_manifest(snapshot) == before
