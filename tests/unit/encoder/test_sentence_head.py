"""The trainable part of the sentence vector: nothing until it is trained, and blind to what is not scored."""

from __future__ import annotations

import torch
from torch.nn import functional

from drdecr.encoder.sentence_head import SentenceHead


def trained_head() -> SentenceHead:
    head = SentenceHead(6, 4)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return head


def test_untrained_head_changes_nothing() -> None:
    sentence = functional.normalize(torch.randn(2, 6), dim=-1)
    assert torch.allclose(SentenceHead(6, 4)(sentence, torch.randn(2, 3, 4), torch.ones(2, 3).bool()), sentence)


def test_trained_head_corrects_by_the_mean_of_the_scored_tokens() -> None:
    head = trained_head()
    sentence, context = functional.normalize(torch.randn(2, 6), dim=-1), torch.randn(2, 3, 4)
    scored = torch.tensor([[True, False, True], [False, True, False]])
    mean = torch.stack([(context[0, 0] + context[0, 2]) / 2, context[1, 1]])
    expected = sentence + sentence @ head.own.weight.T + mean @ head.context.weight.T
    assert torch.allclose(head(sentence, context, scored), functional.normalize(expected, dim=-1), atol=1e-6)


def test_text_without_scored_tokens_keeps_a_unit_vector() -> None:
    vectors = trained_head()(torch.ones(1, 6), torch.randn(1, 2, 4), torch.zeros(1, 2).bool())
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(1))
