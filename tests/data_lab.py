"""What tests of the data directory share: versions made without a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from changing import passage_file

from drdecr.collections.directory import BUILD_FILE, DataDirectory, now
from drdecr.collections.files import replace_file
from drdecr.collections.records import BuildRecord
from drdecr.encoder.types import Encoder
from indexer.build import build


def publish(
    directory: DataDirectory,
    index: str,
    encoder: Encoder,
    texts: Mapping[str, str],
    scratch: Path,
    *,
    through: int = 0,
) -> int:
    """Put a version with these passages in place, as a job does; return its number."""
    number = max(directory.versions(index), default=0) + 1
    staged = scratch / f"{index}-{number}"
    scratch.mkdir(exist_ok=True)
    build(encoder, passage_file(scratch / f"{index}-{number}.jsonl", texts), staged)
    record = BuildRecord(
        job=f"job-{number}",
        mode="full",
        base=None,
        through=through,
        created=now(),
        encoded=len(texts),
        reused=0,
        deleted=0,
    )
    replace_file(staged / BUILD_FILE, record.model_dump_json())
    staged.rename(directory.version_path(index, number))
    return number
