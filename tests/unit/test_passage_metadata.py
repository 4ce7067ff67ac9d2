"""Metadata that a passage may bring, and what is refused because no filter could compare it."""

from __future__ import annotations

import json

import pytest

from drdecr.corpus import MAX_METADATA_DEPTH, passage_from_json
from drdecr.errors import InputError


def nested(depth: int) -> object:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": "x", "b": 1, "c": 0.5, "d": True, "e": None},
        {"tags": ["x", 2, True, None], "empty": []},
        {"author": {"name": "Ada", "born": {"year": 1815}}},
        {"n": 2**63 - 1, "m": -(2**63)},
        nested(MAX_METADATA_DEPTH),
    ],
)
def test_metadata_is_kept_as_it_came(metadata: dict) -> None:
    assert passage_from_json(json.dumps({"id": "p", "text": "t", "metadata": metadata})).metadata == metadata


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("[1]", "must be an object"),
        ('{"a": {"n": 9223372036854775808}}', r"`metadata\.a\.n` holds an integer of more than 64 bits"),
        ('{"n": NaN}', r"`metadata\.n` holds a number that is not finite"),
        ('{"n": [1e999]}', r"`metadata\.n` holds a number that is not finite"),
        ('{"a": [{"b": 1}]}', r"`metadata\.a` holds a list or an object within a list"),
        ('{"a": [[1]]}', r"`metadata\.a` holds a list or an object within a list"),
        ('{"a": "\\ud800"}', "half a surrogate"),
        (json.dumps(nested(MAX_METADATA_DEPTH + 1)), "nests more than 8 objects"),
        ('{"a":' * 900 + "1" + "}" * 900, "nests more than 8 objects"),
    ],
)
def test_what_no_filter_could_compare_is_refused(metadata: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        passage_from_json(f'{{"id": "p", "text": "t", "metadata": {metadata}}}')
