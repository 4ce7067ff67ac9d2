"""Computing on the real tokens of a padded batch alone, as training does: half of a batch and more is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_ATTENTION = "drdecr-packed"
# What a query gives to padding; finite, so that a text without tokens leaves no NaN among the gradients.
_NEVER = torch.finfo(torch.bfloat16).min
# Under autocast, rows are filled up to a multiple of this. On a processor, oneDNN compiles a product in 16 bits for
# each number of rows it meets: some 5 ms, several times what the product takes.
_FILLED_TO = 64


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the real tokens of a padded batch are. A packed tensor has one row for each of them, text by text.

    Under autocast, rows follow that stand for no token: no text reads them, and they get no gradient.
    """

    mask: Tensor
    real: Tensor
    """The places of the real tokens among all tokens of the batch, (real tokens,) int64."""
    filler: int
    """How many rows of a packed tensor stand for no token: packed is the sum of both."""

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """Pack by a mask, (batch, tokens), nonzero where a token is real; texts are padded at their end."""
        mask = mask.bool()
        real = mask.flatten().nonzero().squeeze(1)
        return cls(mask, real, -len(real) % _FILLED_TO if torch.is_autocast_enabled(mask.device.type) else 0)

    @property
    def positions(self) -> Tensor:
        """The place of each packed token in its text, (packed,) int64."""
        return functional.pad(self.real % self.mask.shape[1], (0, self.filler))

    def windows(self, packed: Tensor, size: int, left: int) -> Tensor:
        """Set each token beside its neighbours, of which `left` lie before it, with zeros beyond the ends of a text.

        (packed, width) -> (packed, size * width).
        """
        shifts = torch.arange(-left, size - left, device=packed.device)
        lengths = functional.pad(self.mask.sum(1)[self.real // self.mask.shape[1]], (0, self.filler))
        places = self.positions.unsqueeze(1) + shifts
        inside = (places >= 0) & (places < lengths.unsqueeze(1))
        rows = torch.arange(len(packed), device=packed.device).unsqueeze(1) + shifts
        return functional.embedding(rows.where(inside, len(packed)), functional.pad(packed, (0, 0, 0, 1))).flatten(1)

    def pack(self, padded: Tensor) -> Tensor:
        """Take the real tokens: (batch, tokens, …) -> (packed, …)."""
        rows = padded.flatten(0, 1).index_select(0, self.real)
        return torch.cat([rows, rows.new_zeros(self.filler, *rows.shape[1:])]) if self.filler else rows

    def pad(self, packed: Tensor) -> Tensor:
        """Put packed tokens back, with zeros for the padding: (packed, …) -> (batch, tokens, …)."""
        tokens = packed[: len(self.real)]
        places: Tensor = packed.new_zeros(self.mask.numel(), *packed.shape[1:]).index_copy_(0, self.real, tokens)
        return places.view(*self.mask.shape, *packed.shape[1:])


def attend_packed(model: PreTrainedModel) -> None:
    """Let a model be called with `packing=` and texts packed into one row; called without, it computes as before."""
    model.set_attn_implementation(_ATTENTION)


def attends_packed(model: PreTrainedModel) -> bool:
    """Tell whether `attend_packed` was called for a model, and nothing has changed that since."""
    return bool(model.config._attn_implementation == _ATTENTION)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend within each text. Shapes: query, key, value (1, heads, packed, dim) -> (1, packed, heads, dim)."""
    packing: Packing | None = settings.pop("packing", None)
    if packing is None:
        attended: tuple[Tensor, Tensor | None] = sdpa_attention_forward(module, query, key, value, mask, **settings)
        return attended
    query, key, value = (packing.pad(each.squeeze(0).transpose(0, 1)).transpose(1, 2) for each in (query, key, value))
    real = packing.mask[:, None, None, :]
    if query.device.type == "cpu":
        # The backward pass of torch's fused attention takes longer there than all else together.
        weights = (query @ key.transpose(2, 3) * settings["scaling"]).masked_fill(~real, _NEVER).softmax(-1)
        together = functional.dropout(weights, settings["dropout"], module.training) @ value
    else:
        together = functional.scaled_dot_product_attention(
            query, key, value, real, settings["dropout"], scale=settings["scaling"]
        )
    return packing.pack(together.transpose(1, 2)).unsqueeze(0), None


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
