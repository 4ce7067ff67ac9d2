"""Filters as JSON: what is accepted, and how an error names its place."""

from __future__ import annotations

import json

import pytest
from fabricated_filters import FILTERS
from hypothesis import given

from drdecr.errors import UsageError
from drdecr.index.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_TEXT_CHARS, MAX_VALUES, parse_filter


@given(FILTERS)
def test_canonical_json_is_the_filter_itself(wanted: dict) -> None:
    parsed = parse_filter(wanted)
    again = parse_filter(json.loads(parsed.canonical))
    assert again == parsed
    assert again.canonical == parsed.canonical


def test_order_of_keys_does_not_make_another_filter() -> None:
    one = parse_filter({"must": [{"field": "a", "eq": 1}], "must_not": []})
    assert one.canonical == parse_filter({"must_not": [], "must": [{"eq": 1, "field": "a"}]}).canonical


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), ("1", 1), (None, "null")])
def test_values_of_different_kinds_make_different_filters(one: object, other: object) -> None:
    filters = [parse_filter({"must": [{"field": "a", "eq": value}]}) for value in (one, other)]
    assert filters[0].canonical != filters[1].canonical


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "filter: "),
        (3, "filter: "),
        ({"musst": []}, "filter.musst: "),
        ({"field": "a", "eq": 1}, "filter."),
        ({"must": {}}, "filter.must: "),
        ({"must": [3]}, r"filter.must\[0\]: must be an object"),
        ({"must": [{"eq": 1}]}, r"filter.must\[0\].field: "),
        ({"must": [{"field": "", "eq": 1}]}, r"filter.must\[0\].field: "),
        ({"must": [{"field": "a"}]}, r"filter.must\[0\]: give exactly one of eq, in, range"),
        ({"must": [{"field": "a", "eq": 1, "in": [1]}]}, r"filter.must\[0\]: give exactly one"),
        ({"must": [{"field": "a", "eq": 1, "must": []}]}, r"filter.must\[0\].must: "),
        ({"must": [{"field": "a", "eq": [1]}]}, r"filter.must\[0\].eq: must be a text, a number"),
        ({"must": [{"field": "a", "eq": float("nan")}]}, r"eq: must be a finite number"),
        ({"must": [{"field": "a", "eq": 2**63}]}, r"eq: an integer has at most 64 bits"),
        ({"must": [{"field": "a", "eq": "x" * (MAX_TEXT_CHARS + 1)}]}, "at most 512 characters"),
        ({"must": [{"field": "a", "eq": "\ud800"}]}, "half a surrogate pair"),
        ({"must": [{"field": "\ud800", "eq": 1}]}, r"filter.must\[0\].field: "),
        ({"must": [{"field": "a", "in": None}]}, r"filter.must\[0\].in: "),
        ({"must": [{"field": "a", "in": [1, {}]}]}, r"filter.must\[0\].in\[1\]: "),
        ({"must": [{"field": "a", "in": [[]] * 100}]}, "filter: the values of `in` must be"),
        ({"must": [{"field": "a", "range": {}}]}, r"filter.must\[0\].range: give at least one"),
        ({"must": [{"field": "a", "range": None}]}, r"filter.must\[0\].range: "),
        ({"must": [{"field": "a", "range": {"gt": 1, "gte": 2}}]}, r"range: give gt or gte"),
        ({"must": [{"field": "a", "range": {"gt": 1, "lt": "2"}}]}, r"range: both bounds"),
        ({"must": [{"field": "a", "range": {"gt": True}}]}, r"range.gt: must be a text or a number"),
        ({"must": [{"field": "a", "range": {"gt": None}}]}, r"range.gt: must be a text or a number"),
        ({"should": []}, "filter.should: "),
        (
            {"must_not": [{"should": [{"must": [{"field": "a"}]}]}]},
            r"filter.must_not\[0\].should\[0\].must\[0\]: give",
        ),
        ({"must": [{"field": "a", "eq": 1}] * (MAX_CONDITIONS + 1)}, "filter: holds more than"),
        ({"must": [{"field": "a", "in": list(range(MAX_VALUES // 2 + 1))}] * 2}, "filter: holds more than"),
    ],
)
def test_error_names_the_place(wanted: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_filter(wanted)


def test_depth_has_a_limit() -> None:
    def nested(depth: int) -> dict:
        return {"must": [nested(depth - 1)]} if depth else {"field": "a", "eq": 1}

    parse_filter(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 50):
        with pytest.raises(UsageError, match=f"filter: groups nest at most {MAX_DEPTH} deep"):
            parse_filter(nested(depth))
