"""How wide a search looks: what `effort` means for a collection's size, and what a tuned setting makes of it.

Lists (`nprobe`) decide which passages are met at all, candidates which of those get an exact score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drdecr.index.backend import Effort, SearchParams
from drdecr.index.tuning import Tuning

# Up to here an exact search is as fast as a narrowed one.
_SMALL_COLLECTION = 300
# Hits that a reader looks at: finding the best of them all takes fewer candidates than a run of a hundred.
_A_PAGE = 20


@dataclass(frozen=True, slots=True)
class Level:
    """One effort: its lists, its candidates for a page of hits and for more, and how many a tenfold size adds."""

    nprobe: int
    page: int
    more: int
    tenfold: int

    def candidates(self, passages: int, k: int) -> int:
        """Count from 10,000 passages on; fewer take no fewer candidates."""
        grown = self.tenfold * max(0.0, math.log10(max(passages, 1) / 10_000))
        return (self.page if k <= _A_PAGE else self.more) + round(grown)


LEVELS: dict[Effort, Level] = {
    "fast": Level(nprobe=4, page=75, more=150, tenfold=75),
    "balanced": Level(nprobe=16, page=150, more=300, tenfold=200),
    "thorough": Level(nprobe=32, page=500, more=1000, tenfold=600),
}


def knobs_for(params: SearchParams, k: int, passages: int, lists: int, tuning: Tuning | None) -> tuple[int, int]:
    """Decide nprobe and candidates. A knob that was given wins, then a tuned one, then the level's."""
    effort = params.effort or "balanced"
    level = LEVELS[effort]
    nprobe, candidates = level.nprobe, level.candidates(passages, k)
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
