"""What answers: one encoder and the snapshots that it built, loaded and warmed up."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drdecr.collections.records import Target
from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec, Kind, Progress
from drdecr.index.backend import Hit, Reach, SearchBackend
from drdecr.index.manifest import MANIFEST, Manifest
from drdecr.index.tuning import TUNING
from service.problems import Problem

if TYPE_CHECKING:
    from service.readiness import Readiness
    from service.settings import IndexSource, Settings


class Tokens(Protocol):
    """One tokenised text: `ids` is all that the encoder reads."""

    @property
    def ids(self) -> Sized: ...


@runtime_checkable
class StagedEncoder(Encoder, Protocol):
    """An encoder whose two steps can be timed, and batched, apart; `progress`, after each batch, may end the work."""

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Sequence[Tokens]: ...

    def encode_tokens(self, tokens: Sequence[Any], *, progress: Progress | None = None) -> Encoded: ...

    def encode_sentences(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]: ...


class Match(Protocol):
    """The passage token that a query token met; `span` is its characters [start, end), or None where unknown.

    `also` are those of the other tokens that share its vector.
    """

    @property
    def score(self) -> float: ...

    @property
    def span(self) -> tuple[int, int] | None: ...

    @property
    def also(self) -> tuple[tuple[int, int], ...]: ...


class SearchableSnapshot(SearchBackend, Protocol):
    """The part of `drdecr.index.Snapshot` that the service uses; a fake in the unit tests."""

    def __len__(self) -> int: ...

    def passage(self, passage_id: str) -> Passage | None: ...

    def passages_of(self, hits: Sequence[Hit], *, reach: Reach | None = None) -> Mapping[str, Passage]:
        """Return the passages of hits by id, but those of shards that `reach` then names as missing."""
        ...

    def explain(self, query: Encoded, position: int, *, reach: Reach | None = None) -> Sequence[Match] | None:
        """Return, in the order of the query's tokens, the passage token that each met.

        None where `reach` then names the passage's shard as missing.
        """
        ...

    def warm_up(self) -> None: ...


@runtime_checkable
class CountsCalls(Protocol):
    """A snapshot whose shards are asked, and which counts how: `asked`, `hedged`, `retried`, `missing`."""

    def calls(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ServedIndex:
    """A snapshot under the name that clients use. A request holds one, and so sees one version only.

    `newer` returns the index of the generation that is on disk now, or None where this is it. `version` is what of a
    data directory it serves, kept open as long as a request holds the index.
    """

    name: str
    snapshot: SearchableSnapshot
    newer: Callable[[], ServedIndex | None] = lambda: None
    version: OpenVersion | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OpenVersion:
    """A version of an index of the data directory, opened once for all its names."""

    target: Target
    snapshot: SearchableSnapshot


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a name that exists cannot be searched."""

    status: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Engine:
    """The encoder and every index, and why a name of the data directory is not among them."""

    encoder: StagedEncoder
    indexes: Mapping[str, ServedIndex]
    absent: Mapping[str, Absence] = field(default_factory=dict)

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    def index(self, name: str) -> ServedIndex:
        """Return an index by its name. Raises: Problem 404, or 503 where it cannot be opened."""
        found = self.indexes.get(name)
        if found is None:
            if (absence := self.absent.get(name)) is not None:
                headers = {"Retry-After": "30"} if absence.status == 503 else None
                raise Problem(absence.status, absence.code, absence.detail, headers=headers)
            known = ", ".join(sorted(self.indexes))
            raise Problem(404, "index_not_found", f"No index {name[:64]!r}; there is {known or 'none yet'}.")
        return found


EngineLoader = Callable[["Settings", "Readiness"], Engine]


def expected_checks(settings: Settings) -> list[str]:
    """Return the names of the checks that `load_engine` will set."""
    data = [] if settings.data is None else ["data"]
    return ["encoder", *(f"index:{source.name}" for source in settings.index), *data]


def load_engine(settings: Settings, readiness: Readiness) -> Engine:
    """Load and warm up the encoder and each snapshot, setting a check after each.

    Raises: ModelError, SnapshotError, ResourceError.
    """
    encoder = load_serving_encoder(settings, readiness)
    indexes: dict[str, ServedIndex] = {}
    for source in settings.index:
        index = serve_snapshot(source, encoder.spec, verify=settings.verify)
        indexes[source.name] = index
        readiness.update(f"index:{source.name}", describe(index), ok=True)
    return Engine(encoder, indexes)


def load_serving_encoder(settings: Settings, readiness: Readiness) -> StagedEncoder:
    """Load and warm up the encoder, and set its check. Raises: ModelError."""
    from drdecr.encoder.load import load_encoder

    encoder = load_encoder(settings.student, threads=1, backend=settings.encoder)
    assert isinstance(encoder, StagedEncoder)
    encoder.encode(["warm-up"], "query")
    readiness.update("encoder", f"{encoder.spec.name} {encoder.spec.fingerprint[:12]}", ok=True)
    return encoder


def serve_snapshot(
    source: IndexSource, spec: EncoderSpec, *, verify: bool, verified: Manifest | None = None
) -> ServedIndex:
    """Open a snapshot and warm it up; `verify` reads every byte, but for files of a manifest `verified` before.

    It is closed when the last request that holds the index has ended. Raises: SnapshotError, ModelMismatchError.
    """
    from drdecr.index.snapshot import Snapshot

    # Before it is opened: a generation that comes meanwhile then counts as newer.
    stamp = _stamp(source.path)
    snapshot = Snapshot.open(source.path, verify=verify, known=verified)
    try:
        snapshot.require(spec)
        snapshot.warm_up()
    except BaseException:
        snapshot.close()
        raise

    def newer() -> ServedIndex | None:
        if _stamp(source.path) in (stamp, None):
            return None
        return serve_snapshot(source, spec, verify=verify, verified=snapshot.manifest)

    index = ServedIndex(source.name, snapshot, newer)
    weakref.finalize(index, snapshot.close)
    return index


def describe(index: ServedIndex) -> str:
    """Say in a few words what an index serves."""
    return f"{index.snapshot.version[:12]}, {len(index.snapshot)} passages"


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what tells one manifest, and one tuned setting, from the next; None while there is no manifest."""
    if not (path / MANIFEST).exists():
        return None
    stamp: list[int] = []
    for name in (MANIFEST, TUNING):
        with suppress(FileNotFoundError):
            found = (path / name).stat()
            stamp += [found.st_ino, found.st_mtime_ns, found.st_size]
    return tuple(stamp)
