"""Every error that DR.DECR raises on purpose.

DrDecrError
├── UsageError            the request itself is wrong: an option, a combination, a name
├── InputError            a file or a text that cannot be used; names the place
├── ModelError            a student, teacher or base model that cannot be loaded or does not fit
│   └── ModelMismatchError    a student that did not build the snapshot it is asked to search
├── SnapshotError         a directory that is not a snapshot, or one that cannot be written
│   ├── SnapshotBusyError     a snapshot that another process is changing
│   └── SnapshotCorruptError  a snapshot whose bytes differ from its manifest
├── FetchError            data or weights that could not be downloaded or failed their checksum
└── ResourceError         the machine is in the way: full disk, port in use, missing program or package

A message says what is wrong, where, and what to do about it; the command line prints it as one line.
"""

from __future__ import annotations

from pathlib import Path


class DrDecrError(Exception):
    """Base of all errors below."""


class UsageError(DrDecrError):
    """A request that no data could make right; the command line exits with 2."""


class InputError(DrDecrError):
    """An unusable file or text.

    `path` and `line` (1-based) name the place where they are known; both are part of the message.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.path = path
        self.line = line
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(place + message)


class ModelError(DrDecrError):
    """A model directory that cannot be loaded, or does not fit its use."""


class ModelMismatchError(ModelError):
    """A student and a snapshot that do not belong together."""


class SnapshotError(DrDecrError):
    """A directory that is no snapshot, or a snapshot that cannot be written."""


class SnapshotBusyError(SnapshotError):
    """A snapshot that has another writer at the moment."""


class SnapshotCorruptError(SnapshotError):
    """A snapshot with bytes that its manifest does not vouch for."""


class FetchError(DrDecrError):
    """A download that failed, or a file with another checksum than the pinned one."""


class ResourceError(DrDecrError):
    """Something the machine lacks: disk space, a free port, a program, a package."""
