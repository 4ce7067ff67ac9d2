"""Archives of versions: one tar file each, kept apart from the index, so that it outlives it.

    DATA/snapshots/NAME/000007-1f3a92c4.tar
    DATA/snapshots/NAME/000007-1f3a92c4.json     its size and SHA-256

The tar is renamed into place last: until then its hidden name and a lock say that it is being written.
The tar holds a snapshot, its manifest first. The manifest vouches for every other byte, so that an archive that came
from elsewhere, as a file put here with its record or without, is checked all the same.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drdecr.collections.directory import BUILD_FILE, DataDirectory, now, read_record
from drdecr.collections.files import replace_file, try_lock
from drdecr.collections.records import BuildRecord
from drdecr.collections.uploads import built_through
from drdecr.errors import NameInUseError, RecordCorruptError, SnapshotCorruptError, UnknownNameError
from drdecr.index.manifest import MANIFEST, Manifest, read_manifest, record_file, sync_path, sync_tree
from drdecr.index.snapshot import find_damage

_ID = re.compile(r"\d{6,12}-[0-9a-f]{8}")
_RESTORED = "restore-"


class ArchiveRecord(BaseModel):
    """An archive; `version` is what searches of it answer as index_version, `created` is UTC, ISO 8601."""

    model_config = ConfigDict(frozen=True)

    id: str
    number: int = Field(ge=1)
    version: str
    passages: int
    created: str
    size_bytes: int
    sha256: str


def write_archive(directory: DataDirectory, index: str, number: int | None = None) -> ArchiveRecord:
    """Archive a version, the newest unless a number is given. Raises: UnknownNameError, SnapshotError, OSError."""
    target = directory.target(index, number)
    version = directory.version_path(index, target.number)
    folder = _folder(directory, index)
    folder.mkdir(parents=True, exist_ok=True)
    sweep_archives(directory, index)
    archive_id = f"{target.number:06d}-{secrets.token_hex(4)}"
    file = folder / f"{archive_id}.tar"
    partial = folder / f".{archive_id}.tar"
    try:
        manifest = read_manifest(version)
        damage = find_damage(version, manifest, hashes=True)
        # Not where it was deleted meanwhile, which opening its files tells.
        if damage and version.is_dir():
            raise SnapshotCorruptError(f"{damage[0]}; this version cannot be archived, build another")
        with _locked_file(directory, partial) as raw:
            with tarfile.open(fileobj=raw, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name in (MANIFEST, BUILD_FILE, *manifest.paths()):
                    tar.add(version / name, arcname=name, filter=_anonymous)
            raw.flush()
            os.fsync(raw.fileno())
            written = record_file(partial)
            record = ArchiveRecord(
                id=archive_id,
                number=target.number,
                version=manifest.version,
                passages=manifest.passages - manifest.deleted,
                created=now(),
                size_bytes=written.size_bytes,
                sha256=written.sha256,
            )
            replace_file(file.with_suffix(".json"), record.model_dump_json())
            partial.rename(file)
        sync_path(folder)
    except FileNotFoundError:
        raise UnknownNameError(f"Version {target.number} of {index!r} was deleted meanwhile.") from None
    finally:
        partial.unlink(missing_ok=True)
        if not file.exists():
            file.with_suffix(".json").unlink(missing_ok=True)
    return record


def sweep_archives(directory: DataDirectory, index: str) -> None:
    """Delete what killed processes left of archives; one that is being written stays."""
    folder = _folder(directory, index)
    with ExitStack() as held:
        left: list[Path] = []
        with directory.changing():
            for partial in folder.glob(".*.tar"):
                lock = try_lock(partial)
                if lock is not None:
                    held.callback(os.close, lock)
                    # Not what was renamed, and let go, since it was listed.
                    if partial.exists():
                        record = folder / f"{partial.stem[1:]}.json"
                        left += [*folder.glob(f".{record.name}.*"), record, partial]
        for path in left:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def archives(directory: DataDirectory, index: str) -> list[ArchiveRecord]:
    """Return the archives of an index's versions, the oldest version first; also of an index that was dropped.

    Raises: RecordCorruptError.
    """
    found = []
    for path in sorted(_folder(directory, index).glob("*.json")):
        if path.with_suffix(".tar").is_file():
            record = read_record(path, ArchiveRecord)
            if record is not None:
                found.append(record)
    return found


def digest_of(directory: DataDirectory, index: str, archive_id: str) -> str | None:
    """Return the SHA-256 of an archive as its record has it, None where that is missing or damaged."""
    with suppress(RecordCorruptError):
        record = read_record(_folder(directory, index) / f"{archive_id}.json", ArchiveRecord)
        return None if record is None else record.sha256
    return None


def archive_file(directory: DataDirectory, index: str, archive_id: str) -> Path:
    """Return where an archive lies. Raises: UnknownNameError."""
    file = _folder(directory, index) / f"{archive_id}.tar"
    if not _ID.fullmatch(archive_id) or not file.is_file():
        raise UnknownNameError(f"No snapshot {archive_id[:64]!r} of {index!r}.")
    return file


def delete_archive(directory: DataDirectory, index: str, archive_id: str) -> None:
    """Delete an archive. Raises: UnknownNameError."""
    file = archive_file(directory, index, archive_id)
    # A tar without its record is an archive, which no list shows; a record without its tar is none.
    file.unlink(missing_ok=True)
    file.with_suffix(".json").unlink(missing_ok=True)
    sweep_archives(directory, index)


def restore_archive(
    directory: DataDirectory,
    index: str,
    archive_id: str,
    *,
    of: str | None = None,
    accept: Callable[[Manifest], None] = lambda _: None,
) -> int:
    """Make an archive, of this index or another, the newest version of an index; return the version's number.

    Every byte is checked first, and `accept` may refuse the manifest. What is staged stays staged.
    Raises: UnknownNameError, SnapshotCorruptError, NameInUseError while the index is being built.
    """
    file = archive_file(directory, of or index, archive_id)
    directory.index(index)
    with _no_build(directory, index):
        work = directory.path(index) / "work"
        for left in work.glob(f"{_RESTORED}*"):
            shutil.rmtree(left, ignore_errors=True)
        snapshot = work / f"{_RESTORED}{archive_id}"
        try:
            _extract(file, snapshot, accept)
            numbers = directory.versions(index)
            built = BuildRecord(
                job=f"{_RESTORED}{archive_id}",
                mode="full",
                base=numbers[-1] if numbers else None,
                through=built_through(directory, index),
                created=now(),
                encoded=0,
                reused=0,
                deleted=0,
            )
            sync_tree(snapshot)
            replace_file(snapshot / BUILD_FILE, built.model_dump_json())
            with directory.changing():
                number = directory.add_version(index, snapshot)
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
    directory.prune(index)
    return number


def _extract(file: Path, snapshot: Path, accept: Callable[[Manifest], None]) -> None:
    """Write an archive's snapshot, and nothing that its manifest does not name."""
    _make_in_index(snapshot)
    named = {MANIFEST}
    manifest: Manifest | None = None
    try:
        with tarfile.open(file, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() and member.name in named else None
                if content is None:
                    if member.name == BUILD_FILE:
                        continue
                    raise SnapshotCorruptError(f"{file} holds {member.name!r}, which is no part of its snapshot")
                target = snapshot / member.name
                for folder in reversed(target.relative_to(snapshot).parents[:-1]):
                    _make_in_index(snapshot / folder, exist_ok=True)
                with target.open("xb") as out:
                    shutil.copyfileobj(content, out, 2**20)
                if manifest is None:
                    manifest = read_manifest(snapshot)
                    accept(manifest)
                    named = set(manifest.paths())
    except (tarfile.TarError, FileExistsError, EOFError, ValidationError) as problem:
        raise SnapshotCorruptError(f"{file} is damaged ({problem}); restore another") from None
    if manifest is None:
        raise SnapshotCorruptError(f"{file} is damaged (it is empty); restore another")
    if damage := find_damage(snapshot, manifest, hashes=True):
        raise SnapshotCorruptError(f"{file} is damaged: {damage[0]}; restore another")
    for top in ("quantizers", "segments"):
        (snapshot / top).mkdir(exist_ok=True)


def _make_in_index(folder: Path, *, exist_ok: bool = False) -> None:
    """Make a folder, but not those above it: they go with an index that is dropped, and must not come back."""
    try:
        folder.mkdir(exist_ok=exist_ok)
    except FileNotFoundError:
        raise UnknownNameError("The index was dropped meanwhile.") from None


@contextmanager
def _no_build(directory: DataDirectory, index: str) -> Iterator[None]:
    lock = try_lock(directory.path(index) / "build.lock", create=True)
    if lock is None:
        raise NameInUseError(f"A build of {index!r} runs; restore when it has ended, or cancel it.")
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _locked_file(directory: DataDirectory, path: Path) -> Iterator[BinaryIO]:
    """Make a file that is locked while it is written; without its lock it is what a killed process left."""
    with ExitStack() as held:
        # Who sweeps holds this too, and never finds the file between its making and its lock.
        with directory.changing():
            file = held.enter_context(path.open("xb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _folder(directory: DataDirectory, index: str) -> Path:
    return directory.root / "snapshots" / directory.path(index).name
