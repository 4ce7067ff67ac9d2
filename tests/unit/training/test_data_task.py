"""The rules that every data set keeps."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drdecr.corpus import ParallelPair, Passage
from drdecr.errors import UsageError
from training.data.groups import Groups, is_held_out
from training.data.languages import DEFAULT_LANGUAGES, parse_languages
from training.data.task import DataSet, TaskQuery, cap_by_language, choose_demo, texts_on_both_sides
from training.data.texts import paragraph_keys, text_key

HELD_OUT = TaskQuery("q", "Start zone", {"de": "Zone starten"}, ("p",))
ANSWER = Passage("p", "Waters one zone.\n\nThen stops.")


def data_set(
    *,
    train: list[TaskQuery] | None = None,
    train_passages: list[Passage] | None = None,
    pair: tuple[str, str] | None = None,
) -> DataSet:
    return DataSet(
        name="x",
        passages=[ANSWER, *(train_passages or [])],
        demo=[ANSWER],
        train_passages=train_passages or [],
        train=train or [],
        test=[HELD_OUT],
        pairs={"de": [ParallelPair("x", *pair)] if pair else []},
    )


@pytest.mark.parametrize(
    "leak",
    [
        data_set(pair=("start  ZONE", "anders")),
        data_set(pair=("other", "zone starten")),
        data_set(pair=("Then stops.", "anders")),
        data_set(pair=("Waters one zone. Then stops.", "anders")),
        data_set(train=[TaskQuery("t", "other", {"de": "Zone starten"}, ())]),
        data_set(train=[TaskQuery("t", "other", {"de": "anders"}, ("p",))]),
        data_set(train_passages=[Passage("t", "Then stops.")]),
        data_set(train_passages=[Passage("t", "Something.\n\nwaters one zone.")]),
    ],
)
def test_a_text_on_both_sides_is_seen(leak: DataSet) -> None:
    assert texts_on_both_sides(leak)


def test_texts_on_one_side_are_no_leak() -> None:
    clean = data_set(
        pair=("other", "anders"),
        train=[TaskQuery("t", "one", {"de": "eins"}, ("t",))],
        train_passages=[Passage("t", "Something.")],
    )
    assert texts_on_both_sides(clean) == set()


def test_text_key_ignores_case_space_and_composition() -> None:
    assert text_key("  Cafe\u0301\nAu Lait ") == text_key("CAFÉ AU  lait")


def test_paragraphs_are_parted_by_blank_lines_only() -> None:
    assert paragraph_keys("One\nline.\n \nTwo.") == {"one line. two.", "one line.", "two."}


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=20))
def test_groups_are_the_connected_components(joins: list[list[int]]) -> None:
    groups = Groups()
    component = {item: {item} for item in range(31)}
    for items in joins:
        groups.join(items)
        merged = set().union(*(component[item] for item in items))
        for item in merged:
            component[item] = merged
    for one in range(31):
        for other in range(31):
            assert (groups.root(one) == groups.root(other)) == (other in component[one])


def test_held_out_share_is_kept_on_many_keys() -> None:
    held_out = sum(is_held_out(f"key {number}", 0.2) for number in range(5000))
    assert 900 < held_out < 1100
    assert not is_held_out("anything", 0.0)
    assert is_held_out("anything", 1.0)


@given(st.lists(st.sets(st.sampled_from(["de", "ja", "zh"]), min_size=1), max_size=40), st.integers(1, 10))
def test_cap_takes_as_many_as_allowed_of_every_language(languages: list[set[str]], limit: int) -> None:
    queries = [TaskQuery(f"q{n}", "x", dict.fromkeys(sorted(some), "y"), ()) for n, some in enumerate(languages)]
    offered = Counter(lang for some in languages for lang in some)
    kept = Counter(lang for query in cap_by_language(queries, limit) for lang in query.translations)
    assert kept == {lang: min(limit, count) for lang, count in offered.items()}


def test_demo_prefers_answers_then_the_worthiest() -> None:
    passages = [Passage(name, "text") for name in "abcd"]
    assert [one.id for one in choose_demo(passages, ["d"], {"b": 5, "a": 1}, 2)] == ["b", "d"]
    assert [one.id for one in choose_demo(passages, ["c", "d"], {}, 1)] == ["c", "d"]


def test_languages_keep_their_order_without_repeats() -> None:
    assert parse_languages(" ko,ja ,ko") == ("ko", "ja")
    assert parse_languages(None) == DEFAULT_LANGUAGES


@pytest.mark.parametrize("option", ["", " , ", "en", "de,EN", "zh_CN", "../x"])
def test_something_else_than_language_codes_is_bad_usage(option: str) -> None:
    with pytest.raises(UsageError, match="--languages"):
        parse_languages(option)
