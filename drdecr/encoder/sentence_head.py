"""The trainable part of the embedded student's sentence vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SentenceHead(nn.Module):
    """Correct the multilingual encoder's sentence vector by itself and by the mean contextual token.

    sentence = normalise(s + A s + B mean(context)); A and B start at zero, so that an untrained head changes
    nothing.
    """

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width, bias=False)
        self.context = nn.Linear(context_width, width, bias=False)
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.context.weight)

    @property
    def is_idle(self) -> bool:
        """Whether it still changes nothing, so that the sentence vector needs no contextual token."""
        return not (bool(self.own.weight.any()) or bool(self.context.weight.any()))

    def forward(self, sentence: Tensor, context: Tensor, scored: Tensor) -> Tensor:
        """Return sentence vectors (batch, width), L2-normalised.

        Shapes: sentence (batch, width), context (batch, tokens, context width), scored (batch, tokens) bool.
        """
        counted = scored.unsqueeze(-1).to(context.dtype)
        mean = (context * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)
        return functional.normalize(sentence + self.own(sentence) + self.context(mean), dim=-1)
