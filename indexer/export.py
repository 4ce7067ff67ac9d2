"""Writes all token vectors of a snapshot as one FAISS index, for programs that know FAISS and not us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import InputError, ResourceError, UsageError
from drdecr.index.segment import Segment
from drdecr.index.snapshot import Snapshot
from indexer.inverted_file import write_inverted_file

TOKEN_BITS = 20
"""Bits of a FAISS id that hold the token's place in its passage; the passage's position lies above them."""


def export_faiss(path: Path, out: Path, *, force: bool = False) -> int:
    """Write the FAISS IVF of a snapshot's token vectors to `out`; return how many there are.

    An id is (passage's position in the snapshot << 20) + token's position in the passage. The codes are the
    snapshot's own. Only the cells are held in memory, 2 to 4 bytes a vector.
    Raises: UsageError for a taken `out`, or a snapshot whose segments have several quantisers.
    """
    with Snapshot.open(path) as snapshot:
        quantizers = {segment.record.quantizer: segment.quantizer for segment in snapshot.segments}
        if len(quantizers) > 1:
            raise UsageError(
                f"{path} has {len(quantizers)} quantisers, a FAISS index has one; "
                "`drdecr index compact --retrain --student STUDENT` gives it one"
            )
        (quantizer,) = quantizers.values()
        tokens = _Tokens(snapshot.segments)
        with _staged_file(out, force=force) as partial:
            write_inverted_file(partial, quantizer.index, tokens.cells, tokens.codes, tokens.ids)
        return len(tokens.cells)


class _Tokens:
    """The living tokens of all segments, one row after the other."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments
        self._kept = [_living_rows(segment) for segment in segments]
        cells = zip(segments, self._kept, strict=True)
        self.cells = np.concatenate(
            [segment.cells if kept is None else segment.cells[kept] for segment, kept in cells]
        )
        self._rows = np.cumsum([0, *(segment.record.live_tokens for segment in segments)])
        self._passages = np.cumsum([0, *map(len, segments)])
        longest = max(int(np.diff(segment.offsets).max(initial=0)) for segment in segments)
        if longest >= 2**TOKEN_BITS:
            raise InputError(f"a passage has {longest} token vectors; a FAISS id has room for {2**TOKEN_BITS - 1}")

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        codes = np.empty((len(rows), self._segments[0].quantizer.code_bytes), np.uint8)
        for segment, _, chosen, own in self._by_segment(rows):
            codes[chosen] = segment.codes[own]
        return codes

    def ids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        ids = np.empty(len(rows), np.int64)
        for segment, base, chosen, own in self._by_segment(rows):
            passages = np.searchsorted(segment.offsets, own, side="right") - 1
            ids[chosen] = ((passages + base) << TOKEN_BITS) | (own - segment.offsets[passages])
        return ids

    def _by_segment(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[Segment, int, NDArray[np.bool_], NDArray[np.int64]]]:
        """Yield each segment, its first position, which rows are its own, and those as rows of the segment."""
        owners = np.searchsorted(self._rows, rows, side="right") - 1
        for owner, (segment, kept) in enumerate(zip(self._segments, self._kept, strict=True)):
            chosen = owners == owner
            own = rows[chosen] - self._rows[owner]
            yield segment, int(self._passages[owner]), chosen, own if kept is None else kept[own]


def _living_rows(segment: Segment) -> NDArray[np.int64] | None:
    """Return the token rows of passages that are not deleted; None where all are there."""
    return None if segment.live is None else np.flatnonzero(np.repeat(segment.live, np.diff(segment.offsets)))


@contextmanager
def _staged_file(out: Path, *, force: bool) -> Iterator[Path]:
    """Give the path of a file that becomes `out` when the block ends well."""
    if out.exists() and not (force and out.is_file()):
        raise UsageError(f"{out} exists already; choose another name, or replace it with --force")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(out)
    except OSError as problem:
        raise ResourceError(f"{out} cannot be written: {problem.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
