"""The n-gram stream: token features and the sentence vector of a convolutional multilingual encoder.

The architecture of Google's Universal Sentence Encoder, multilingual v3 (Yang et al. 2020): piece embeddings, three
convolution branches over 2, 3 and 5 neighbouring pieces, a deep averaging network on the scaled mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from drdecr.encoder.packing import Packing

# Width of a branch's window, and how many pieces of it lie left of the centre.
WINDOWS = ((2, 0), (3, 1), (5, 2))
_LAYER_NORM_EPS = 1e-12


class NgramStream(nn.Module):
    """Piece ids to token features and a sentence vector.

    The embedding table stays 8 bits wide: row v is `scale[v % chunks] * table[v] + offset[v % chunks]`, as its
    publisher quantised it. All parameters are frozen unless `requires_grad_` says otherwise.
    """

    table: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        pieces: int,
        *,
        width: int = 512,
        branch_width: int = 256,
        hidden: int = 320,
        chunks: int = 17,
        eps: float = _LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.width = width
        self.branch_width = branch_width
        self.register_buffer("table", torch.zeros(pieces, width, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(chunks))
        self.register_buffer("offset", torch.zeros(chunks))
        branches = len(WINDOWS) * branch_width
        self.reduce = nn.Linear(width, branches)
        self.reduce_norm = nn.LayerNorm(branches, eps=eps)
        self.first = nn.ModuleList(nn.Linear(size * branch_width, branch_width) for size, _ in WINDOWS)
        self.second = nn.ModuleList(nn.Linear(size * branch_width, branch_width) for size, _ in WINDOWS)
        self.norm = nn.LayerNorm(width + branches, eps=eps)
        self.out = nn.Linear(width + branches, width)
        self.hidden_0 = nn.Linear(width, hidden, bias=False)
        self.hidden_1 = nn.Linear(hidden, hidden, bias=False)
        self.skip_1 = nn.Linear(width, hidden, bias=False)
        self.hidden_2 = nn.Linear(hidden, width, bias=False)
        self.hidden_3 = nn.Linear(width, width, bias=False)
        self.skip_3 = nn.Linear(hidden, width, bias=False)
        self.requires_grad_(False)

    def embed(self, ids: Tensor) -> Tensor:
        """Dequantise the rows of some pieces: (…,) int64 -> (…, width) float32."""
        chunk = ids % len(self.scale)
        return self.table[ids].to(self.scale.dtype) * self.scale[chunk].unsqueeze(-1) + self.offset[chunk].unsqueeze(
            -1
        )

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pieces.

        Shapes: ids (batch, tokens) int64, mask (batch, tokens) 1 for real pieces. Returns token features
        (batch, tokens, width), L2-normalised, and sentence vectors (batch, width), L2-normalised.
        """
        real = mask.unsqueeze(-1).to(self.scale.dtype)
        tokens = self._tokens(ids, real, _windows)
        sentence = (tokens * real).sum(dim=1) * torch.rsqrt(real.sum(dim=1).clamp(min=1.0))
        return functional.normalize(tokens, dim=-1), self._average(sentence)

    def packed(self, ids: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Encode packed pieces: ids (packed,) -> token features (packed, width), sentence vectors (batch, width)."""
        tokens = self._tokens(ids, self.scale.new_ones(1), packing.windows)
        sentence = packing.pad(tokens).sum(dim=1) * torch.rsqrt(packing.mask.sum(dim=1, keepdim=True).clamp(min=1.0))
        return functional.normalize(tokens, dim=-1), self._average(sentence)

    def _tokens(self, ids: Tensor, real: Tensor, windows: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        """Give each piece its features, not normalised; `real` is 0 where what is computed is of padding."""
        embedded = self.embed(ids)
        reduced = self.reduce_norm(self.reduce(embedded)) * real
        columns = [embedded]
        for branch, (size, left) in enumerate(WINDOWS):
            start = branch * self.branch_width
            centre = reduced[..., start : start + self.branch_width]
            once = (torch.relu(self.first[branch](windows(centre, size, left))) + centre) * real
            columns.append(torch.relu(self.second[branch](windows(once, size, left))) + once)
        features: Tensor = self.out(self.norm(torch.cat(columns, dim=-1)))
        return features

    def _average(self, mean: Tensor) -> Tensor:
        hidden = torch.relu(self.skip_1(mean) + self.hidden_1(torch.relu(self.hidden_0(mean))))
        top = torch.tanh(self.skip_3(hidden) + self.hidden_3(torch.relu(self.hidden_2(hidden))))
        return functional.normalize(top, dim=-1)


def _windows(values: Tensor, size: int, left: int) -> Tensor:
    """Set each token beside its neighbours: (batch, tokens, width) -> (batch, tokens, size * width)."""
    tokens = values.shape[1]
    padded = functional.pad(values, (0, 0, left, size - 1 - left))
    return torch.cat([padded[:, shift : shift + tokens] for shift in range(size)], dim=-1)
