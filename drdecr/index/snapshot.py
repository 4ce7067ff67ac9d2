"""A snapshot on this machine: opened by memory-mapping, searched by any number of threads."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.errors import ModelError, ModelMismatchError, SnapshotCorruptError, SnapshotError, UsageError
from drdecr.index.backend import Hit, Reach, SearchParams, StageTimes
from drdecr.index.candidates import CandidateFinder, decide_knobs
from drdecr.index.compatibility import require_student, require_vectors
from drdecr.index.filter_masks import FilterMasks
from drdecr.index.filters import Filter
from drdecr.index.lane_blocks import lane_blocks, products
from drdecr.index.lanes import LANES, MAX_REGISTERS
from drdecr.index.manifest import FileRecord, Manifest, read_manifest, record_file
from drdecr.index.quantizer import Quantizer
from drdecr.index.score import QueryLanes, query_lanes, relevance
from drdecr.index.segment import Segment
from drdecr.index.tuning import Tuning, read_tuning

_DEFAULT = SearchParams()
_Number = TypeVar("_Number", np.int64, np.float64)


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """The passage token that a query token found: the row of its vector, their dot product, its characters or None.

    Where tokens of the passage share this vector (pooling), `span` is the first one's and `also` the others'.
    """

    passage_token: int
    score: float
    span: tuple[int, int] | None
    also: tuple[tuple[int, int], ...] = ()


class Snapshot:
    """An immutable collection of encoded passages; a `SearchBackend`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.spec: EncoderSpec = manifest.student.spec
        self._version = manifest.version
        quantizers = {record.directory: Quantizer(path, record, manifest.dim) for record in manifest.quantizers}
        self._segments = [Segment(path, record, quantizers[record.quantizer]) for record in manifest.segments]
        self._has_windows = any(segment.has_windows for segment in self._segments)
        self._finders = [CandidateFinder(segment) for segment in self._segments]
        self._bases = [0, *accumulate(len(segment) for segment in self._segments)]
        self.tuning = read_tuning(path)
        self._masks = FilterMasks([segment.store.metadata_index(len(segment)) for segment in self._segments])

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False, known: Manifest | None = None) -> Snapshot:
        """Open a snapshot; its data stay on disk until they are touched.

        `verify` reads and hashes every byte first; without it only names and sizes are checked. It passes over the
        files that `known` names too: the manifest of an earlier generation that was verified.
        Raises: SnapshotError for a directory that is no snapshot, SnapshotCorruptError for a damaged one.
        """
        path = Path(path)
        while True:
            manifest = read_manifest(path)
            try:
                snapshot = cls._open_version(path, manifest, verify=verify, known=known)
            except SnapshotError:
                if read_manifest(path) == manifest:
                    raise
            else:
                if read_manifest(path) == manifest:
                    return snapshot
                snapshot.close()
            # The snapshot was replaced while its files were being opened: begin again with the new one.

    @classmethod
    def _open_version(cls, path: Path, manifest: Manifest, *, verify: bool, known: Manifest | None) -> Snapshot:
        damage = find_damage(path, manifest, hashes=verify, known=known)
        if damage:
            raise SnapshotCorruptError(f"{path} is damaged: {'; '.join(damage)}; build or restore it again")
        return cls(path, manifest)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._bases[-1] - self.manifest.deleted

    @property
    def positions(self) -> int:
        """The number of positions: passages, and the holes that deleted ones left."""
        return self._bases[-1]

    @property
    def version(self) -> str:
        """The id of exactly these bytes."""
        return self._version

    @property
    def segments(self) -> list[Segment]:
        """The parts, in the order in which positions count through them."""
        return self._segments

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the student that encoded the passages; empty where nobody knows it."""
        return self.spec.fingerprint

    def close(self) -> None:
        """Close the passage files; the memory maps go with the object."""
        for segment in self._segments:
            segment.close()

    def tuned(self, tuning: Tuning | None) -> Snapshot:
        """Return this snapshot with another tuned setting, or none; both have the same files, closed by either."""
        other = copy.copy(self)
        other.tuning = tuning
        return other

    def require(self, spec: EncoderSpec) -> None:
        """Check that a student may search this snapshot. Raises: ModelMismatchError."""
        require_student(spec, self.spec, self.path)

    def require_vectors(self, spec: EncoderSpec) -> None:
        """Check that vectors from a file may search this snapshot: as `require`, where the file names a student."""
        require_vectors(spec, self.spec, self.path)

    def passage(self, passage_id: str) -> Passage | None:
        """Read a passage, or None where there is none with this id."""
        return self.passages([passage_id]).get(passage_id)

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """Read passages by id; those that are not there are left out."""
        found: dict[str, Passage] = {}
        for segment in self._segments:
            found.update(segment.store.by_id(ids, segment.live))
        return found

    def passages_of(self, hits: Sequence[Hit], *, reach: Reach | None = None) -> dict[str, Passage]:
        """Read the passages of hits, by id."""
        return self.passages([hit.id for hit in hits])

    def position(self, passage_id: str) -> int | None:
        """Find a passage's position by its id."""
        for base, segment in zip(self._bases, self._segments, strict=False):
            position = segment.store.position(passage_id)
            if position is not None and segment.holds(position):
                return base + position
        return None

    def search(
        self,
        queries: Encoded,
        k: int,
        params: SearchParams = _DEFAULT,
        *,
        filter: Filter | None = None,
        allowed: NDArray[np.bool_] | None = None,
        times: StageTimes | None = None,
        reach: Reach | None = None,
    ) -> list[list[Hit]]:
        """Return each query's best passages, best first, ties to the smaller position.

        `filter` and `allowed` (positions,) leave out all others.
        Raises: ModelMismatchError for queries of another dimension, or without the sentence vectors it needs.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, got {k}")
        self._check_queries(queries)
        times = times or StageTimes()
        if filter is not None:
            started = time.perf_counter()
            mask = self._masks.of(filter)
            allowed = mask if allowed is None else mask & allowed
            times.candidates_s += time.perf_counter() - started
        return [self._search_one(self._lanes(queries, i), k, params, allowed, times) for i in range(len(queries))]

    def explain(
        self, query: Encoded, position: int, *, text: int = 0, reach: Reach | None = None
    ) -> list[TokenMatch]:
        """Say for each token of a query which token of a passage's best window it found; with a `closeness`, of all.

        Nothing for a passage without tokens.
        """
        self._check_queries(query)
        segment, local = self._locate(position)
        passage = np.array([local], np.int64)
        vectors, _ = segment.tokens_of(passage)
        if len(vectors) == 0:
            return []
        rows = slice(0, len(vectors))
        if len(segment.windows_of(passage)[0]) > 1 and not self.spec.closeness:
            _, windows = relevance(segment, self._lanes(query, text), passage)
            rows = segment.token_rows(local, int(windows[0]))
        tokens = self._shortened(query.tokens_of(text))
        scores = products(vectors[rows], lane_blocks(tokens))
        members = segment.store.members(local)
        matches = []
        for token in range(len(tokens)):
            best = rows.start + int(scores[:, token].argmax())
            own = [] if members is None else members[members[:, 0] == best, 1:].tolist()
            spans = tuple((start, end) for start, end in own)
            score = float(scores[best - rows.start, token])
            matches.append(TokenMatch(best, score, spans[0] if spans else None, spans[1:]))
        return matches

    def vectors_of(self, position: int) -> NDArray[np.float32]:
        """Return the stored token vectors of a passage, (tokens, dim)."""
        segment, local = self._locate(position)
        return segment.tokens_of(np.array([local], np.int64))[0]

    def sentence_of(self, position: int) -> NDArray[np.float32] | None:
        """Return the stored sentence vector of a passage's first window, None where the snapshot has none."""
        segment, local = self._locate(position)
        windows, _ = segment.windows_of(np.array([local], np.int64))
        return segment.sentences_of(windows[:1])[0] if self.spec.sentence_dim else None

    def warm_up(self) -> None:
        """Compile every kernel for this snapshot and touch its hot data, so that no query pays for it."""
        rng = np.random.default_rng(0)
        everything = np.ones(self.positions, np.bool_)
        for registers in range(1, MAX_REGISTERS + 1):
            tokens = rng.standard_normal((registers * LANES, self.manifest.dim), dtype=np.float32)
            sentence = (
                rng.standard_normal(self.spec.sentence_dim, dtype=np.float32) if self.spec.sentence_dim else None
            )
            lanes = query_lanes(tokens, sentence, self.spec.sentence_weight, self.spec.closeness)
            for params in (SearchParams(nprobe=1, candidates=1), _DEFAULT):
                for allowed in (None, everything):
                    self._search_one(lanes, 1, params, allowed, StageTimes())
            # What `explain` runs.
            products(np.zeros((1, tokens.shape[1]), np.float32), lane_blocks(tokens))

    def _search_one(
        self, query: QueryLanes, k: int, params: SearchParams, allowed: NDArray[np.bool_] | None, times: StageTimes
    ) -> list[Hit]:
        if query.tokens == 0:
            return []
        positions: list[NDArray[np.int64]] = []
        scores: list[NDArray[np.float64]] = []
        windows: list[NDArray[np.int64]] = []
        for base, segment, finder in zip(self._bases, self._segments, self._finders, strict=False):
            if segment.record.deleted == len(segment):
                continue
            started = time.perf_counter()
            own = segment.live
            if allowed is not None:
                part = allowed[base : base + len(segment)]
                own = part if own is None else own & part
            knobs, wanted = decide_knobs(segment, params, k, self.tuning), min(k, len(segment))
            found = finder.find(query, knobs, wanted, own, filtered=allowed is not None)
            found = found[segment.offsets[found + 1] > segment.offsets[found]]
            narrowed = time.perf_counter()
            best, own_windows = relevance(segment, query, found)
            scores.append(best)
            windows.append(own_windows)
            positions.append(found + base)
            times.candidates_s += narrowed - started
            times.score_s += time.perf_counter() - narrowed
        if not positions:
            return []
        started = time.perf_counter()
        hits = self._hits(_joined(positions), _joined(scores), _joined(windows), k)
        times.fetch_s += time.perf_counter() - started
        return hits

    def _hits(
        self, positions: NDArray[np.int64], scores: NDArray[np.float64], windows: NDArray[np.int64], k: int
    ) -> list[Hit]:
        if len(scores) > k:
            # Everything that ties with the k-th stays in, so that position decides and not the partition.
            least = np.partition(scores, len(scores) - k)[len(scores) - k]
            kept = scores >= least
            positions, scores, windows = positions[kept], scores[kept], windows[kept]
        order = np.lexsort((positions, -scores))[:k]
        best = positions[order].tolist()
        characters = self._characters(best, windows[order])
        return list(map(Hit, self._ids(best), scores[order].tolist(), best, characters))

    def _characters(self, positions: Sequence[int], windows: NDArray[np.int64]) -> list[tuple[int, int] | None]:
        """Return the characters of each passage's window, None for one that is its whole passage or has no spans."""
        characters: dict[int, tuple[int, int] | None] = {}
        if not self._has_windows:
            return [None] * len(positions)
        for base, end, segment in zip(self._bases, self._bases[1:], self._segments, strict=False):
            if not segment.has_windows:
                continue
            inside = [at for at, position in enumerate(positions) if base <= position < end]
            local = [positions[at] - base for at in inside]
            several = segment.has_several_windows(np.array(local, np.int64)).tolist()
            inside = [at for at, parted in zip(inside, several, strict=True) if parted]
            local = [position for position, parted in zip(local, several, strict=True) if parted]
            rows = [segment.token_rows(place, int(windows[at])) for place, at in zip(local, inside, strict=True)]
            found = segment.store.characters(local, rows)
            characters.update((positions[at], each) for at, each in zip(inside, found, strict=True))
        return [characters.get(position) for position in positions]

    def _ids(self, positions: Sequence[int]) -> list[str]:
        ids: dict[int, str] = {}
        for base, end, segment in zip(self._bases, self._bases[1:], self._segments, strict=False):
            inside = [position for position in positions if base <= position < end]
            ids.update(zip(inside, segment.store.ids([position - base for position in inside]), strict=True))
        return [ids[position] for position in positions]

    def _locate(self, position: int) -> tuple[Segment, int]:
        for base, end, segment in zip(self._bases, self._bases[1:], self._segments, strict=False):
            if base <= position < end and segment.holds(position - base):
                return segment, position - base
        raise UsageError(f"there is no passage at position {position}; the snapshot holds {len(self)}")

    def _lanes(self, queries: Encoded, text: int) -> QueryLanes:
        sentence = None
        if self.spec.sentence_dim and queries.sentences is not None:
            sentence = np.ascontiguousarray(queries.sentences[text], dtype=np.float32)
        tokens = self._shortened(queries.tokens_of(text))
        return query_lanes(tokens, sentence, self.spec.sentence_weight, self.spec.closeness)

    def _shortened(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keep of a query's vectors the dimensions that are stored; what `vectors_of` gave has no more."""
        return self.manifest.reduction.shorten(tokens)

    def _check_queries(self, queries: Encoded) -> None:
        if len(queries) and queries.vectors.shape[1] not in (self.spec.dim, self.manifest.dim):
            raise ModelMismatchError(
                f"the queries have {queries.vectors.shape[1]} dimensions, "
                f"the snapshot {self.path} has {self.spec.dim}"
            )
        if not bool(np.isfinite(queries.vectors).all()):
            raise ModelError("a query vector is not finite; the student that encoded it is broken")
        if self.spec.sentence_dim:
            found = None if queries.sentences is None else queries.sentences.shape[1]
            if found != self.spec.sentence_dim:
                raise ModelMismatchError(
                    f"the queries have {found or 'no'} sentence dimensions, "
                    f"the snapshot {self.path} has {self.spec.sentence_dim}"
                )


def _joined(parts: list[NDArray[_Number]]) -> NDArray[_Number]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def find_damage(path: Path, manifest: Manifest, *, hashes: bool, known: Manifest | None = None) -> list[str]:
    """Compare a snapshot's files with its manifest and describe each difference.

    `hashes` reads every byte, but for those of files that the manifest `known` names with the same checksum.
    """
    wanted = manifest.paths()
    trusted = {} if known is None else known.paths()
    return [f"{path / name} {problem}" for name, problem in compare_files(path, wanted, trusted, hashes=hashes)]


def compare_files(
    path: Path, wanted: Mapping[str, FileRecord], trusted: Mapping[str, FileRecord], *, hashes: bool
) -> Iterator[tuple[str, str]]:
    """Yield the name and the problem of each file that differs from its record; `trusted` ones are not hashed."""
    for name, record in wanted.items():
        file = path / name
        if not file.is_file():
            yield name, "is missing"
        elif file.stat().st_size != record.size_bytes:
            yield name, f"has {file.stat().st_size} bytes instead of {record.size_bytes}"
        elif hashes and trusted.get(name) != record and record_file(file) != record:
            yield name, "has other contents than when it was written (SHA-256 differs)"
