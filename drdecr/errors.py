"""Every error that DR.DECR raises on purpose.

DrDecrError
├── UsageError            the request itself is wrong: an option, a combination, a name
├── InputError            a file or a text that cannot be used; names the place
├── ModelError            a student, teacher or base model that cannot be loaded or does not fit
│   └── ModelMismatchError    a student that did not build the snapshot it is asked to search
├── SnapshotError         a directory that is not a snapshot, or one that cannot be written
│   ├── SnapshotBusyError     a snapshot that another process is changing
│   └── SnapshotCorruptError  a snapshot whose bytes differ from its manifest
├── ServiceError          a service that answered with a problem, or could not be reached
├── DataDirectoryError    a request that the data directory cannot fulfil as it is now
│   ├── UnknownNameError      no such index, version, alias or job
│   ├── NameTakenError        a name that an index or an alias has already
│   ├── NameInUseError        an index that an alias points at
│   ├── JobConflictError      a job that is not what the request takes it for, or has ended
│   └── PreconditionError     an alias that is not in the state that the request asks for
├── JobCancelledError     a job that is not to be gone on with
├── FetchError            data or weights that could not be downloaded or failed their checksum
└── ResourceError         the machine is in the way: full disk, port in use, missing program or package
    └── RecordCorruptError    a small file of the data directory that is damaged, or not to be read

A message says what is wrong, where, and what to do about it; the command line prints it as one line.
"""

from __future__ import annotations

import errno
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


class ServiceError(DrDecrError):
    """An answer of the service other than success, or a job that did not succeed.

    `status` is None where it is not an answer; `code` is stable, and None where no service answered; `request_id` is
    in the service's log.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, request_id: str | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.request_id = request_id
        super().__init__(message)


class DataDirectoryError(DrDecrError):
    """A request that the data directory cannot fulfil as it is now."""


class UnknownNameError(DataDirectoryError):
    """No such index, version, alias or job."""


class NameTakenError(DataDirectoryError):
    """A name that an index or an alias has already."""


class NameInUseError(DataDirectoryError):
    """An index that an alias points at."""


class PreconditionError(DataDirectoryError):
    """An alias that is not in the state that the request asks for."""


class JobConflictError(DataDirectoryError):
    """A job that is not what the request takes it for, or that has ended."""


class JobCancelledError(DrDecrError):
    """A job that is not to be gone on with, by this worker at least."""


class FetchError(DrDecrError):
    """A download that failed, or a file with another checksum than the pinned one."""


class ResourceError(DrDecrError):
    """Something the machine lacks: disk space, a free port, a program, a package."""


class RecordCorruptError(ResourceError):
    """A small file of the data directory that is not what was written, or that this user may not read."""


def is_full_disk(problem: OSError) -> bool:
    """Tell whether what the system refused was room: on the disk, or within a quota."""
    return problem.errno in (errno.ENOSPC, errno.EDQUOT)
