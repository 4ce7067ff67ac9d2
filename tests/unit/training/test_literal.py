"""What the released code does, point by point, and its alignment against the algorithm as it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricated_encoder import make_encoder, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from drdecr.encoder.torch_runtime import load_model
from drdecr.errors import ModelError
from training.alignment import literal_alignment, take_aligned
from training.candidates.collator import TextInputs
from training.fresh import make_student
from training.literal import KEPT, MARKERS, SCORED, LiteralInputs, encode, scored_tokens
from training.losses.literal import LiteralTokenKD
from training.recipe import Literals, LiteralStage

PLAIN = Literals(
    code_point_markers=False, query_padding=False, passage_padding=False, zero_begin="none", zeros_score=False
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(9800)


def features(tokenizer: Any, *texts: str) -> dict[str, Tensor]:
    return dict(tokenizer(list(texts), padding=True, return_tensors="pt"))


def test_nothing_changes_with_every_switch_off(tokenizer: Any) -> None:
    plain = features(tokenizer, "music player", "x")
    found = LiteralInputs(PLAIN, tokenizer, 16, 16)(plain, "query")
    assert torch.equal(found["input_ids"], plain["input_ids"])
    assert torch.equal(found[SCORED], plain["attention_mask"].bool())
    assert torch.equal(found[KEPT], found[SCORED])


def test_code_points_mark_the_text_after_the_begin_token(tokenizer: Any) -> None:
    literals = PLAIN.model_copy(update={"code_point_markers": True})
    plain = features(tokenizer, "music", "x")
    for kind in ("query", "passage"):
        found = LiteralInputs(literals, tokenizer, 16, 16)(plain, kind)  # type: ignore[arg-type]
        ids, mask = found["input_ids"], found["attention_mask"]
        assert ids[:, 1].tolist() == [MARKERS[kind]] * 2  # type: ignore[index]
        assert torch.equal(ids[:, [0, *range(2, ids.shape[1])]], plain["input_ids"])
        assert mask.sum(1).tolist() == (plain["attention_mask"].sum(1) + 1).tolist()


def test_text_at_the_limit_keeps_its_end_token(tokenizer: Any) -> None:
    literals = PLAIN.model_copy(update={"code_point_markers": True})
    plain = features(tokenizer, "a longer text of many pieces", "x")
    length = plain["input_ids"].shape[1]
    found = LiteralInputs(literals, tokenizer, length, length)(plain, "query")
    assert found["input_ids"].shape[1] == length
    assert found["input_ids"][0, -1] == tokenizer.eos_token_id
    assert found["input_ids"][0, 2:-1].tolist() == plain["input_ids"][0, 1:-2].tolist()


def test_padding_is_scored_where_it_is_switched_on(tokenizer: Any) -> None:
    literals = PLAIN.model_copy(update={"query_padding": True})
    plain = features(tokenizer, "music", "x")
    query, passage = (LiteralInputs(literals, tokenizer, 16, 20)(plain, kind) for kind in ("query", "passage"))
    assert query["input_ids"].shape == (2, 16) and bool(query[SCORED].all())
    assert query["input_ids"][1, -1] == tokenizer.pad_token_id and query["attention_mask"][1, -1] == 0
    assert torch.equal(passage[SCORED], plain["attention_mask"].bool())


@pytest.mark.parametrize(("zero", "sides"), [("none", []), ("passages", ["passage"]), ("both", ["query", "passage"])])
def test_begin_token_is_zero_on_the_named_sides(tokenizer: Any, zero: str, sides: list[str]) -> None:
    literals = PLAIN.model_copy(update={"zero_begin": zero, "zeros_score": True})
    for kind in ("query", "passage"):
        found = LiteralInputs(literals, tokenizer, 16, 16)(features(tokenizer, "music"), kind)  # type: ignore[arg-type]
        tokens, mask = scored_tokens({**found, "token_embeddings": torch.ones(*found["input_ids"].shape, 3)})
        assert bool(mask[0, 0])
        assert bool((tokens[0, 0] == 0).all()) == (kind in sides)
        assert bool((tokens[0, 1:] == 1).all())
    hidden = PLAIN.model_copy(update={"zero_begin": "both"})
    found = LiteralInputs(hidden, tokenizer, 16, 16)(features(tokenizer, "music"), "query")
    assert found[SCORED][0].tolist()[:2] == [False, True]


def test_punctuation_is_skipped_by_its_first_piece_alone(tokenizer: Any) -> None:
    literals = PLAIN.model_copy(update={"partial_punctuation": True})
    plain = features(tokenizer, "a ! b")
    found = LiteralInputs(literals, tokenizer, 16, 16)(plain, "passage")
    dropped = plain["input_ids"][0][~found[KEPT][0]]
    # Encoded alone, a mark begins with the bare word sign: that is skipped, the mark itself is not.
    assert set(tokenizer.convert_ids_to_tokens(dropped)) == {"▁"}
    assert tokenizer.convert_tokens_to_ids("!") in plain["input_ids"][0][found[KEPT][0]]
    assert bool(LiteralInputs(literals, tokenizer, 16, 16)(plain, "query")[KEPT].all())


def test_vocabulary_without_the_markers_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a vocabulary of 2000 has no ids \(9748, 9749\)"):
        LiteralInputs(Literals(), make_tokenizer(2000), 16, 16)


def published_alignment(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> list[int]:
    """The algorithm in its own words, one text, one position at a time."""
    norms = [np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-8) for side in (teacher, student)]
    distance = 1 - (teacher / norms[0]) @ (student / norms[1]).T
    swaps = []
    for _ in range(len(distance)):
        i, j = np.unravel_index(np.argmin(distance), distance.shape)
        distance[[i, j]] = distance[[j, i]]
        distance[j, :] = 10
        distance[:, j] = 10
        swaps.append((i, j))
    order = list(range(len(distance)))
    for i, j in swaps:
        order[i], order[j] = order[j], order[i]
    return order


@given(seed=st.integers(0, 10_000), length=st.integers(1, 10), zeros=st.booleans())
@settings(deadline=None, max_examples=80)
def test_literal_alignment_is_the_published_algorithm(seed: int, length: int, zeros: bool) -> None:
    chance = torch.Generator().manual_seed(seed)
    teacher, student = (torch.randn(3, length, 5, generator=chance, dtype=torch.float64) for _ in range(2))
    if zeros:
        teacher[:, 0] = 0
        student[:, 0] = 0
    found = literal_alignment(student, teacher)
    for text in range(3):
        assert sorted(found[text].tolist()) == list(range(length))
        if not zeros:
            assert found[text].tolist() == published_alignment(teacher[text].numpy(), student[text].numpy())
            continue
        # Among equals, here all distances of 1, rounding decides; the cost is the same.
        unit = [side[text] / side[text].norm(dim=1, keepdim=True).clamp(min=1e-8) for side in (teacher, student)]
        expected = published_alignment(teacher[text].numpy(), student[text].numpy())
        costs = [float((unit[0][order] * unit[1]).sum()) for order in (found[text].tolist(), expected)]
        assert costs[0] == pytest.approx(costs[1], abs=1e-9)


def test_sides_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="both sides need one length, got 3 and 4"):
        literal_alignment(torch.randn(1, 3, 2), torch.randn(1, 4, 2))


def test_literal_token_kd_is_the_papers_formula(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "xlmr", pieces=9800)
    paths = [make_student(encoder, tmp_path / str(seed), dim=8, seed=seed, markers=False) for seed in (1, 2)]
    student, teacher = (load_model(path, device="cpu").eval() for path in paths)
    stage = LiteralStage(kind="literal-token-kd", name="a", steps=1, query_weight=0.25)
    inputs = TextInputs(student, 16, 24, LiteralInputs(stage.literal, student.tokenizer, 16, 24))
    columns = [
        inputs(["музыка", "что"], "query"),
        inputs(["music", "what"], "passage"),
        inputs(["music", "what"], "query"),
    ]
    terms = LiteralTokenKD(student, teacher, stage)(columns, torch.zeros(2, 1))
    with torch.no_grad():
        foreign, passage = encode(student, columns[0], "query"), encode(student, columns[1], "document")
        taught, read = encode(teacher, columns[2], "query"), encode(teacher, columns[1], "document")
        sides = [one["token_embeddings"] * one[KEPT].unsqueeze(-1) for one in (foreign, taught, passage, read)]
        aligned = take_aligned(sides[1], literal_alignment(sides[0], sides[1]))
        expected = [((sides[0] - aligned) ** 2).mean(), ((sides[2] - sides[3]) ** 2).mean()]
    assert foreign["token_embeddings"].shape == (2, 16, 8)
    torch.testing.assert_close(terms["token_query"].detach(), 0.25 * expected[0])
    torch.testing.assert_close(terms["token_passage"].detach(), 0.75 * expected[1])
