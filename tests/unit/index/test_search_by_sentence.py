"""Searches of a student with a closeness: all of a passage counts, and its best sentence once more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder

from drdecr.encoder.commands import write_vectors
from drdecr.encoder.windows import encode_windows
from drdecr.errors import SnapshotError
from drdecr.index import EXACT, SearchParams, Snapshot, manifest
from drdecr.index.manifest import read_manifest
from indexer.build import build, build_from_vectors
from indexer.change import add, delete
from indexer.compact import compact
from service.searching import relevance
from training.evaluation.ranking import relevance_of_passages

ENCODER = WordEncoder(16, 8, limit=30, closeness=0.4)


@pytest.fixture(params=[0, 8], ids=["tokens", "sentence vectors"])
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    return WordEncoder(16, request.param, limit=30, closeness=0.4)


def make_texts(count: int, seed: int = 0) -> dict[str, str]:
    """Make passages of 1 to 8 sentences of six words; some are longer than the encoder reads at a time."""
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        return " ".join(f"word{number}" for number in rng.integers(0, 300, 6)).capitalize() + "."

    return {f"p{seed}-{at}": " ".join(sentence() for _ in range(rng.integers(1, 9))) for at in range(count)}


QUESTIONS = [" ".join(f"word{n}" for n in np.random.default_rng(at).integers(0, 300, 5)) for at in range(30)]


def brute_force(encoder: WordEncoder, text: str, question: str) -> float:
    """Score a text by the definition in `EncoderSpec`, word by word."""
    query = encoder.encode([question], "query")
    windows = encode_windows(encoder, [text]).windows
    products = query.vectors @ windows.vectors.T
    bounds = list(zip(windows.offsets[:-1], windows.offsets[1:], strict=True))
    score = float(products.max(axis=1).sum())
    score += encoder.spec.closeness * max(float(products[:, low:high].max(axis=1).sum()) for low, high in bounds)
    if windows.sentences is not None and query.sentences is not None:
        best = float((windows.sentences @ query.sentences[0]).max())
        score += encoder.spec.sentence_weight * len(query.vectors) * best
    return score


def test_every_scorer_scores_as_the_definition_says(tmp_path: Path, encoder: WordEncoder) -> None:
    texts = make_texts(60)
    build(encoder, passage_file(tmp_path / "p.jsonl", texts), tmp_path / "snapshot")
    queries = encoder.encode(QUESTIONS[:5], "query")
    passages = encode_windows(encoder, list(texts.values()))
    ranked = relevance_of_passages(queries, passages, encoder.spec)
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        for query, hits in enumerate(snapshot.search(queries, 60, EXACT)):
            assert len(hits) == 60
            reranked = relevance(queries.select(query, query + 1), passages, encoder.spec)
            for hit in hits:
                wanted = brute_force(encoder, texts[hit.id], QUESTIONS[query])
                assert hit.score == pytest.approx(wanted, abs=5e-3)
                assert ranked[query, hit.position] == pytest.approx(wanted, abs=1e-4)
                assert reranked[hit.position] == pytest.approx(wanted, abs=1e-4)


def test_words_of_one_sentence_outrank_the_same_words_scattered(tmp_path: Path) -> None:
    filler = "Nothing of use stands in here at all."
    texts = {
        "scattered": f"The red house was empty. {filler} The quiet garden was wide.",
        "together": f"The red garden was wide. {filler} The quiet house was empty.",
    }
    words = WordEncoder(64, closeness=0.4)
    build(words, passage_file(tmp_path / "p.jsonl", texts), tmp_path / "snapshot")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        first, second = snapshot.search(words.encode(["red garden"], "query"), 2)[0]
        assert (first.id, second.id) == ("together", "scattered")
        assert first.window is not None and second.window is not None
        assert texts["together"][slice(*first.window)] == "The red garden was wide"
        assert texts["scattered"][slice(*second.window)] in ("The red house was empty", "The quiet garden was wide")
        # The explanation looks at the whole passage.
        query = words.encode(["red house"], "query")
        matches = snapshot.explain(query, first.position)
        assert [texts["together"][slice(*match.span)] for match in matches if match.span] == ["red", "house"]


def test_narrowed_search_finds_nearly_all_and_scores_exactly(tmp_path: Path, encoder: WordEncoder) -> None:
    build(encoder, passage_file(tmp_path / "p.jsonl", make_texts(1500)), tmp_path / "snapshot")
    queries = encoder.encode(QUESTIONS, "query")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        exact = snapshot.search(queries, 1500, EXACT)
        found = snapshot.search(queries, 10, SearchParams(nprobe=8, candidates=150))
        kept = [len({hit.id for hit in a[:10]} & {hit.id for hit in b}) for a, b in zip(exact, found, strict=True)]
        assert np.mean(kept) >= 9
        for every, hits in zip(exact, found, strict=True):
            scores = {hit.id: hit.score for hit in every}
            assert [scores[hit.id] for hit in hits] == [hit.score for hit in hits]


def test_changed_snapshots_answer_as_new_ones(tmp_path: Path, encoder: WordEncoder) -> None:
    left, right = make_texts(40, 1), make_texts(20, 2)
    path = tmp_path / "snapshot"
    build(encoder, passage_file(tmp_path / "left.jsonl", left), path)
    add(path, encoder, passage_file(tmp_path / "right.jsonl", right))
    delete(path, list(left)[::3])
    kept = {each: text for each, text in {**left, **right}.items() if each not in list(left)[::3]}
    build(encoder, passage_file(tmp_path / "all.jsonl", kept), tmp_path / "fresh")
    write_vectors(
        tmp_path / "v.npz", encode_windows(encoder, list(kept.values())), list(kept), encoder.spec, windows=True
    )
    build_from_vectors(tmp_path / "v.npz", tmp_path / "read")
    queries = encoder.encode(QUESTIONS[:4], "query")
    with Snapshot.open(tmp_path / "fresh") as fresh:
        wanted = [
            {hit.id: pytest.approx(hit.score, abs=1e-3) for hit in hits} for hits in fresh.search(queries, 99, EXACT)
        ]
    for change in (lambda: None, lambda: compact(path), lambda: compact(path, retrain=True, encoder=encoder)):
        change()
        for other in (path, tmp_path / "read"):
            with Snapshot.open(other, verify=True) as snapshot:
                assert [{hit.id: hit.score for hit in hits} for hits in snapshot.search(queries, 99, EXACT)] == wanted
    assert read_manifest(path).format_version == read_manifest(tmp_path / "read").format_version == 3


def test_older_programs_refuse_such_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(ENCODER, passage_file(tmp_path / "p.jsonl", make_texts(3)), tmp_path / "snapshot")
    assert json.loads((tmp_path / "snapshot/manifest.json").read_text())["student"]["closeness"] == 0.4
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 2)
    with pytest.raises(SnapshotError, match="has format 3, this program reads up to 2; upgrade drdecr"):
        Snapshot.open(tmp_path / "snapshot")
