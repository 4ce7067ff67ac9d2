"""Facts about a snapshot, and whether its bytes are still the ones that were written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drdecr.errors import SnapshotError
from drdecr.index.manifest import Manifest, read_manifest
from drdecr.index.quantizer import QUANTIZER
from drdecr.index.segment import CELLS, CODES, LISTS, OFFSETS, PASSAGES, POSTINGS, SENTENCE_INDEX, SENTENCES
from drdecr.index.snapshot import compare_files
from indexer.drift import advise, drift_of
from indexer.generations import GENERATIONS, earlier_generations

_HOLDS = {
    QUANTIZER: "centroids and codec",
    CODES: "token vectors",
    CELLS: "the centroids of the tokens",
    OFFSETS: "which tokens are whose",
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
    whole = [manifest.generation for manifest in kept if not manifest.paths().keys() & problems.keys()]
    hurt = bool(current.paths().keys() & problems.keys())
    return Verdict(damage, max(whole, default=None) if hurt else None)


def damaged_files(path: Path) -> list[str]:
    """Read every byte of a snapshot and describe each damaged file. Raises: as `verify`."""
    return verify(path).damage


def describe(path: Path) -> dict[str, str | int | float]:
    """Collect what `drdecr index info` prints, from the manifests alone."""
    manifest = read_manifest(path)
    earlier = earlier_generations(path, manifest)
    student = manifest.student
    files = manifest.paths()
    older = {name: record for each in earlier for name, record in each.paths().items() if name not in files}
    # Everything but the texts: what one more token vector costs.
    index_bytes = sum(record.size_bytes for name, record in files.items() if not name.endswith(".sqlite"))
    codecs = sorted({f"{each.codec.name} ({each.codec.bits} bits)" for each in manifest.quantizers})
    drift = drift_of(manifest)
    return {
        "snapshot": str(path),
        "version": manifest.version,
        "format_version": manifest.format_version,
        "written_by": manifest.written_by,
        "generation": manifest.generation,
        "earlier_generations": ", ".join(str(each.generation) for each in reversed(earlier)) or "none",
        "passages": manifest.passages - manifest.deleted,
        "deleted_passages": manifest.deleted,
        "token_vectors": sum(segment.live_tokens for segment in manifest.segments),
        "segments": len(manifest.segments),
        "quantizers": len(manifest.quantizers),
        "lists": sum(quantizer.lists for quantizer in manifest.quantizers),
        "codec": ", ".join(codecs),
        "size_bytes": manifest.size_bytes,
        "earlier_bytes": sum(record.size_bytes for record in older.values()),
        "bytes_per_token_vector": round(index_bytes / max(manifest.tokens, 1), 1),
        "bytes_per_passage": round(manifest.size_bytes / max(manifest.passages, 1), 1),
        "drift": "unknown" if drift.drift is None else round(drift.drift, 3),
        "growth": round(drift.growth, 2),
        "advice": advise(manifest) or "none",
        "student": student.name,
        "fingerprint": student.fingerprint or "unknown",
        "dim": student.dim,
        "sentence_dim": student.sentence_dim,
        "sentence_weight": student.sentence_weight,
    }


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
