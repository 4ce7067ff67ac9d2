"""Whether a student, or vectors in a file, belong to a snapshot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from drdecr.encoder.types import EncoderSpec
from drdecr.errors import ModelMismatchError


def require_student(spec: EncoderSpec, own: EncoderSpec, snapshot: Path | str) -> None:
    """Check that a student is the one, `own`, that encoded a snapshot. Raises: ModelMismatchError."""
    if (spec.dim, spec.sentence_dim) != (own.dim, own.sentence_dim):
        raise ModelMismatchError(
            f"{spec.name} gives {_dimensions(spec)}, but {snapshot} was built by {own.name} with "
            f"{_dimensions(own)}; use that student or build the snapshot again"
        )
    if own.fingerprint and spec.fingerprint != own.fingerprint:
        raise ModelMismatchError(
            f"{spec.name} has fingerprint {spec.fingerprint}, but {snapshot} was built by {own.name} "
            f"with fingerprint {own.fingerprint}; use that student or build the snapshot again"
        )


def require_vectors(spec: EncoderSpec, own: EncoderSpec, snapshot: Path) -> None:
    """Check vectors from a file: as `require_student`, where the file names a student."""
    require_student(spec if spec.fingerprint else replace(spec, fingerprint=own.fingerprint), own, snapshot)


def _dimensions(spec: EncoderSpec) -> str:
    return (
        f"{spec.dim} token and {spec.sentence_dim} sentence dimensions (fingerprint {spec.fingerprint or 'unknown'})"
    )
