"""Writes which passages each centroid's inverted list meets: unique, ascending, as packed gaps.

`postings.npy` (bytes,) uint8 holds the lists one after the other. A list is one byte, the bits of a gap, and the
gaps, lowest bit first, up to the next whole byte. A gap is how many passages lie between two neighbours; the first
counts from the start. A gap of all ones means: skip that many passages and read on. Each list has the width that
makes it shortest. Eight spare bytes end the file, so that a reader may load 64 bits anywhere. `lists.npy` (lists, 2)
int64 holds the byte where each list starts and how many passages it has.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.index.kernels import collect_postings, pack_gaps, packed_bytes
from drdecr.index.segment import LISTS, POSTINGS
from indexer.array_file import GrowingArrayWriter

# Entries that are in memory together; the cells are read once for each such group of lists.
_GROUP_ENTRIES = 2**23


def write_posting_lists(directory: Path, offsets: NDArray[np.int64], cells: NDArray[Any], lists: int) -> None:
    """Write a segment's inverted lists from its offsets (passages + 1,) and its tokens' cells (tokens,)."""
    tokens = np.zeros(lists, np.int64)
    for start in range(0, len(cells), _GROUP_ENTRIES):
        tokens += np.bincount(cells[start : start + _GROUP_ENTRIES], minlength=lists)
    placed = np.zeros((lists, 2), np.int64)
    with GrowingArrayWriter(directory / POSTINGS, np.uint8) as file:
        low = 0
        while low < lists:
            high = low + 1 + int(np.searchsorted(np.cumsum(tokens[low + 1 :]), _GROUP_ENTRIES - tokens[low], "right"))
            starts = np.cumsum(tokens[low:high]) - tokens[low:high]
            entries = np.empty(int(tokens[low:high].sum()), np.int64)
            sizes = np.zeros(high - low, np.int64)
            collect_postings(offsets, cells, low, starts, entries, sizes)
            widths = np.empty(high - low, np.int64)
            lengths = np.empty(high - low, np.int64)
            packed_bytes(entries, starts, sizes, widths, lengths)
            ends = np.cumsum(lengths)
            packed = np.zeros(int(ends[-1]) + 8, np.uint8)
            pack_gaps(entries, starts, sizes, widths, ends - lengths, packed)
            placed[low:high, 0] = file.rows + ends - lengths
            placed[low:high, 1] = sizes
            file.append(packed[:-8])
            low = high
        file.append(np.zeros(8, np.uint8))
    # Not np.save(path): that writes around Python, which then cannot tell a full disk from another trouble.
    packed_lists = io.BytesIO()
    np.save(packed_lists, placed)
    (directory / LISTS).write_bytes(packed_lists.getvalue())
