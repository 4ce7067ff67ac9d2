"""The file of key hashes: who may read it after a command changed it, and when a service reads it again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from drdecr.errors import UsageError
from service.key_file import KeyFile
from service.key_ring import KeyRing
from service.keys import new_key

KEY, HASH = new_key("admin")
OTHER_KEY, OTHER_HASH = new_key()
NOBODY = 65_534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    file = KeyFile(tmp_path / "keys")
    file.add(HASH)
    return file


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Return the paths that this user may not read, as where root wrote them."""
    denied: set[Path] = set()
    read_text = Path.read_text

    def read(path: Path, *args, **kwargs) -> str:
        if path in denied:
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    return denied


def knows(ring: KeyRing, key: str) -> bool:
    return asyncio.run(ring.identify(key)) is not None


def test_a_key_revoked_while_the_file_could_not_be_read_is_revoked_once_it_can(file, unreadable, monkeypatch, logged):
    monkeypatch.setattr("service.key_ring._LOOK_S", 0.0)
    file.add(OTHER_HASH)
    ring = KeyRing((), KeyFile(file.path))
    assert knows(ring, KEY)
    file.remove(HASH.id)
    unreadable.add(file.path)
    assert [knows(ring, KEY) for _ in range(3)] == [True] * 3
    assert [entry["event"] for entry in logged] == ["key file not read"]
    unreadable.clear()
    assert not knows(ring, KEY)
    assert knows(ring, OTHER_KEY)


def test_a_file_that_stays_unreadable_is_logged_again_only_when_it_changes(file, unreadable, monkeypatch, logged):
    monkeypatch.setattr("service.key_ring._LOOK_S", 0.0)
    ring = KeyRing((), KeyFile(file.path))
    for known in (OTHER_HASH, new_key()[1]):
        unreadable.clear()
        file.add(known)
        unreadable.add(file.path)
        assert [knows(ring, KEY) for _ in range(3)] == [True] * 3
    assert [entry["event"] for entry in logged] == ["key file not read"] * 2


def test_a_file_that_was_not_understood_is_read_again(file):
    whole = file.path.read_text()
    file.path.write_text("half a li")
    with pytest.raises(UsageError):
        file.read()
    assert file.changed
    file.path.write_text(whole)
    assert file.read() == {HASH.id: HASH}
    assert not file.changed


def test_a_new_mode_is_a_change(file):
    file.read()
    file.path.chmod(0o640)
    assert file.changed


def test_a_change_keeps_the_mode_and_a_new_file_is_its_owners_only(file):
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.chmod(0o644)
    file.add(OTHER_HASH)
    assert file.path.stat().st_mode & 0o777 == 0o644
    file.remove(HASH.id)
    assert file.path.stat().st_mode & 0o777 == 0o644


@as_root
def test_a_change_by_root_keeps_owner_and_group(file):
    os.chown(file.path, NOBODY, NOBODY)
    file.path.chmod(0o640)
    file.remove(HASH.id)
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o640)


@as_root
@pytest.mark.parametrize(("owner", "group"), [(NOBODY, 0), (0, NOBODY)])
def test_who_would_cut_the_service_off_is_refused_and_changes_nothing(file, monkeypatch, owner, group):
    os.chown(file.path, owner, group)
    file.path.chmod(0o640)

    def refused(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(UsageError, match="could not read it any more; run this as root"):
        file.remove(HASH.id)
    assert list(file.read()) == [HASH.id]
    assert [path.name for path in file.path.parent.iterdir()] == ["keys"]
    # Everybody reads it: nobody is cut off.
    file.path.chmod(0o664)
    file.remove(HASH.id)
    assert file.path.stat().st_mode & 0o777 == (0o664 if group == 0 else 0o644)
