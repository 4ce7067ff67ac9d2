"""What answers queries: `SearchBackend`, the knobs it takes and the hits it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from drdecr.encoder.types import Encoded
from drdecr.errors import UsageError
from drdecr.index.filters import Filter

Effort = Literal["fast", "balanced", "thorough"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How wide to look; None leaves a knob to `effort` and the collection's size (see `drdecr.index.knobs`).

    `nprobe` is the inverted lists visited a query token, `candidates` the passages that are scored by their codes;
    the best of those get an exact score.
    A search with nprobe >= lists and candidates >= passages is exact.
    """

    nprobe: int | None = None
    candidates: int | None = None
    effort: Effort | None = None

    def __post_init__(self) -> None:
        if self.effort is not None and self.effort not in EFFORTS:
            raise UsageError(f"effort must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        for name, value in (("nprobe", self.nprobe), ("candidates", self.candidates)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")


EXACT = SearchParams(nprobe=2**31 - 1, candidates=2**62)
"""Wide open on a collection of any size."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found; `position` is its place in the snapshot, `score` its relevance.

    `window` is the best window of a passage that has several: characters [start, end) of `Passage.content`.
    """

    id: str
    score: float
    position: int
    window: tuple[int, int] | None = None


@dataclass(slots=True)
class StageTimes:
    """Adds up the seconds that the stages of searches took."""

    candidates_s: float = 0.0
    score_s: float = 0.0
    fetch_s: float = 0.0


@dataclass(slots=True)
class Reach:
    """What a search over shards may take, and what it did without: `missing` names shards that gave no answer.

    `until` is the moment, of `time.perf_counter`, at which shards must have answered. A snapshot on one machine has
    no shards and misses nothing.
    """

    until: float | None = None
    missing: set[str] = field(default_factory=set)


class SearchBackend(Protocol):
    """Anything that ranks passages: one snapshot on this machine, shards on many."""

    @property
    def version(self) -> str: ...

    def search(
        self,
        queries: Encoded,
        k: int,
        params: SearchParams = ...,
        *,
        filter: Filter | None = None,
        times: StageTimes | None = None,
        reach: Reach | None = None,
    ) -> list[list[Hit]]:
        """Return each query's best passages that pass the filter, best first, ties to the smaller position.

        A query without token vectors has no hits; a passage without token vectors is never one.
        """
        ...
