"""Any text that JSON can hold gets an answer from a real service: 200, or 422 where it is blank or no Unicode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from service_process import RunningService, running_service

MEGABYTE = 2**20
# Characters that have broken tokenizers: direction and joining marks, what an emoji is made of, halves of pairs.
ODD = "\u200e\u200f\u202e\u2066\u200d\ufe0f\u0301\u0e33\u0e4d\x00\x1b\x85\u00ad\ufeff\ufffd\ufffe👩🏽🇩🇪ﷺ\ud83d\ude00"
TEXTS = st.text(st.characters() | st.sampled_from(ODD), max_size=80)


@pytest.fixture(scope="module")
def service(tiny_student: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    log = tmp_path_factory.mktemp("any") / "log"
    options = ("--student", tiny_student, "--index", f"things={snapshot}")
    with running_service(log, *options, MAX_QUERY_CHARS="2000000", MAX_TEXT_CHARS="2000000") as service:
        yield service


def ask(service: RunningService, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a body with halves of surrogate pairs as JSON escapes; the client gives up after a minute."""
    answer = service.client.post(
        route, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {200, 422}, answer.text
    whole = not any(0xD800 <= ord(character) <= 0xDFFF for character in json.dumps(body, ensure_ascii=False))
    if whole and answer.status_code == 422:
        assert "blank" in answer.json()["detail"]
    return answer.json() if answer.status_code == 200 else {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, other=TEXTS)
@example(text="\u200f\u200e", other="\u202e")
@example(text="👩🏽‍💻" * 40, other="a\u0301" * 40)
@example(text="cats \ud83d", other="\ude00")
def test_any_text_is_answered(service: RunningService, text: str, other: str) -> None:
    wish = {"query": text, "k": 3, "highlight": True, "explain": True, "snippet": 40}
    for hit in ask(service, "/v1/indexes/things/search", wish).get("hits", []):
        assert hit["snippet"]["text"]
    for kind in ("query", "passage"):
        for embedding in ask(service, "/v1/encode", {"texts": [text], "kind": kind}).get("embeddings", []):
            assert all(0 <= start <= end <= len(text) for start, end in embedding["spans"])
    ask(service, "/v1/rerank", {"query": text, "texts": [other, text]})


@pytest.mark.parametrize("unit", ["ab ", "漢", " ", "👩🏽‍💻", "\u200f", "ᚠ"])
def test_megabyte_of_text_is_answered(service: RunningService, unit: str) -> None:
    text = unit * (MEGABYTE // len(unit.encode())) + " cats"
    answer = ask(service, "/v1/indexes/things/search", {"query": text, "k": 3})
    codes = [warning["code"] for warning in answer["warnings"]]
    assert codes == [] if text.strip() == "cats" else "query_truncated" in codes
    ask(service, "/v1/encode", {"texts": [text], "kind": "passage"})
    assert len(ask(service, "/v1/rerank", {"query": "cats", "texts": [text, "dogs"]})["results"]) == 2
