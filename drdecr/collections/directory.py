"""The data directory: named indexes, the versions of each, and the aliases that point at them.

    DATA/
      names.lock                      held while names or aliases change
      aliases/ALIAS.json              renamed into place at a switch
      indexes/NAME/
        index.json
        versions/000007/              a snapshot, never changed, with its build.json
        uploads/                      what is staged for the next build (drdecr.collections.uploads)
        work/JOB/                     what a job has done so far
      snapshots/NAME/                 archives of versions (drdecr.collections.archives)
      jobs.sqlite                     the jobs, unless a URL says otherwise

Every change is one rename, so that a killed process leaves what was before or what is after.
"""

from __future__ import annotations

import secrets
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from drdecr.collections.files import locked, replace_file
from drdecr.collections.records import NAME, AliasRecord, BuildRecord, IndexRecord, Target
from drdecr.errors import (
    NameInUseError,
    NameTakenError,
    PreconditionError,
    RecordCorruptError,
    ResourceError,
    SnapshotError,
    UnknownNameError,
    UsageError,
)
from drdecr.index.manifest import MANIFEST, sync_path

BUILD_FILE = "build.json"
KEPT_VERSIONS = 2
"""Newest versions of an index that stay; what an alias points at, or pointed at before, stays too."""

_INDEX_FILE = "index.json"
_Record = TypeVar("_Record", bound=BaseModel)
Condition = Callable[[str | None], bool]
"""Told an alias's etag, or None where there is no alias, says whether the change may go on."""


class DataDirectory:
    """A data directory. Any number of processes may use one at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._indexes = root / "indexes"
        self._aliases = root / "aliases"
        try:
            for path in (self._indexes, self._aliases):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ResourceError(f"{root} cannot hold data: {problem}; give another directory by --data") from None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who changes names, aliases and the set of versions."""
        with locked(self.root / "names.lock"):
            yield

    def index_names(self) -> list[str]:
        """Return the names of the indexes; one that is read then may be damaged, or gone."""
        return [path.name for path in sorted(self._indexes.iterdir()) if NAME.fullmatch(path.name)]

    def indexes(self) -> dict[str, IndexRecord]:
        """Return every index that can be read, by its name."""
        found = {}
        for name in self.index_names():
            with suppress(UnknownNameError, RecordCorruptError):
                found[name] = self.index(name)
        return found

    def index(self, name: str) -> IndexRecord:
        """Read an index. Raises: UnknownNameError, RecordCorruptError."""
        record = read_record(self.path(name) / _INDEX_FILE, IndexRecord, "drop the index")
        if record is None:
            raise UnknownNameError(f"No index {name!r} in the data directory.")
        return record

    def path(self, name: str) -> Path:
        """Return an index's directory. Raises: UsageError for a name that is none."""
        return self._indexes / _checked(name)

    def create_index(
        self,
        name: str,
        *,
        bits: int = 16,
        dims: int | None = None,
        pool: float = 1.0,
        reserved: Collection[str] = (),
    ) -> IndexRecord:
        """Make an index without versions. Raises: NameTakenError, also for `reserved` names; UsageError."""
        target = self.path(name)
        record = IndexRecord(id=uuid.uuid4().hex, created=now(), bits=bits, dims=dims, pool=pool)
        with self.changing():
            self._require_free(name, reserved)
            partial = target.with_name(f".{name}.{record.id}")
            for part in ("versions", "uploads", "work"):
                (partial / part).mkdir(parents=True)
            # Without defaults: an older program reads every index that it can build.
            replace_file(partial / _INDEX_FILE, record.model_dump_json(exclude_defaults=True))
            partial.rename(target)
            sync_path(self._indexes)
        return record

    def delete_index(self, name: str) -> None:
        """Drop an index and its versions, also a damaged one.

        Raises: UnknownNameError; NameInUseError where an alias points at it, or cannot be read and may do so.
        """
        with self.changing():
            with suppress(RecordCorruptError):
                self.index(name)
            users = []
            for alias, record in self.all_aliases().items():
                if isinstance(record, RecordCorruptError):
                    raise NameInUseError(f"The alias {alias!r} may point at {name!r}: {record}.")
                if record.target.index == name:
                    users.append(alias)
            if users:
                raise NameInUseError(
                    f"The aliases {', '.join(users)} point at {name!r}; switch or delete them first."
                )
            self.path(name).rename(self._indexes / f".{name}.{uuid.uuid4().hex}")
            sync_path(self._indexes)
            # With what a killed process left of others: who holds the lock has nothing hidden of its own but this.
            gone = list(self._indexes.glob(".*"))
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)

    def all_aliases(self) -> dict[str, AliasRecord | RecordCorruptError]:
        """Return every alias by its name; what is wrong in the place of one that cannot be read."""
        found: dict[str, AliasRecord | RecordCorruptError] = {}
        for path in sorted(self._aliases.glob("*.json")):
            if NAME.fullmatch(path.stem):
                with suppress(UnknownNameError):
                    try:
                        found[path.stem] = self.alias(path.stem)
                    except RecordCorruptError as damage:
                        found[path.stem] = damage
        return found

    def aliases(self) -> dict[str, AliasRecord]:
        """Return every alias that can be read, by its name."""
        return {alias: each for alias, each in self.all_aliases().items() if isinstance(each, AliasRecord)}

    def alias(self, alias: str) -> AliasRecord:
        """Read an alias. Raises: UnknownNameError, RecordCorruptError."""
        record = self._read_alias(alias)
        if record is None:
            raise UnknownNameError(f"No alias {alias!r}.")
        return record

    def target(self, index: str, number: int | None = None) -> Target:
        """Name a version of an index, the newest unless a number is given. Raises: UnknownNameError."""
        record = self.index(index)
        numbers = self.versions(index)
        if number is None and not numbers:
            raise UnknownNameError(f"Index {index!r} has no version yet; start a build.")
        chosen = numbers[-1] if number is None else number
        if chosen not in numbers:
            raise UnknownNameError(
                f"Index {index!r} has no version {chosen}; there are {', '.join(map(str, numbers)) or 'none'}."
            )
        return Target(index=index, id=record.id, number=chosen)

    def switch_alias(
        self, alias: str, target: Target, *, allowed: Condition = lambda _: True, reserved: Collection[str] = ()
    ) -> AliasRecord:
        """Point an alias at a version; what it pointed at before is remembered.

        Raises: PreconditionError where `allowed` refuses the etag that is there now, UnknownNameError for a version
        that is gone, NameTakenError for the name of an index, RecordCorruptError for a damaged alias.
        """
        file = self._alias_file(alias)
        with self.changing():
            current = self._read_alias(alias)
            _require(allowed, current)
            if self.target(target.index, target.number) != target:
                raise UnknownNameError(f"Index {target.index!r} was dropped and made again meanwhile.")
            if current is None:
                self._require_free(alias, reserved)
            elif current.target == target:
                return current
            record = AliasRecord(
                target=target,
                previous=None if current is None else current.target,
                changed=now(),
                etag=secrets.token_hex(8),
            )
            replace_file(file, record.model_dump_json())
        return record

    def delete_alias(self, alias: str, *, allowed: Condition = lambda _: True) -> None:
        """Drop an alias, also a damaged one, which has no etag. Raises: UnknownNameError, PreconditionError."""
        with self.changing():
            try:
                current = self.alias(alias)
            except RecordCorruptError:
                current = None
            _require(allowed, current)
            self._alias_file(alias).unlink()
            sync_path(self._aliases)

    def versions(self, index: str) -> list[int]:
        """Return the numbers of an index's versions, ascending."""
        found = []
        with suppress(FileNotFoundError):
            for path in (self.path(index) / "versions").iterdir():
                if path.name.isdecimal() and (path / MANIFEST).is_file():
                    found.append(int(path.name))
        return sorted(found)

    def version_path(self, index: str, number: int) -> Path:
        """Return where a version's snapshot lies."""
        return self.path(index) / "versions" / f"{number:06d}"

    def build_record(self, index: str, number: int) -> BuildRecord | None:
        """Return how a version came to be; None for one that is gone. Raises: RecordCorruptError."""
        return read_record(self.version_path(index, number) / BUILD_FILE, BuildRecord)

    def version_of(self, index: str, job: str) -> int | None:
        """Return the number of the version that a job published, or None where there is none."""
        for number in reversed(self.versions(index)):
            record = self.build_record(index, number)
            if record is not None and record.job == job:
                return number
        return None

    def add_version(self, index: str, snapshot: Path) -> int:
        """Put a finished snapshot, with its build.json, in place as the newest version; hold `changing` meanwhile.

        Raises: SnapshotError where the version that it was built on is not the newest any more.
        """
        built = BuildRecord.model_validate_json((snapshot / BUILD_FILE).read_bytes())
        numbers = self.versions(index)
        if (numbers[-1] if numbers else None) != built.base:
            raise SnapshotError(f"{index!r} got another version while this one was built; start the build again")
        number = (built.base or 0) + 1
        target = self.version_path(index, number)
        snapshot.rename(target)
        sync_path(target.parent)
        return number

    def names(self) -> dict[str, Target | RecordCorruptError | None]:
        """Return what each name is to be searched by: an index its newest version (None: it has none), an alias its
        target; what is wrong in the place of one that cannot be read.
        """
        found: dict[str, Target | RecordCorruptError | None] = {}
        for name in self.index_names():
            with suppress(UnknownNameError):
                try:
                    record = self.index(name)
                except RecordCorruptError as damage:
                    found[name] = damage
                    continue
                numbers = self.versions(name)
                found[name] = Target(index=name, id=record.id, number=numbers[-1]) if numbers else None
        for alias, each in self.all_aliases().items():
            found[alias] = each.target if isinstance(each, AliasRecord) else each
        return found

    def prune(self, index: str) -> list[int]:
        """Delete the versions that nobody needs any more; return their numbers. Who has one open keeps it.

        None goes while an alias cannot be read, which may need it.
        """
        with self.changing():
            records = self.all_aliases().values()
            needed = {
                each.number
                for record in records
                if isinstance(record, AliasRecord)
                for each in (record.target, record.previous)
                if each is not None and each.index == index
            }
            unneeded = [number for number in self.versions(index)[:-KEPT_VERSIONS] if number not in needed]
            if any(isinstance(record, RecordCorruptError) for record in records):
                unneeded = []
            gone = list((self.path(index) / "versions").glob(".*"))
            for number in unneeded:
                path = self.version_path(index, number)
                gone.append(path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex}")))
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
        return unneeded

    def _alias_file(self, alias: str) -> Path:
        return self._aliases / f"{_checked(alias)}.json"

    def _read_alias(self, alias: str) -> AliasRecord | None:
        return read_record(self._alias_file(alias), AliasRecord, "delete the alias")

    def _require_free(self, name: str, reserved: Collection[str]) -> None:
        if name in reserved or (self._alias_file(name)).exists() or self.path(name).exists():
            raise NameTakenError(f"The name {name!r} is taken by an index or an alias; choose another.")


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name[:70]!r} is no name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit.")
    return name


def _require(allowed: Condition, current: AliasRecord | None) -> None:
    etag = None if current is None else current.etag
    if not allowed(etag):
        raise PreconditionError("The alias was changed meanwhile; read it again and decide anew.")


def read_record(path: Path, kind: type[_Record], remedy: str = "") -> _Record | None:
    """Read a small file; None where it is missing.

    Raises: RecordCorruptError where it is damaged, or may not be read; `remedy` is what else than a backup helps.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as problem:
        message = f"{path} is damaged: {problem.errors()[0]['msg']}; restore it from a backup"
        raise RecordCorruptError(f"{message}, or {remedy}" if remedy else message) from None
    except PermissionError as problem:
        raise RecordCorruptError(f"{path} cannot be read: {problem.strerror}; let the service read it") from None
