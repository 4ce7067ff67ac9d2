"""Facts about a snapshot, and whether its bytes are still the ones that were written."""

from __future__ import annotations

from pathlib import Path

from drdecr.index.manifest import read_manifest
from drdecr.index.snapshot import find_damage


def damaged_files(path: Path) -> list[str]:
    """Read every byte of a snapshot and describe each damaged file. Raises: SnapshotError without a manifest."""
    return find_damage(path, read_manifest(path), hashes=True)


def describe(path: Path) -> dict[str, str | int | float]:
    """Collect what `drdecr index info` prints, from the manifest alone."""
    manifest = read_manifest(path)
    student = manifest.student
    files = [item for part in manifest.parts for item in part.files.items()]
    # Everything but the texts: what one more token vector costs.
    index_bytes = sum(record.size_bytes for name, record in files if not name.endswith(".sqlite"))
    codecs = sorted({f"{each.codec.name} ({each.codec.bits} bits)" for each in manifest.quantizers})
    return {
        "snapshot": str(path),
        "version": manifest.version,
        "format_version": manifest.format_version,
        "written_by": manifest.written_by,
        "passages": manifest.passages,
        "token_vectors": manifest.tokens,
        "segments": len(manifest.segments),
        "lists": sum(quantizer.lists for quantizer in manifest.quantizers),
        "codec": ", ".join(codecs),
        "size_bytes": manifest.size_bytes,
        "bytes_per_token_vector": round(index_bytes / max(manifest.tokens, 1), 1),
        "bytes_per_passage": round(manifest.size_bytes / max(manifest.passages, 1), 1),
        "student": student.name,
        "fingerprint": student.fingerprint or "unknown",
        "dim": student.dim,
        "sentence_dim": student.sentence_dim,
        "sentence_weight": student.sentence_weight,
    }
