"""Write tiny sentence-transformers multi-vector directories and that library's own vectors of TEXTS beside them.

In an environment with sentence-transformers 6.2.0: python tests/reference/write_sentence_transformers.py
tests/reference
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from reference_vectors import write_vectors
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tiny_backbones import TEXTS, fill, make_xlmr


def write(out: Path, expansion: dict[str, Any] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backbone = make_xlmr(Path(folder) / "xlmr")
        query_length = None if expansion else 20
        first = Transformer(str(backbone), query_length=query_length, document_length=40, query_expansion=expansion)
        dense = Dense(8, 6, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
        fill(dense, seed=5)
        mask = MultiVectorMask(skiplist_words=["▁", ",", "<s>"])
        modules = [first, dense, mask, Normalize(module_input_name="token_embeddings")]
        prompts = {"query": "<unk> ", "document": ""}
        model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
        shutil.rmtree(out, ignore_errors=True)
        model.save_pretrained(str(out), create_model_card=False)
    model = MultiVectorEncoder(str(out), device="cpu")
    queries = model.encode_query(TEXTS, convert_to_numpy=True)
    passages = model.encode_document(TEXTS, convert_to_numpy=True)
    write_vectors(out.with_suffix(".npz"), queries, passages)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target / "native", None)
    write(target / "native-expanding", {"strategy": "min", "length": 16, "attend": True, "token": "<mask>"})
