from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from changing import ENCODER, exact_hits
from data_lab import publish

from drdecr.collections import archives as archives_module
from drdecr.collections.archives import (
    ArchiveRecord,
    archive_file,
    archives,
    delete_archive,
    digest_of,
    restore_archive,
    sweep_archives,
    write_archive,
)
from drdecr.collections.directory import DataDirectory
from drdecr.collections.files import try_lock
from drdecr.errors import (
    ModelMismatchError,
    NameInUseError,
    ResourceError,
    SnapshotCorruptError,
    UnknownNameError,
)

QUERIES = ["a kettle", "part 1"]


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    for number in (1, 2):
        publish(directory, "docs", ENCODER, {"x": f"part {number}", "y": "a kettle"}, tmp_path / "scratch")
    return directory


def rewritten(file: Path, change) -> None:
    """Write a tar anew with what `change` makes of each member and its bytes (None: left out)."""
    with tarfile.open(file) as old:
        members = [(member, old.extractfile(member).read()) for member in old]
    with tarfile.open(file, "w") as new:
        for member, content in members:
            changed = change(member, content)
            if changed is not None:
                changed[0].size = len(changed[1])
                new.addfile(changed[0], io.BytesIO(changed[1]))


def test_archive_outlives_its_index(directory: DataDirectory):
    before = exact_hits(directory.version_path("docs", 1), QUERIES)
    record = write_archive(directory, "docs", 1)
    file = archive_file(directory, "docs", record.id)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record.sha256
    assert (record.size_bytes, record.passages) == (file.stat().st_size, 2)
    directory.delete_index("docs")
    assert archives(directory, "docs") == [record]
    directory.create_index("again")
    assert restore_archive(directory, "again", record.id, of="docs") == 1
    assert exact_hits(directory.version_path("again", 1), QUERIES) == before


def test_restored_version_is_the_newest_and_the_others_stay(directory: DataDirectory):
    first = exact_hits(directory.version_path("docs", 1), QUERIES)
    record = write_archive(directory, "docs", 1)
    assert write_archive(directory, "docs").number == 2
    assert restore_archive(directory, "docs", record.id) == 3
    assert exact_hits(directory.version_path("docs", 3), QUERIES) == first
    assert list((directory.path("docs") / "work").iterdir()) == []
    # Twice is once more.
    assert restore_archive(directory, "docs", record.id) == 4


@pytest.mark.parametrize("what", ["byte", "cut", "missing", "extra", "link", "outside", "empty", "twice"])
def test_archive_that_is_not_whole_restores_nothing(directory: DataDirectory, tmp_path: Path, what: str):
    record = write_archive(directory, "docs", 1)
    file = archive_file(directory, "docs", record.id)
    if what == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif what == "empty":
        file.write_bytes(b"")
    else:
        seen: list[str] = []

        def change(member: tarfile.TarInfo, content: bytes):
            seen.append(member.name)
            if not member.name.endswith("passages.sqlite"):
                return member, content
            if what == "byte":
                return member, content[:-1] + bytes([content[-1] ^ 1])
            if what == "missing":
                return None
            if what == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                return member, b""
            if what == "twice":
                member.name = next(name for name in reversed(seen[:-1]) if name.startswith("quantizers"))
                return member, content
            member.name = "../../evil" if what == "outside" else "extra"
            return member, content

        rewritten(file, change)
        assert any(name.endswith("passages.sqlite") for name in seen), seen
    with pytest.raises(SnapshotCorruptError):
        restore_archive(directory, "docs", record.id)
    assert directory.versions("docs") == [1, 2]
    assert list((directory.path("docs") / "work").iterdir()) == []
    assert not list(directory.root.rglob("evil"))


def test_refused_student_restores_nothing(directory: DataDirectory):
    record = write_archive(directory, "docs")

    def refuse(_: object) -> None:
        raise ModelMismatchError("another student")

    with pytest.raises(ModelMismatchError):
        restore_archive(directory, "docs", record.id, accept=refuse)
    assert directory.versions("docs") == [1, 2]


def test_index_in_the_making_is_not_restored_over(directory: DataDirectory):
    record = write_archive(directory, "docs")
    lock = try_lock(directory.path("docs") / "build.lock", create=True)
    assert lock is not None
    with pytest.raises(NameInUseError, match="build"):
        restore_archive(directory, "docs", record.id)
    os.close(lock)
    assert restore_archive(directory, "docs", record.id) == 3


@pytest.mark.parametrize("wrong", ["", "..", "000001-zzzzzzzz", "../docs/000001-00000000", "000001-00000000"])
def test_unknown_archive(directory: DataDirectory, wrong: str):
    for attempt in (archive_file, delete_archive, restore_archive):
        with pytest.raises(UnknownNameError):
            attempt(directory, "docs", wrong)


def test_deleted_archive_is_gone(directory: DataDirectory):
    record: ArchiveRecord = write_archive(directory, "docs")
    delete_archive(directory, "docs", record.id)
    assert archives(directory, "docs") == []
    assert list((directory.root / "snapshots" / "docs").iterdir()) == []


def test_archive_that_goes_while_it_is_listed_is_left_out(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    kept, gone = write_archive(directory, "docs", 1), write_archive(directory, "docs", 2)
    is_file = Path.is_file

    def going(path: Path) -> bool:
        found = is_file(path)
        if path.stem == gone.id:
            path.with_suffix(".json").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", going)
    assert archives(directory, "docs") == [kept]


def test_damaged_record_of_an_archive_is_named(directory: DataDirectory):
    record = write_archive(directory, "docs")
    (directory.root / "snapshots" / "docs" / f"{record.id}.json").write_text("{")
    with pytest.raises(ResourceError, match=f"{record.id}.json is damaged"):
        archives(directory, "docs")


def test_archive_beside_one_with_a_damaged_record_has_its_digest(directory: DataDirectory):
    damaged, whole = write_archive(directory, "docs"), write_archive(directory, "docs")
    (directory.root / "snapshots" / "docs" / f"{damaged.id}.json").write_text("{")
    assert digest_of(directory, "docs", whole.id) == whole.sha256
    assert digest_of(directory, "docs", damaged.id) is None


@pytest.mark.parametrize("missing", [False, True])
def test_damaged_version_is_not_archived(directory: DataDirectory, missing: bool):
    version = directory.target("docs", None)
    path = directory.version_path("docs", version.number)
    file = max((one for one in path.rglob("*.npy")), key=lambda one: one.stat().st_size)
    content = file.read_bytes()
    file.unlink()
    if not missing:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SnapshotCorruptError, match=file.name):
        write_archive(directory, "docs")
    assert archives(directory, "docs") == []


def test_index_dropped_while_it_is_restored_leaves_its_name_free(directory: DataDirectory):
    record = write_archive(directory, "docs")

    def dropped(manifest: object) -> None:
        directory.delete_index("docs")

    with pytest.raises(UnknownNameError, match="dropped meanwhile"):
        restore_archive(directory, "docs", record.id, accept=dropped)
    assert directory.create_index("docs").bits == 16


def folder_of(directory: DataDirectory) -> Path:
    return directory.root / "snapshots" / "docs"


def killed_archive(directory: DataDirectory, where: str) -> None:
    """Archive in a process that kills itself instead of calling this function of the module."""
    program = (
        "import os, pathlib, signal\n"
        "from drdecr.collections import archives\n"
        "from drdecr.collections.directory import DataDirectory\n"
        f"archives.{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"archives.write_archive(DataDirectory(pathlib.Path({str(directory.root)!r})), 'docs')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("where", "left"), [("record_file", 1), ("replace_file", 1), ("Path.rename", 2)])
def test_what_a_killed_archive_left_goes_with_the_next(directory: DataDirectory, where: str, left: int):
    killed_archive(directory, where)
    assert [path.name[0] for path in folder_of(directory).glob("*.tar")] == ["."]
    assert len(list(folder_of(directory).iterdir())) == left
    assert archives(directory, "docs") == []
    record = write_archive(directory, "docs")
    assert archives(directory, "docs") == [record]
    assert sorted(path.name for path in folder_of(directory).iterdir()) == [f"{record.id}.json", f"{record.id}.tar"]


def test_archive_that_is_killed_at_its_end_is_listed(directory: DataDirectory):
    killed_archive(directory, "sync_path")
    (record,) = archives(directory, "docs")
    assert hashlib.sha256(archive_file(directory, "docs", record.id).read_bytes()).hexdigest() == record.sha256
    sweep_archives(directory, "docs")
    assert archives(directory, "docs") == [record]


def test_archive_that_is_being_written_is_not_swept(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    record_file, others = archives_module.record_file, []

    def meanwhile(path: Path):
        if not others:
            others.append(None)
            others.append(write_archive(directory, "docs", 1))
            delete_archive(directory, "docs", others[1].id)
        return record_file(path)

    monkeypatch.setattr(archives_module, "record_file", meanwhile)
    record = write_archive(directory, "docs", 2)
    assert others[1].number == 1
    assert archives(directory, "docs") == [record]
    assert restore_archive(directory, "docs", record.id) == 3


def test_archive_that_fails_leaves_nothing(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("record_file", "replace_file", "Path.rename"):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(f"drdecr.collections.archives.{step}", full)
            write_archive(directory, "docs")
        assert list(folder_of(directory).iterdir()) == []


def test_archive_that_was_copied_without_its_record_stays(directory: DataDirectory):
    record = write_archive(directory, "docs", 1)
    (folder_of(directory) / f"{record.id}.json").unlink()
    write_archive(directory, "docs", 2)
    assert restore_archive(directory, "docs", record.id) == 3
