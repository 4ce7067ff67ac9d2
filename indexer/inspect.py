"""Facts about a snapshot, and whether its bytes are still the ones that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drdecr.errors import SnapshotCorruptError
from drdecr.index.backend import SearchParams
from drdecr.index.manifest import Manifest, read_manifest
from drdecr.index.snapshot import Snapshot, find_damage
from drdecr.index.tuning import read_tuning
from indexer.recall import RecallMeter, passages_as_queries

_RECALL_K = 10


def damaged_files(path: Path) -> list[str]:
    """Read every byte of a snapshot and describe each damaged file. Raises: SnapshotError without a manifest."""
    damage = find_damage(path, read_manifest(path), hashes=True)
    try:
        read_tuning(path)
    except SnapshotCorruptError as problem:
        damage.append(str(problem))
    return damage


def describe(path: Path) -> dict[str, Any]:
    """Collect what `drdecr index info` prints, from the manifest and the tuned setting alone."""
    manifest = read_manifest(path)
    student = manifest.student
    files = [item for segment in manifest.segments for item in segment.files.items()]
    # Everything but the texts: what one more token vector costs.
    index_bytes = sum(record.size_bytes for name, record in files if not name.endswith(".sqlite"))
    codecs = sorted({f"{segment.codec.name} ({segment.codec.bits} bits)" for segment in manifest.segments})
    return {
        "snapshot": str(path),
        "version": manifest.version,
        "format_version": manifest.format_version,
        "written_by": manifest.written_by,
        "passages": manifest.passages,
        "token_vectors": manifest.tokens,
        "segments": len(manifest.segments),
        "lists": sum(segment.lists for segment in manifest.segments),
        "codec": ", ".join(codecs),
        "size_bytes": manifest.size_bytes,
        "bytes_per_token_vector": round(index_bytes / max(manifest.tokens, 1), 1),
        "bytes_per_passage": round(manifest.size_bytes / max(manifest.passages, 1), 1),
        "student": student.name,
        "fingerprint": student.fingerprint or "unknown",
        "dim": student.dim,
        "sentence_dim": student.sentence_dim,
        "sentence_weight": student.sentence_weight,
        "tuned": _tuned(path, manifest),
    }


def estimate_recall(path: Path, sample: int) -> dict[str, Any]:
    """Measure the default search against the exact one, with passages in place of queries."""
    with Snapshot.open(path) as snapshot:
        queries, own = passages_as_queries(snapshot, sample)
        meter = RecallMeter(snapshot, queries, _RECALL_K, own=own)
        measured = meter.measure(SearchParams())
    return {
        "recall_estimate": measured.recall,
        "recall_estimate_is": f"recall@{_RECALL_K} of {len(queries)} passages in place of queries; an upper bound",
        "cpu_ms_per_query": measured.cpu_ms,
        "exact_cpu_ms_per_query": round(meter.exact_ms, 3),
    }


def _tuned(path: Path, manifest: Manifest) -> dict[str, Any] | None:
    tuning = read_tuning(path)
    if tuning is None:
        return None
    return {**tuning.model_dump(exclude={"format_version"}), "same_version": tuning.version == manifest.version}


def tuned_line(tuned: dict[str, Any] | None) -> str:
    """Say what `describe` found in one line."""
    if tuned is None:
        return "no (see `drdecr index tune`)"
    return (
        "nprobe {nprobe}, candidates {candidates} for k {k}: recall {recall:.4f} of {wanted_recall} wanted, "
        "{cpu_ms:.2f} CPU ms, on {queries} queries and {passages} passages of "
    ).format(**tuned) + (
        "this version" if tuned["same_version"] else f"version {str(tuned['version'])[:12]}; tune again"
    )
