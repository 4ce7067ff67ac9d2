"""The tuned setting of a snapshot: a small checksummed file beside the manifest, written by `drdecr index tune`.

It says how wide a search looks that names no knobs, and never what a passage scores, so it is no part of the
snapshot's version. It stays through changes of the snapshot and names the version that it was measured on.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drdecr.errors import SnapshotCorruptError
from drdecr.index.manifest import sync_path

TUNING = "tuning.json"
_FORMAT = 1


class Tuning(BaseModel):
    """Knobs that reached a wanted recall at k, and what they reached on queries that did not choose them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(default=_FORMAT, ge=1)
    version: str
    passages: int = Field(ge=1)
    k: int = Field(ge=1)
    nprobe: int = Field(ge=1)
    candidates: int = Field(ge=1)
    wanted_recall: float
    recall: float
    queries: int = Field(ge=1)
    cpu_ms: float


def read_tuning(directory: Path) -> Tuning | None:
    """Read a snapshot's tuned setting, None where there is none. Raises: SnapshotCorruptError."""
    path = directory / TUNING
    try:
        record = json.loads(path.read_bytes())
        stored = record.pop("checksum")
        tuning = Tuning.model_validate(record)
        if stored == _checksum(record) and tuning.format_version <= _FORMAT:
            return tuning
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise SnapshotCorruptError(
        f"{path} is damaged or newer than this program; remove it with `drdecr index tune {directory} --reset`"
    )


def write_tuning(directory: Path, tuning: Tuning) -> None:
    """Write the tuned setting by atomic rename."""
    record = tuning.model_dump(mode="json")
    partial = directory / f".{TUNING}.{os.getpid()}.partial"
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump({**record, "checksum": _checksum(record)}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(directory / TUNING)
        sync_path(directory)
    finally:
        partial.unlink(missing_ok=True)


def remove_tuning(directory: Path) -> bool:
    """Remove the tuned setting, whatever its state; tell whether there was one."""
    try:
        (directory / TUNING).unlink()
    except FileNotFoundError:
        return False
    sync_path(directory)
    return True


def _checksum(record: dict[str, object]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
