"""Staged uploads: what the next build of an index adds, replaces and deletes.

An upload is a file of one operation a line, written beside the others under a hidden name and linked to the next
number when it is complete: half an upload is none. Numbers only grow; a version says up to which one it holds them.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from drdecr.collections.directory import DataDirectory
from drdecr.collections.files import locked, try_lock
from drdecr.corpus import MAX_LINE_BYTES, Passage, id_from_json, passage_from_json
from drdecr.errors import InputError, ResourceError, UnknownNameError, is_full_disk
from drdecr.index.manifest import sync_path

SHOWN_ERRORS = 100


@dataclass(frozen=True, slots=True)
class Put:
    """A passage to add, or to put in the place of the one with its id."""

    passage: Passage


@dataclass(frozen=True, slots=True)
class Delete:
    """A passage to delete, if it is there."""

    id: str


Operation = Put | Delete
Parse = Callable[[str], Operation]


def parse_put(line: str) -> Operation:
    """Read a passage. Raises: InputError."""
    return Put(passage_from_json(line))


def parse_delete(line: str) -> Operation:
    """Read `{"id": "…"}`. Raises: InputError."""
    return Delete(id_from_json(line))


@dataclass(frozen=True, slots=True)
class LineError:
    """A line, counted from 1, that was not staged."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Staged:
    """A finished upload: its number (None where no line was good), good lines, bad lines and the first of these."""

    number: int | None
    staged: int
    rejected: int
    errors: list[LineError]


@dataclass(slots=True)
class UploadWriter:
    """Takes an upload piece by piece, in memory for one line at most; `close` drops what was not finished.

    Raises: UnknownNameError for an index that is not there, or goes; ResourceError for a full disk.
    """

    directory: DataDirectory
    index: str
    parse: Parse
    _partial: Path = field(init=False)
    _descriptor: int = field(init=False)
    _rest: bytearray = field(init=False, default_factory=bytearray)
    _overlong: bool = field(init=False, default=False)
    _line: int = field(init=False, default=0)
    _staged: int = field(init=False, default=0)
    _rejected: int = field(init=False, default=0)
    _errors: list[LineError] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.directory.index(self.index)
        self._partial = self._folder / f".{uuid.uuid4().hex}"
        try:
            # A file without its own lock is what a killed service left, to who holds that of the folder.
            with _choosing(self.directory, self.index):
                self._descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            raise self._gone() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, chunk: bytes) -> None:
        """Stage the lines that the chunk completes."""
        written: list[str] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._take(chunk[start:end])
            self._end_line(written)
            start = end + 1
        self._take(chunk[start:])
        self._write(written)

    def finish(self) -> Staged:
        """Stage the last line and commit the upload, durably; what no line of was good is not kept."""
        written: list[str] = []
        self._end_line(written)
        self._write(written)
        number = self._commit() if self._staged else None
        return Staged(number, self._staged, self._rejected, self._errors)

    def close(self) -> None:
        """Let go of the file. What `finish` has not committed is gone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._partial.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return self.directory.path(self.index) / "uploads"

    def _take(self, piece: bytes) -> None:
        if self._overlong or len(self._rest) + len(piece) > MAX_LINE_BYTES:
            self._overlong = True
            self._rest.clear()
        else:
            self._rest += piece

    def _end_line(self, written: list[str]) -> None:
        self._line += 1
        raw, overlong = bytes(self._rest), self._overlong
        self._rest.clear()
        self._overlong = False
        try:
            if overlong:
                raise InputError(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            line = _decode(raw)
            if line.strip():
                written.append(_render(self.parse(line)))
                self._staged += 1
        except InputError as problem:
            self._rejected += 1
            if len(self._errors) < SHOWN_ERRORS:
                self._errors.append(LineError(self._line, str(problem)))

    def _write(self, lines: list[str]) -> None:
        view = memoryview("".join(lines).encode("utf-8"))
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as problem:
            raise self._trouble(problem) from None

    def _commit(self) -> int:
        try:
            os.fsync(self._descriptor)
            with _choosing(self.directory, self.index):
                # The files first: a version may come meanwhile, and its uploads go only after that.
                number = max([*_numbers(self._folder), built_through(self.directory, self.index)]) + 1
                self._partial.rename(_file(self._folder, number))
                sync_path(self._folder)
        except FileNotFoundError:
            raise self._gone() from None
        except OSError as problem:
            raise self._trouble(problem) from None
        return number

    def _gone(self) -> UnknownNameError:
        return UnknownNameError(f"Index {self.index!r} was dropped meanwhile.")

    def _trouble(self, problem: OSError) -> ResourceError:
        if is_full_disk(problem):
            return ResourceError(f"The disk of {self.directory.root} is full; nothing of the upload was staged.")
        return ResourceError(f"The upload cannot be written: {problem}.")


def built_through(directory: DataDirectory, index: str) -> int:
    """Return the number of the last upload that an index's newest version holds."""
    numbers = directory.versions(index)
    record = directory.build_record(index, numbers[-1]) if numbers else None
    return 0 if record is None else record.through


def staged_uploads(directory: DataDirectory, index: str) -> list[int]:
    """Return the numbers of the uploads that no version holds yet, ascending."""
    through = built_through(directory, index)
    return [number for number in _numbers(directory.path(index) / "uploads") if number > through]


def read_upload(directory: DataDirectory, index: str, number: int) -> Iterator[Operation]:
    """Yield the operations of an upload. Raises: ResourceError for one that was damaged since it was staged."""
    path = _file(directory.path(index) / "uploads", number)
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield parse_delete(line) if line.startswith('{"id"') else parse_put(line)
            except InputError as problem:
                raise ResourceError(f"{path} is damaged: {problem}; upload it again") from None


def drop_uploads(directory: DataDirectory, index: str) -> None:
    """Delete what the newest version holds, and what killed services left of uploads."""
    folder = directory.path(index) / "uploads"
    with suppress(FileNotFoundError), _choosing(directory, index):
        through = built_through(directory, index)
        for number in _numbers(folder):
            if number <= through:
                _file(folder, number).unlink(missing_ok=True)
        for partial in folder.glob(".*"):
            descriptor = try_lock(partial)
            if descriptor is not None:
                partial.unlink(missing_ok=True)
                os.close(descriptor)


def _choosing(directory: DataDirectory, index: str) -> AbstractContextManager[None]:
    """Be the only one who begins, numbers or drops uploads of an index."""
    return locked(directory.path(index) / "uploads.lock")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdecimal())


def _decode(raw: bytes) -> str:
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InputError(f"not UTF-8 (byte {problem.start + 1} of the line)") from None


def _render(operation: Operation) -> str:
    if isinstance(operation, Delete):
        return json.dumps({"id": operation.id}, ensure_ascii=False) + "\n"
    passage = operation.passage
    record = {"text": passage.text, "id": passage.id, "title": passage.title, "metadata": passage.metadata}
    return json.dumps(record, ensure_ascii=False) + "\n"
