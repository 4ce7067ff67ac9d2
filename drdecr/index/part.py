"""A part of a snapshot: some of its segments, searched as the whole snapshot would search them.

A search decides its knobs segment by segment, so the best of the parts' best are the best of the whole, with the same
scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded
from drdecr.errors import SnapshotCorruptError, SnapshotError
from drdecr.index.backend import Hit, SearchParams
from drdecr.index.copies import VERSION_LENGTH, hold
from drdecr.index.filters import Filter
from drdecr.index.manifest import MANIFEST, Manifest, parse_manifest, record_file
from drdecr.index.place import Arriving, DirectoryPlace, Place
from drdecr.index.snapshot import Snapshot, TokenMatch, find_damage
from drdecr.index.tuning import TUNING

GENERATIONS = "generations"


def divide(manifest: Manifest, parts: int) -> list[list[int]]:
    """Divide the segments of a snapshot into at most so many parts, each with about as many living tokens.

    Segments are numbered in their order, and ascend within a part. None is empty, but the one of an empty snapshot.
    """
    largest_first = sorted(range(len(manifest.segments)), key=lambda at: (-manifest.segments[at].live_tokens, at))
    shares: list[list[int]] = [[] for _ in range(max(1, min(parts, len(largest_first))))]
    loads = [0] * len(shares)
    for segment in largest_first:
        lightest = min(range(len(shares)), key=lambda at: (loads[at], len(shares[at]), at))
        shares[lightest].append(segment)
        loads[lightest] += manifest.segments[segment].live_tokens
    return [sorted(share) for share in shares]


def bases_of(manifest: Manifest) -> list[int]:
    """Return the first position of each segment, and the number of positions."""
    return [0, *accumulate(segment.passages for segment in manifest.segments)]


def read_version(place: Place, version: str) -> Manifest:
    """Return the manifest of a version: the current one, or an earlier generation's that is kept.

    Raises: SnapshotError where that version is gone.
    """
    names = [MANIFEST, *(f"{GENERATIONS}/{name}" for name in sorted(place.names(GENERATIONS), reverse=True))]
    for name in names:
        if name.endswith(".json"):
            manifest = parse_manifest(place.read(name), f"{place.location}/{name}")
            if manifest.version == version:
                return manifest
    raise SnapshotError(f"{place.location} has no version {version[:12]} any more")


class SnapshotPart:
    """Some segments of a snapshot, opened on this machine."""

    def __init__(self, root: Path, manifest: Manifest, segments: Sequence[int], *, verify: bool) -> None:
        """Raises: SnapshotCorruptError for files that differ from the manifest; `verify` reads every byte of them."""
        own = part_manifest(manifest, segments)
        if damage := find_damage(root, own, hashes=verify):
            raise SnapshotCorruptError(f"{root} is damaged: {'; '.join(damage)}; build or restore it again")
        self._snapshot = Snapshot(root, own)
        bases, sizes = bases_of(manifest), [manifest.segments[at].passages for at in segments]
        self._local = np.array([0, *accumulate(sizes)], np.int64)
        self._global = np.array([bases[at] for at in segments], np.int64)
        self._sizes = np.array(sizes, np.int64)

    def holds(self, position: int) -> bool:
        """Tell whether a position of the snapshot is in one of these segments."""
        at = int(np.searchsorted(self._global, position, side="right")) - 1
        return at >= 0 and bool(position < self._global[at] + self._sizes[at])

    def search(self, queries: Encoded, k: int, params: SearchParams, filter: Filter | None) -> list[list[Hit]]:
        """Return each query's best passages of these segments; their positions are those in the snapshot."""
        found = self._snapshot.search(queries, k, params, filter=filter)
        return [[replace(hit, position=self._outward(hit.position)) for hit in hits] for hits in found]

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """Read passages by id; those that are not there are left out."""
        return self._snapshot.passages(ids)

    def explain(self, query: Encoded, position: int) -> list[TokenMatch]:
        """Explain the passage at a position of the snapshot, as `Snapshot.explain`."""
        return self._snapshot.explain(query, self._inward(position))

    def warm_up(self) -> None:
        """Compile and touch what a query needs."""
        self._snapshot.warm_up()

    def close(self) -> None:
        self._snapshot.close()

    def _outward(self, position: int) -> int:
        at = int(np.searchsorted(self._local, position, side="right")) - 1
        return int(position - self._local[at] + self._global[at])

    def _inward(self, position: int) -> int:
        at = int(np.searchsorted(self._global, position, side="right")) - 1
        return int(position - self._global[at] + self._local[at])


def part_manifest(manifest: Manifest, segments: Sequence[int]) -> Manifest:
    """Return the manifest of some segments and the quantisers that they need."""
    own = [manifest.segments[at] for at in segments]
    used = {segment.quantizer for segment in own}
    quantizers = [quantizer for quantizer in manifest.quantizers if quantizer.directory in used]
    return manifest.model_copy(update={"segments": own, "quantizers": quantizers})


def fetch_part(place: Place, manifest: Manifest, segments: Sequence[int], cache: Path) -> Path:
    """Return a directory of this machine that holds the files of some segments: the place's own, or a copy.

    Copies lie in `cache`, by the snapshot's version; each file is checked as it arrives, and is never fetched twice.
    A copy is held (`copies.hold`) until this process ends.
    Raises: SnapshotCorruptError for a file that differs from the manifest, SnapshotError where it cannot be read.
    """
    if isinstance(place, DirectoryPlace):
        return place.root
    root = cache / manifest.version[:VERSION_LENGTH]
    hold(cache, root.name)
    wanted = part_manifest(manifest, segments).paths()
    for name, record in wanted.items():
        path = root / name
        if path.is_file() and path.stat().st_size == record.size_bytes:
            continue
        with Arriving(path) as partial:
            place.fetch(name, partial)
            if record_file(partial) != record:
                raise SnapshotCorruptError(f"{place.location}/{name} differs from its manifest; build it again")
    if place.exists(TUNING):
        with Arriving(root / TUNING) as partial:
            place.fetch(TUNING, partial)
    else:
        (root / TUNING).unlink(missing_ok=True)
    return root


def tuning_key(place: Place) -> str:
    """Return what tells one tuned setting of a snapshot from the next; empty where there is none."""
    return hashlib.sha256(place.read(TUNING)).hexdigest() if place.exists(TUNING) else ""


def merge(found: Iterable[list[list[Hit]]], queries: int, k: int) -> list[list[Hit]]:
    """Return each query's best of what parts found, best first, ties to the smaller position."""
    together: list[list[Hit]] = [[] for _ in range(queries)]
    for part in found:
        for query, hits in enumerate(part):
            together[query] += hits
    return [sorted(hits, key=lambda hit: (-hit.score, hit.position))[:k] for hits in together]
