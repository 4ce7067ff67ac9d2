"""How wide a search looks: what `effort` means for a collection's size, and what a tuned setting makes of it.

Lists (`nprobe`) decide which passages are met at all, candidates how many of those are scored by their tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from drdecr.index.backend import Effort, SearchParams
from drdecr.index.tuning import Tuning

# Sentence vectors name the best passages so well that two thirds of the candidates suffice: recall@10 .993 over 6,000
# passages under the released student (benchmarks/efforts.py).
_WITH_SENTENCES = 2 / 3
# Up to here an exact search is as fast as a narrowed one.
_SMALL_COLLECTION = 300
# Ten times the passages take so many times the candidates more: the k best lie closer together.
_MORE_A_TENFOLD = 4 / 3


@dataclass(frozen=True, slots=True)
class Level:
    """One effort: its lists, and its candidates for a collection of 10,000 passages: some, and some for each hit."""

    nprobe: int
    base: int
    each: float

    def candidates(self, passages: int, k: int, *, sentences: bool = False) -> int:
        """Count the candidates; under 10,000 passages take no fewer, those with sentence vectors a third fewer."""
        grown = 1 + _MORE_A_TENFOLD * max(0.0, math.log10(max(passages, 1) / 10_000))
        return round(grown * (self.base + self.each * k) * (_WITH_SENTENCES if sentences else 1.0))


# Measured by benchmarks/efforts.py on real passages; the recall that each reaches hardly depends on k.
LEVELS: dict[Effort, Level] = {
    "fast": Level(nprobe=8, base=60, each=3),
    "balanced": Level(nprobe=16, base=100, each=5),
    "thorough": Level(nprobe=32, base=400, each=10),
}


@lru_cache(maxsize=1024)
def knobs_for(
    params: SearchParams, k: int, passages: int, lists: int, tuning: Tuning | None, *, sentences: bool = False
) -> tuple[int, int]:
    """Decide nprobe and candidates. A knob that was given wins, then a tuned one, then the level's."""
    effort = params.effort or "balanced"
    level = LEVELS[effort]
    # A thorough search is the one that asks for what the sentence vectors may have missed.
    fewer = sentences and effort != "thorough"
    nprobe, candidates = level.nprobe, level.candidates(passages, k, sentences=fewer)
    if tuning is not None:
        tuned = _tuned_candidates(tuning, passages, k)
        # Tuning moves `balanced`; the others only give way, so that fast <= balanced <= thorough still holds.
        if effort == "balanced":
            nprobe, candidates = tuning.nprobe, tuned
        elif effort == "fast":
            nprobe, candidates = min(nprobe, tuning.nprobe), min(candidates, tuned)
        else:
            nprobe, candidates = max(nprobe, tuning.nprobe), max(candidates, tuned)
    if passages <= _SMALL_COLLECTION:
        nprobe = lists
    return min(params.nprobe or nprobe, lists), min(max(params.candidates or candidates, k), passages)


def _tuned_candidates(tuning: Tuning, passages: int, k: int) -> int:
    """Carry candidates over to another k and another size as the policy itself would grow."""
    policy = LEVELS["balanced"].candidates
    return math.ceil(tuning.candidates * policy(passages, k) / policy(tuning.passages, tuning.k))
