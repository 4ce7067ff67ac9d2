"""Write tiny colbert-ai directories (Stanford's, PLAID-X's, jina's way) and colbert-ai's own vectors of TEXTS.

In an environment with colbert-ai 0.2.22 (transformers 4.49 and torch): python tests/reference/write_colbert.py
tests/reference. The C++ extension that colbert-ai compiles for scoring is not needed and left out.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import colbert.modeling.hf_colbert as hf_colbert
import torch
from colbert.infra import ColBERTConfig
from colbert.modeling.checkpoint import Checkpoint
from colbert.modeling.colbert import ColBERT
from reference_vectors import write_vectors
from tiny_backbones import TEXTS, make_bert, make_xlmr
from transformers import AutoModel, AutoTokenizer

ColBERT.loaded_extensions = True
CODE = '''"""A model of its own class, as a checkpoint with remote code brings one."""

from transformers import BertConfig, BertModel, BertPreTrainedModel


class TinyConfig(BertConfig):
    model_type = "tiny-remote"


class TinyPreTrainedModel(BertPreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "bert"


class TinyModel(BertModel):
    config_class = TinyConfig
    base_model_prefix = "bert"

    def __init__(self, config):
        super().__init__(config, add_pooling_layer=False)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return type(output)(last_hidden_state=output.last_hidden_state * 2 + 0.25)
'''


def write(out: Path, backbone: Path, **settings: object) -> None:
    config = ColBERTConfig(checkpoint=str(backbone), dim=6, query_maxlen=24, doc_maxlen=40, gpus=0, **settings)
    torch.manual_seed(3)
    model = hf_colbert.class_factory(str(backbone)).from_pretrained(str(backbone), colbert_config=config)
    torch.nn.init.normal_(model.linear.weight)
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(out)
    config.save_for_checkpoint(str(out))
    written = json.loads((out / "artifact.metadata").read_text())
    for key in ("checkpoint", "root", "meta", "experiment", "name", "index_root"):
        written.pop(key, None)
    (out / "artifact.metadata").write_text(json.dumps(written, indent=1) + "\n")
    for code in backbone.glob("*.py"):
        shutil.copy(code, out)
    if list(backbone.glob("*.py")):
        described = json.loads((out / "config.json").read_text())
        described["auto_map"] = json.loads((backbone / "config.json").read_text())["auto_map"]
        (out / "config.json").write_text(json.dumps(described, indent=1))
    read = Checkpoint(str(out), colbert_config=ColBERTConfig(gpus=0, **config_of(written)), verbose=0)
    read.amp_manager.activated = False
    if not written["mask_punctuation"]:
        # The library reads this list in any case, and makes it only with the option on.
        read.skiplist = {}
    queries = [row.numpy() for row in read.queryFromText(TEXTS)]
    passages = [read.docFromText([text], keep_dims=False)[0].numpy() for text in TEXTS]
    write_vectors(out.with_suffix(".npz"), queries, passages)


def config_of(written: dict) -> dict:
    keys = ("dim", "query_maxlen", "doc_maxlen", "query_token_id", "doc_token_id", "mask_punctuation")
    return {key: written[key] for key in (*keys, "attend_to_mask_tokens", "similarity")}


def with_markers(path: Path, markers: tuple[str, str]) -> Path:
    """Append two tokens to a backbone, as PLAID-X and jina do: the last two ids."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    tokenizer.add_tokens(list(markers), special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def with_code(path: Path) -> Path:
    (path / "modeling_tiny.py").write_text(CODE)
    described = json.loads((path / "config.json").read_text())
    described |= {"model_type": "tiny-remote", "architectures": ["HF_ColBERT"]}
    described["auto_map"] = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    (path / "config.json").write_text(json.dumps(described, indent=1))
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(target / "colbert", make_bert(root / "bert"), mask_punctuation=True)
        write(target / "colbert-xlmr", make_xlmr(root / "xlmr"), mask_punctuation=True, similarity="cosine")
        markers = ("[unused0]", "[unused1]")
        write(
            target / "plaidx",
            with_markers(make_xlmr(root / "plaidx"), markers),
            similarity="l2",
            mask_punctuation=False,
        )
        names = ("[QueryMarker]", "[DocumentMarker]")
        remote = with_code(with_markers(make_bert(root / "jina"), names))
        write(
            target / "jina", remote, attend_to_mask_tokens=True, query_token_id=names[0], doc_token_id=names[1],
            mask_punctuation=True,
        )  # fmt: skip
