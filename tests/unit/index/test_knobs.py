"""What effort, k, size and a tuned setting make of the knobs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drdecr.errors import UsageError
from drdecr.index import SearchParams
from drdecr.index.backend import EFFORTS
from drdecr.index.knobs import knobs_for
from drdecr.index.tuning import Tuning

TUNED = Tuning(
    version="v", passages=20_000, k=10, nprobe=5, candidates=40, wanted_recall=0.9, recall=0.9, queries=50, cpu_ms=1.0
)
tunings = st.none() | st.builds(
    lambda nprobe, candidates: TUNED.model_copy(update={"nprobe": nprobe, "candidates": candidates}),
    st.integers(1, 500),
    st.integers(10, 5000),
)


@given(st.integers(1, 10**8), st.integers(1, 1000), tunings)
def test_more_effort_never_looks_less_far(passages: int, k: int, tuning: Tuning | None) -> None:
    lists = max(1, passages // 5)
    levels = [knobs_for(SearchParams(effort=name), k, passages, lists, tuning) for name in EFFORTS]
    for (nprobe, candidates), (wider, more) in pairwise(levels):
        assert nprobe <= wider <= lists
        assert min(k, passages) <= candidates <= more <= passages


@given(st.sampled_from(EFFORTS), tunings)
def test_larger_collections_and_more_hits_take_more_candidates(effort: str, tuning: Tuning | None) -> None:
    params = SearchParams(effort=effort)  # type: ignore[arg-type]
    sizes = [knobs_for(params, 10, passages, 10**6, tuning)[1] for passages in (10**4, 10**5, 10**6)]
    pages = [knobs_for(params, k, 10**6, 10**6, tuning)[1] for k in (10, 100, 1000)]
    assert sizes == sorted(sizes) and pages == sorted(pages)
    assert sizes[0] < sizes[-1] and pages[0] < pages[-1]


def test_given_knobs_win_over_effort_and_tuning() -> None:
    params = SearchParams(nprobe=3, candidates=77, effort="thorough")
    assert knobs_for(params, 10, 10**5, 1000, TUNED) == (3, 77)
    assert knobs_for(SearchParams(nprobe=3), 10, 20_000, 1000, TUNED) == (3, 40)


def test_tuned_setting_is_what_balanced_means() -> None:
    for params in (SearchParams(), SearchParams(effort="balanced")):
        assert knobs_for(params, 10, 20_000, 1000, TUNED) == (5, 40)


def test_tuned_candidates_grow_with_the_collection_and_k() -> None:
    for passages, k in ((200_000, 10), (20_000, 100)):
        untuned = knobs_for(SearchParams(), k, passages, 1000, None)[1]
        grown = untuned / knobs_for(SearchParams(), 10, 20_000, 1000, None)[1]
        assert knobs_for(SearchParams(), k, passages, 1000, TUNED)[1] == pytest.approx(40 * grown, rel=0.02)


def test_tuned_setting_bounds_the_other_efforts() -> None:
    wide = TUNED.model_copy(update={"nprobe": 200, "candidates": 9000})
    assert knobs_for(SearchParams(effort="thorough"), 10, 20_000, 1000, wide) == (200, 9000)
    fast = SearchParams(effort="fast")
    assert knobs_for(fast, 10, 20_000, 1000, wide) == knobs_for(fast, 10, 20_000, 1000, None)
    assert knobs_for(fast, 10, 20_000, 1000, TUNED) == (5, 40)


def test_unknown_effort_is_refused() -> None:
    with pytest.raises(UsageError, match="fast, balanced, thorough, got 'furious'"):
        SearchParams(effort="furious")  # type: ignore[arg-type]


def test_sentence_vectors_save_a_third_of_the_candidates_of_all_but_a_thorough_search() -> None:
    for effort, share in (("fast", 2 / 3), ("balanced", 2 / 3), ("thorough", 1.0)):
        params = SearchParams(effort=effort)
        alone, with_sentences = (knobs_for(params, 10, 10**4, 1000, None, sentences=own) for own in (False, True))
        assert with_sentences == (alone[0], round(share * alone[1]))
    assert knobs_for(SearchParams(candidates=70), 10, 10**4, 1000, None, sentences=True)[1] == 70
    assert knobs_for(SearchParams(), 10, 10**4, 1000, TUNED, sentences=True) == knobs_for(
        SearchParams(), 10, 10**4, 1000, TUNED
    )
