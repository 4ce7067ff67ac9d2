# ruff: noqa: E402
"""Write PrimeQA's own vectors of TEXTS for a tiny checkpoint of each generation.

In an environment with colbert-ai's dependencies and primeqa 0.7.0 installed without its own (they pin Python 3.8's
torch): python tests/reference/write_primeqa.py tests/reference. The checkpoint is made anew by `make_primeqa`.
PrimeQA's tokenisers and its ColBERT's `query` and `doc` run; its loading does not: it fails on newer transformers.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch

# Its settings have defaults of a class that Python 3.11 wants hashable, and its author had no need to make so.
_dataclass = dataclasses.dataclass
dataclasses.dataclass = lambda cls=None, **options: (
    _dataclass(cls, unsafe_hash=True) if cls and cls.__name__ == "DefaultVal" else _dataclass(cls, **options)
)

from primeqa.ir.dense.colbert_top.colbert.modeling.colbert import ColBERT
from primeqa.ir.dense.colbert_top.colbert.modeling.tokenization.doc_tokenization_xlmr import DocTokenizerXLMR
from primeqa.ir.dense.colbert_top.colbert.modeling.tokenization.query_tokenization_xlmr import QueryTokenizerXLMR
from reference_vectors import write_vectors
from tiny_backbones import TEXTS, make_primeqa
from transformers import AutoTokenizer, XLMRobertaModel

# It rounds passages to 16 bits at the end, which would hide what is compared.
torch.Tensor.half = lambda tensor: tensor


class Loaded(ColBERT):
    """PrimeQA's model around weights that are already read."""

    def __init__(self, base: Path, projection: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        encoder = XLMRobertaModel.from_pretrained(base).eval()
        self.model = SimpleNamespace(bert=encoder, device=torch.device("cpu"))
        self.model.linear = torch.nn.Linear(projection.shape[1], projection.shape[0], bias=False)
        self.model.linear.weight = torch.nn.Parameter(projection)
        self.use_gpu = False
        self.query_used = self.doc_used = True
        tokenizer = AutoTokenizer.from_pretrained(base)
        symbols = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        self.skiplist = {tokenizer.encode(symbol, add_special_tokens=False)[0]: True for symbol in symbols}


def write(out: Path, generation: str) -> None:
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        base, checkpoint = make_primeqa(Path(folder), generation)
        state = torch.load(checkpoint, weights_only=False)["model_state_dict"]
        projection = next(tensor for key, tensor in state.items() if key.endswith("linear.weight"))
        model = Loaded(base, projection.clone())
        queries = model.query(*QueryTokenizerXLMR(24, str(base)).tensorize(TEXTS)).numpy()
        # All passages in one batch: what padding does to them is what is to be reproduced.
        passages = model.doc(*DocTokenizerXLMR(40, str(base)).tensorize(TEXTS), keep_dims=False)
    write_vectors(out / f"primeqa-{generation}.npz", list(queries), passages)


if __name__ == "__main__":
    write(Path(sys.argv[1]), "A")
    write(Path(sys.argv[1]), "B")
