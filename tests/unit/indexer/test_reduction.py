"""Snapshots of fewer dimensions and pooled tokens: what they hold, what they find, what they refuse."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder, encoded, save_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.encoder.types import Encoded
from drdecr.encoder.windows import Windowed
from drdecr.errors import ModelMismatchError, ResourceError, SnapshotError, UsageError
from drdecr.index import EXACT, Snapshot, manifest
from drdecr.index.manifest import read_manifest
from drdecr.index.reduction import Reduction
from indexer.build import build, build_from_vectors
from indexer.change import add
from indexer.compact import compact
from indexer.inspect import describe
from indexer.merge import merge
from indexer.pooling import clusters, reduce_passages

ENCODER = WordEncoder(dim=16, sentence_dim=4, limit=12)
TEXTS = {f"p{i}": f"kettle kettle word{i} word{i + 1} sea" for i in range(8)}


def shortened(texts: Encoded, dims: int) -> Encoded:
    """Truncate and normalise as the student's own `dim` does."""
    cut = texts.vectors[:, :dims]
    return replace(texts, vectors=cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-9))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_fewer_dimensions_rank_as_vectors_that_were_cut_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dims = data.draw(st.integers(1, 12))
    passages = encoded(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=20)), 12, seed=1)
    queries = encoded([5, 1], 12, seed=2)
    home = tmp_path_factory.mktemp("dims")
    build_from_vectors(save_vectors(home / "whole.npz", passages), home / "cut", dims=dims)
    build_from_vectors(save_vectors(home / "cut.npz", shortened(passages, dims)), home / "expected")
    with Snapshot.open(home / "cut") as cut, Snapshot.open(home / "expected") as expected:
        assert cut.manifest.dim == dims
        found = cut.search(queries, 10, EXACT)
        wanted = expected.search(shortened(queries, dims), 10, EXACT)
        for mine, theirs in zip(found, wanted, strict=True):
            assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], abs=2e-3)
            least = theirs[-1].score + 4e-3 if theirs else 0
            assert {hit.id for hit in theirs if hit.score > least} <= {hit.id for hit in mine}


def test_query_weights_stay_when_queries_are_shortened() -> None:
    vectors = encoded([6], 8, seed=3).vectors * np.linspace(0.5, 1.5, 6, dtype=np.float32)[:, None]
    cut = Reduction(dims=3).shorten(vectors)
    assert cut.shape == (6, 3)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), np.linspace(0.5, 1.5, 6), rtol=1e-5)
    np.testing.assert_array_equal(Reduction(dims=3).shorten(cut), cut)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.floats(1, 16), st.integers(0, 99))
def test_pooling_keeps_one_of_so_many_tokens_and_loses_none(lengths: list[int], pool: float, seed: int) -> None:
    texts = encoded(lengths, 8, seed=seed)
    tokens = len(texts.vectors)
    spans = np.column_stack([np.arange(tokens), np.arange(tokens) + 1]).astype(np.int32)
    pooled = reduce_passages(Windowed.whole(replace(texts, spans=spans)), Reduction(pool=pool))
    for number, length in enumerate(lengths):
        own = pooled.windows.tokens_of(number)
        assert len(own) <= max(int(length // pool), 1) and (len(own) > 0) == (length > 0)
        np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-4)
        if pool == 1:
            continue
        assert pooled.members is not None
        members = pooled.members[number]
        assert members[:, 1].tolist() == list(range(texts.offsets[number], texts.offsets[number + 1]))
        assert set(members[:, 0].tolist()) == set(range(len(own)))
        for row in range(len(own)):
            total = texts.vectors[members[members[:, 0] == row, 1]].sum(axis=0)
            np.testing.assert_allclose(own[row], total / np.linalg.norm(total), atol=1e-4)


def test_equal_and_opposite_tokens_are_pooled_too() -> None:
    same = np.tile(np.eye(4, dtype=np.float32)[0], (9, 1))
    assert clusters(same, 3).max() < 3
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    texts = replace(encoded([2], 2), vectors=opposite)
    assert np.isfinite(reduce_passages(Windowed.whole(texts), Reduction(pool=2)).windows.vectors).all()


def test_explanations_name_every_token_that_a_pooled_vector_stands_for(tmp_path: Path) -> None:
    long = "sea salt kettle " * 9
    texts = TEXTS | {"long": long.strip()}
    build(ENCODER, passage_file(tmp_path / "passages.jsonl", texts), tmp_path / "snapshot", pool=1.25)
    query = ENCODER.encode(["kettle"], "query")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        for passage_id, text in texts.items():
            position = snapshot.position(passage_id)
            assert position is not None
            (match,) = snapshot.explain(query, position)
            assert match.span is not None
            words = [text[slice(*span)] for span in (match.span, *match.also)]
            assert set(words) == {"kettle"} and len(words) >= 2
            assert match.score == pytest.approx(1, abs=1e-3)
        hit = snapshot.search(query, 1, EXACT)[0][0]
        windows = [hit.window for hit in snapshot.search(query, 9, EXACT)[0] if hit.id == "long"]
        assert hit.score > 0 and windows[0] is not None
        assert "kettle" in long[slice(*windows[0])]


@pytest.mark.parametrize(("dims", "pool"), [(5, 1.0), (None, 2.0), (8, 1.5)])
def test_changes_keep_what_the_build_chose(tmp_path: Path, dims: int | None, pool: float) -> None:
    first, rest = dict(list(TEXTS.items())[:3]), dict(list(TEXTS.items())[3:])
    changed, fresh = tmp_path / "changed", tmp_path / "fresh"
    build(ENCODER, passage_file(tmp_path / "first.jsonl", first), changed, dims=dims, pool=pool)
    add(changed, ENCODER, passage_file(tmp_path / "rest.jsonl", rest))
    build(ENCODER, passage_file(tmp_path / "all.jsonl", TEXTS), fresh, dims=dims, pool=pool)
    build(ENCODER, passage_file(tmp_path / "first.jsonl", first), tmp_path / "one", dims=dims, pool=pool)
    build(ENCODER, passage_file(tmp_path / "rest.jsonl", rest), tmp_path / "two", dims=dims, pool=pool)
    merge(tmp_path / "merged", [tmp_path / "one", tmp_path / "two"])
    query = ENCODER.encode(["kettle word3", "sea"], "query")

    def answers(path: Path) -> list[list[tuple[str, float, tuple[int, int] | None]]]:
        with Snapshot.open(path, verify=True) as opened:
            hits = opened.search(query, 8, EXACT)
            assert opened.manifest.reduction == Reduction(dims=dims, pool=pool)
            assert opened.manifest.format_version == 2
            return [
                [(hit.id, round(hit.score, 3), opened.explain(query, hit.position, text=at)[0].span) for hit in some]
                for at, some in enumerate(hits)
            ]

    wanted = answers(fresh)
    assert answers(changed) == wanted and answers(tmp_path / "merged") == wanted
    compact(changed, retrain=True)
    assert answers(changed) == wanted
    facts = describe(changed)
    assert (facts["dim"], facts["dims"], facts["pool"]) == (16, dims or 16, pool)


def test_snapshots_of_other_reductions_are_not_merged(tmp_path: Path) -> None:
    build(ENCODER, passage_file(tmp_path / "a.jsonl", {"a": "one"}), tmp_path / "a", dims=8)
    build(ENCODER, passage_file(tmp_path / "b.jsonl", {"b": "two"}), tmp_path / "b")
    with pytest.raises(ModelMismatchError, match=r"--dims 16, --pool 1.*--dims 8, --pool 1"):
        merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])


def test_a_program_of_format_1_refuses_a_reduced_snapshot_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = passage_file(tmp_path / "passages.jsonl", TEXTS)
    build(ENCODER, file, tmp_path / "whole", dims=16, pool=1)
    build(ENCODER, file, tmp_path / "reduced", dims=8)
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 1)
    assert read_manifest(tmp_path / "whole").format_version == 1
    with pytest.raises(SnapshotError, match="has format 2, this program reads up to 1; upgrade"):
        read_manifest(tmp_path / "reduced")


@pytest.mark.parametrize(
    ("dims", "pool", "message"),
    [
        (17, 1.0, "dims must be 1 to 16, the dimensions of words; got 17"),
        (0, 1.0, "dims must be 1 to 16"),
        (8, 0.5, r"pool must be 1 \(no pooling\) to 16, got 0.5"),
        (8, float("nan"), "pool must be 1"),
        (8, 17.0, "pool must be 1"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(tmp_path: Path, dims: int, pool: float, message: str) -> None:
    file = passage_file(tmp_path / "passages.jsonl", TEXTS)
    with pytest.raises(UsageError, match=message):
        build(ENCODER, file, tmp_path / "out", dims=dims, pool=pool)
    assert not (tmp_path / "out").exists()


def test_pooling_without_scipy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    file = passage_file(tmp_path / "passages.jsonl", TEXTS)
    with pytest.raises(ResourceError, match=r"pip install 'drdecr\[pool\]'"):
        build(ENCODER, file, tmp_path / "out", pool=2)
