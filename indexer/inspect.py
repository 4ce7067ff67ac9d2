"""Facts about a snapshot: its sizes, its student, how far it has drifted, what its search finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drdecr.index.backend import SearchParams
from drdecr.index.manifest import Manifest, read_manifest
from drdecr.index.snapshot import Snapshot
from drdecr.index.tuning import read_tuning
from indexer.drift import advise, drift_of
from indexer.generations import earlier_generations
from indexer.recall import RecallMeter, passages_as_queries

_RECALL_K = 10


def describe(path: Path) -> dict[str, Any]:
    """Collect what `drdecr index info` prints, from the manifests and the tuned setting alone."""
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
        "windows": sum(segment.windows or segment.passages for segment in manifest.segments),
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
        "dims": manifest.dim,
        "pool": manifest.reduction.pool,
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
