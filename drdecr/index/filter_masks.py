"""Turns filters into masks of the passages that pass, and keeps the latest ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drdecr.index.filters import Condition, Filter
from drdecr.index.metadata_index import MetadataIndex

Mask = NDArray[np.bool_]

CACHE_BYTES = 32 * 2**20


class FilterMasks:
    """The masks of one version of a snapshot; safe to share between threads.

    Masks are kept a bit a passage, the least recently used ones dropped beyond `cache_bytes`.
    """

    def __init__(self, indexes: Sequence[MetadataIndex], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._indexes = indexes
        self._passages = sum(len(index) for index in indexes)
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def of(self, wanted: Filter) -> Mask:
        """Return which passages pass, bool (passages,) by position."""
        name = wanted.canonical
        with self._lock:
            packed = self._kept.get(name)
            if packed is not None:
                self._kept.move_to_end(name)
        if packed is not None:
            return np.unpackbits(packed, count=self._passages).view(np.bool_)
        mask = np.concatenate([_matches(wanted, index) for index in self._indexes] or [np.zeros(0, np.bool_)])
        self._keep(name, np.packbits(mask))
        return mask

    def _keep(self, name: str, packed: NDArray[np.uint8]) -> None:
        with self._lock:
            if name in self._kept:
                return
            self._kept[name] = packed
            self._kept_bytes += _size(name, packed)
            while self._kept_bytes > self._cache_bytes:
                self._kept_bytes -= _size(*self._kept.popitem(last=False))


def _size(name: str, packed: NDArray[np.uint8]) -> int:
    # A name of 10,000 values is larger than its mask.
    return len(name) + packed.nbytes


def _matches(part: Filter | Condition, index: MetadataIndex) -> Mask:
    if isinstance(part, Condition):
        return _condition(part, index)
    mask = np.ones(len(index), np.bool_)
    for clause in part.must:
        mask &= _matches(clause, index)
    if part.should:
        any_of = np.zeros(len(index), np.bool_)
        for clause in part.should:
            any_of |= _matches(clause, index)
        mask &= any_of
    for clause in part.must_not:
        mask &= ~_matches(clause, index)
    return mask


def _condition(condition: Condition, index: MetadataIndex) -> Mask:
    if "range" in condition.model_fields_set:
        return index.within(condition.field, condition.range)
    values = condition.in_ if "in_" in condition.model_fields_set else [condition.eq]
    mask = index.equal(condition.field, [value for value in values if value is not None])
    if None in values:
        mask |= ~index.present(condition.field)
    return mask
