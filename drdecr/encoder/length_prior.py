"""Take back from long passages what MaxSim gives them for their length alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

# Passages of so many tokens get neither more nor less.
_USUAL_TOKENS = 128
# What the last dimension of a passage's vector, whose length is 1, holds at the most: the rest is what the text says.
_LARGEST = 0.5


class LengthPrior(BaseModel):
    """How much less a passage is worth for every token that it has more.

    A query token's best match among t random ones is the better the more there are, by about the logarithm of t, so
    that long passages outrank short ones. `penalty` x log(t + `offset`) is subtracted from the mean token score; the
    offset spares short texts, whose lengths differ by their nature.

    It lies in the last dimension of the sentence vectors, so that index and formula need not know: a passage's holds
    the penalty over the sentence weight, at most 0.5 of either sign, a query's holds 1, and the dot product adds it
    to the score. What the model itself has in that dimension is dropped, and the rest of a passage's vector scaled
    so that its length stays 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    penalty: float = Field(gt=0, allow_inf_nan=False)
    offset: PositiveInt = 64

    def of_passage(self, sentence: NDArray[np.float32], tokens: int, weight: float) -> NDArray[np.float32]:
        """Return a passage's sentence vector, (sentence_dim,), of length 1, with its length in the last dimension.

        `weight` is the student's sentence weight, above 0.
        """
        worth = -self.penalty / weight * np.log((tokens + self.offset) / (_USUAL_TOKENS + self.offset))
        worth = float(np.clip(worth, -_LARGEST, _LARGEST))
        return np.append(_unit(sentence[:-1]) * np.sqrt(1 - worth**2), worth).astype(np.float32)

    def scaled(self, factor: float) -> LengthPrior:
        """Return the prior of token scores that count so many times."""
        return self.model_copy(update={"penalty": self.penalty * factor})

    @staticmethod
    def of_query(sentence: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a query's sentence vector, (sentence_dim,): of length 1 without the last dimension, which is 1."""
        return np.append(_unit(sentence[:-1]), 1).astype(np.float32)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))
