"""Searches of passages that are longer than the student reads: the best window scores, and the hit names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder, brute_force_windows

from drdecr.encoder.commands import write_vectors
from drdecr.encoder.windows import encode_windows
from drdecr.errors import InputError
from drdecr.index import EXACT, SearchParams, Snapshot
from drdecr.index.filters import parse_filter
from drdecr.index.query_source import encoded_queries
from indexer.build import build, build_from_vectors
from indexer.change import add, delete
from indexer.inspect import describe
from indexer.merge import merge

LIMIT = 8


@pytest.fixture(params=[0, 8], ids=["tokens", "sentences"])
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    return WordEncoder(16, request.param, limit=LIMIT)


def make_texts(count: int, seed: int = 0) -> dict[str, str]:
    """Make passages of 1 to 60 words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 61, count)
    return {
        f"p{seed}-{at}": " ".join(f"word{number}" for number in rng.integers(0, 400, length))
        for at, length in enumerate(lengths)
    }


def made(tmp_path: Path, encoder: WordEncoder, texts: dict[str, str], name: str = "snapshot") -> Path:
    report = build(encoder, passage_file(tmp_path / f"{name}.jsonl", texts), tmp_path / name)
    assert report.truncated == 0
    return tmp_path / name


def test_wide_open_search_is_brute_force_over_windows(tmp_path: Path, encoder: WordEncoder) -> None:
    texts = make_texts(120)
    encoded = encode_windows(encoder, list(texts.values()))
    queries = encoder.encode([" ".join(text.split()[-5:]) for text in list(texts.values())[:20]], "query")
    with Snapshot.open(made(tmp_path, encoder, texts), verify=True) as snapshot:
        (segment,) = snapshot.segments
        assert segment.record.windows == len(encoded.windows) > len(texts)
        assert describe(snapshot.path)["windows"] == len(encoded.windows)
        for query, hits in enumerate(snapshot.search(queries, 10, EXACT)):
            wanted = brute_force_windows(encoded, queries, query, 10)
            assert [(hit.position, pytest.approx(hit.score, abs=2e-3)) for hit in hits] == wanted


def test_windows_from_a_file_of_vectors_search_as_those_of_passages(tmp_path: Path, encoder: WordEncoder) -> None:
    texts = make_texts(120)
    encoded, file = encode_windows(encoder, list(texts.values())), tmp_path / "vectors.npz"
    write_vectors(file, encoded, list(texts), encoder.spec, windows=True)
    build_from_vectors(file, tmp_path / "from-vectors")
    queries = encoder.encode([" ".join(text.split()[-5:]) for text in list(texts.values())[:20]], "query")
    with (
        Snapshot.open(made(tmp_path, encoder, texts)) as whole,
        Snapshot.open(tmp_path / "from-vectors", verify=True) as read,
    ):
        assert read.search(queries, 10, EXACT) == whole.search(queries, 10, EXACT)
        assert any(hit.window for hits in read.search(queries, 10, EXACT) for hit in hits)
        with pytest.raises(InputError, match="--kind query"):
            encoded_queries(read, None, None, file, None)


def test_narrowed_search_finds_what_stands_at_the_end_of_long_passages(tmp_path: Path, encoder: WordEncoder) -> None:
    texts = make_texts(400)
    queries = encoder.encode([" ".join(text.split()[-5:]) for text in list(texts.values())[:50]], "query")
    with Snapshot.open(made(tmp_path, encoder, texts)) as snapshot:
        exact = snapshot.search(queries, 10, EXACT)
        found = snapshot.search(queries, 10, SearchParams(nprobe=4, candidates=60))
        kept = [len({hit.id for hit in a} & {hit.id for hit in b}) for a, b in zip(exact, found, strict=True)]
        assert np.mean(kept) >= 9
        scores = {(query, hit.id): hit.score for query, hits in enumerate(exact) for hit in hits}
        for query, hits in enumerate(found):
            for hit in hits:
                assert hit.score == pytest.approx(scores.get((query, hit.id), hit.score), abs=1e-4)


def test_hit_names_its_window_and_the_explanation_stays_inside(tmp_path: Path, encoder: WordEncoder) -> None:
    filler = " ".join(f"filler{number}" for number in range(40))
    texts = {"long": f"needle {filler} thread needle {filler}", "short": "a thread", "empty": "..."}
    query = encoder.encode(["thread needle"], "query")
    with Snapshot.open(made(tmp_path, encoder, texts)) as snapshot:
        best, second = snapshot.search(query, 10)[0]
        assert (best.id, second.id) == ("long", "short")
        assert second.window is None
        assert best.window is not None
        start, end = best.window
        assert "thread needle" in texts["long"][start:end]
        assert len(texts["long"][start:end].split()) <= LIMIT
        matches = snapshot.explain(query, best.position)
        assert [texts["long"][slice(*match.span)] for match in matches if match.span] == ["thread", "needle"]
        assert all(match.span and start <= match.span[0] < match.span[1] <= end for match in matches)
        # Of the passage's needles the one in the best window, although the first is as good.
        assert matches[1].passage_token > 40


def test_filter_keeps_whole_passages(tmp_path: Path, encoder: WordEncoder) -> None:
    texts = make_texts(300)
    encoded = encode_windows(encoder, list(texts.values()))
    queries = encoder.encode(["word1 word2 word3", "word200 word300"], "query")
    names = list(texts)
    wanted = parse_filter({"must": [{"field": "words", "range": {"gte": 30}}]})
    with Snapshot.open(made(tmp_path, encoder, texts)) as snapshot:
        for query, hits in enumerate(snapshot.search(queries, 5, EXACT, filter=wanted)):
            kept = [
                names[at]
                for at, _ in brute_force_windows(encoded, queries, query, len(names))
                if len(texts[names[at]].split()) >= 30
            ]
            assert [hit.id for hit in hits] == kept[:5]


def test_merged_and_changed_snapshots_keep_their_windows(tmp_path: Path, encoder: WordEncoder) -> None:
    left, right, more = make_texts(40, 1), make_texts(40, 2), make_texts(10, 3)
    first, second = made(tmp_path, encoder, left, "left"), made(tmp_path, encoder, right, "right")
    merge(tmp_path / "merged", [first, second])
    add(tmp_path / "merged", encoder, passage_file(tmp_path / "more.jsonl", more))
    gone = list(left)[::3]
    delete(tmp_path / "merged", gone)
    kept = {each: text for each, text in {**left, **right, **more}.items() if each not in gone}
    whole = made(tmp_path, encoder, kept, "whole")
    queries = encoder.encode(["word1 word2 word3", "word200 word300"], "query")
    with Snapshot.open(whole) as fresh, Snapshot.open(tmp_path / "merged", verify=True) as merged:
        for ours, theirs in zip(merged.search(queries, 100, EXACT), fresh.search(queries, 100, EXACT), strict=True):
            assert {hit.id: (pytest.approx(hit.score, abs=1e-3), hit.window) for hit in ours} == {
                hit.id: (hit.score, hit.window) for hit in theirs
            }
