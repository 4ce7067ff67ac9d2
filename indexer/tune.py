"""Finds the cheapest setting that reaches a wanted recall.

Recall rises with nprobe and with candidates, so the settings that just reach it form a staircase: as nprobe grows,
fewer candidates do. The search walks down this staircase with a bisection at each step instead of measuring the whole
grid, and takes the cheapest step. Half of the queries choose; the other half says what the choice is worth. Each
setting is measured as a tuned one, so each segment gets the share of the candidates that it will have when it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drdecr.errors import DrDecrError, UsageError
from drdecr.index.backend import SearchParams
from drdecr.index.snapshot import Snapshot
from drdecr.index.tuning import Tuning
from indexer.recall import Measured, RecallMeter

MIN_QUERIES = 20

_NPROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
_CANDIDATES = (10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 2000, 4000)
# Two steps in a row this much dearer than the best one: the staircase has passed its cheapest place.
_TOO_DEAR = 1.2


class UnreachableRecallError(DrDecrError):
    """No setting that was tried reached the wanted recall."""


@dataclass(frozen=True, slots=True)
class Step:
    """A setting and what it reached. `candidates` are those of a segment as large as the snapshot."""

    nprobe: int
    candidates: int
    recall: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class TuneReport:
    """The staircase, and the default and the chosen setting as measured on the queries that did not choose."""

    steps: list[Step]
    before: Measured
    after: Measured
    exact_ms: float
    tuning: Tuning


def tune(
    snapshot: Snapshot, meter: RecallMeter, k: int, wanted: float, advance: Callable[[int], None] = lambda _: None
) -> TuneReport:
    """Choose a setting for recall `wanted` at k; nothing is written.

    Raises: UsageError for too few queries or a snapshot without passages, UnreachableRecallError.
    """
    if not len(snapshot):
        raise UsageError(f"{snapshot.path} holds no passages, so there is nothing to tune")
    if len(meter) < MIN_QUERIES:
        raise UsageError(
            f"tuning needs at least {MIN_QUERIES} queries with tokens, found {len(meter)}; "
            "take real ones from your log, or see `drdecr index info --recall` for an estimate without queries"
        )
    choosing, judging = _halves(meter)
    tuning = Tuning(
        version=snapshot.version,
        passages=len(snapshot),
        k=k,
        nprobe=1,
        candidates=k,
        wanted_recall=wanted,
        recall=0.0,
        queries=len(judging),
        cpu_ms=0.0,
    )
    steps = _staircase(snapshot, choosing, tuning, advance)
    best = min(steps, key=lambda step: step.cpu_ms)
    tuning = _set_to(tuning, best.nprobe, best.candidates)
    after = judging.tuned(tuning).measure(SearchParams())
    tuning = tuning.model_copy(update={"recall": after.recall, "cpu_ms": after.cpu_ms})
    return TuneReport(steps, judging.measure(SearchParams()), after, round(meter.exact_ms, 3), tuning)


def _set_to(tuning: Tuning, nprobe: int, candidates: int) -> Tuning:
    return tuning.model_copy(update={"nprobe": nprobe, "candidates": candidates})


def _halves(meter: RecallMeter) -> tuple[RecallMeter, RecallMeter]:
    """Split the queries at random, but the hard ones evenly: a few queries miss most of the hits."""
    shuffled = np.random.default_rng(0).permutation(len(meter))
    missed = meter.missed(SearchParams(effort="fast"))
    order = shuffled[np.argsort(-missed[shuffled], kind="stable")]
    return meter.part(order[::2]), meter.part(order[1::2])


def _staircase(snapshot: Snapshot, meter: RecallMeter, tuning: Tuning, advance: Callable[[int], None]) -> list[Step]:
    k, wanted = tuning.k, tuning.wanted_recall
    lists = max(quantizer.lists for quantizer in snapshot.manifest.quantizers)
    nprobes = _ladder(_NPROBES, 1, lists)
    candidates = _ladder(_CANDIDATES, k, max(len(snapshot), k))
    measured: dict[tuple[int, int], Step] = {}

    def at(nprobe: int, place: int) -> Step:
        setting = nprobe, candidates[place]
        if setting not in measured:
            reached = meter.tuned(_set_to(tuning, *setting)).measure(SearchParams())
            measured[setting] = Step(*setting, reached.recall, reached.cpu_ms)
            advance(1)
        return measured[setting]

    steps: list[Step] = []
    most = len(candidates) - 1
    for nprobe in nprobes:
        if at(nprobe, most).recall < wanted:
            continue
        least = 0
        while least < most:
            middle = (least + most) // 2
            if at(nprobe, middle).recall >= wanted:
                most = middle
            else:
                least = middle + 1
        steps.append(at(nprobe, most))
        if min(step.cpu_ms for step in steps[-2:]) > _TOO_DEAR * min(step.cpu_ms for step in steps):
            break
    if not steps:
        best = max(measured.values(), key=lambda step: step.recall)
        raise UnreachableRecallError(
            f"no setting reached recall {wanted}: the best was {best.recall} with nprobe {best.nprobe} and "
            f"{best.candidates} candidates; ask for less"
        )
    return steps


def _ladder(values: tuple[int, ...], least: int, most: int) -> list[int]:
    """Keep the values in [least, most], and the bound that cuts them off."""
    inside = [value for value in values if least < value < most]
    return sorted({least, *inside, min(most, values[-1]) if most > least else least})
