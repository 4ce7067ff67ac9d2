"""Whether a snapshot's bytes are still the ones that were written, and what a damaged file held."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drdecr.errors import SnapshotCorruptError, SnapshotError
from drdecr.index.manifest import Manifest, read_manifest
from drdecr.index.quantizer import QUANTIZER
from drdecr.index.segment import (
    CELLS,
    CODES,
    LISTS,
    OFFSETS,
    PASSAGES,
    POSTINGS,
    SENTENCE_INDEX,
    SENTENCES,
    WINDOW_OFFSETS,
    WINDOWS,
)
from drdecr.index.snapshot import compare_files
from drdecr.index.tuning import read_tuning
from indexer.generations import GENERATIONS, earlier_generations

_HOLDS = {
    QUANTIZER: "centroids and codec",
    CODES: "token vectors",
    CELLS: "the centroids of the tokens",
    OFFSETS: "which tokens are whose",
    WINDOWS: "which windows are whose",
    WINDOW_OFFSETS: "which tokens are whose",
    LISTS: "inverted lists",
    POSTINGS: "inverted lists",
    PASSAGES: "ids, texts and metadata",
    SENTENCES: "sentence vectors",
    SENTENCE_INDEX: "the index of the sentence vectors",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is damaged, a line each, and the newest earlier generation that is whole where the current one is not."""

    damage: list[str]
    whole_generation: int | None


def verify(path: Path) -> Verdict:
    """Read every byte of a snapshot and of the earlier generations that it keeps.

    Raises: SnapshotError without a manifest, or for one that is damaged.
    """
    current = read_manifest(path)
    kept = earlier_generations(path, current)
    wanted = {name: record for manifest in (*kept, current) for name, record in manifest.paths().items()}
    problems = dict(compare_files(path, wanted, {}, hashes=True))
    damage = [f"{path / name} {problem}: {_meaning(current, name)}" for name, problem in problems.items()]
    damage += _damaged_manifests(path)
    try:
        read_tuning(path)
    except SnapshotCorruptError as problem:
        damage.append(str(problem))
    whole = [manifest.generation for manifest in kept if not manifest.paths().keys() & problems.keys()]
    hurt = bool(current.paths().keys() & problems.keys())
    return Verdict(damage, max(whole, default=None) if hurt else None)


def damaged_files(path: Path) -> list[str]:
    """Read every byte of a snapshot and describe each damaged file. Raises: as `verify`."""
    return verify(path).damage


def _meaning(current: Manifest, name: str) -> str:
    """Say what a file holds, and whose it is."""
    owner, file = str(PurePosixPath(name).parent), PurePosixPath(name).name
    if name not in current.paths():
        return "only an earlier generation needs it"
    for segment in current.segments:
        if segment.directory == owner:
            return f"it holds {_HOLDS.get(file, 'a part')} of {segment.passages} passages"
        if segment.tombstones is not None and segment.tombstones.path == name:
            return f"it says which {segment.deleted} passages of {segment.directory} were deleted"
    served = sum(segment.passages for segment in current.segments if segment.quantizer == owner)
    return f"it holds {_HOLDS.get(file, 'a part')} of {served} passages"


def _damaged_manifests(path: Path) -> list[str]:
    damaged = []
    for each in sorted((path / GENERATIONS).glob("*.json")):
        try:
            read_manifest(path, name=f"{GENERATIONS}/{each.name}")
        except SnapshotError as problem:
            damaged.append(f"{problem}: only `drdecr index rollback` needs it")
    return damaged
