"""Write tiny PyLate directories and PyLate's own vectors of TEXTS beside them.

In an environment with pylate 1.6.0 (its pins and torch): python tests/reference/write_pylate.py tests/reference
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from pylate import models
from reference_vectors import write_vectors
from tiny_backbones import TEXTS, make_bert


def write(out: Path, **options: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backbone = str(make_bert(Path(folder) / "bert"))
        torch.manual_seed(2)
        model = models.ColBERT(
            backbone, embedding_size=6, query_length=24, document_length=40, device="cpu", **options
        )
        if options.get("do_query_expansion") is False:
            model.append(models.Dense(6, 4, bias=True, use_residual=True))
            # The library counts modules only when it loads.
        model.eval()
        model.save_pretrained(str(out), create_model_card=False)
    model = models.ColBERT(str(out), device="cpu")
    queries = model.encode(TEXTS, is_query=True, show_progress_bar=False)
    passages = model.encode(TEXTS, is_query=False, show_progress_bar=False)
    write_vectors(out.with_suffix(".npz"), queries, passages)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target / "pylate")
    write(target / "pylate-attending", attend_to_expansion_tokens=True, skiplist_words=["?", "no such word"])
    write(target / "pylate-residual", do_query_expansion=False, query_prefix="[UNK] ", document_prefix="")
