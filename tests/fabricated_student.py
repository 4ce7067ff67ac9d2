"""A student with random weights, made in a moment without torch: texts that share letters have close vectors."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from drdecr.encoder.settings import (
    OnnxManifest,
    Quality,
    StudentSettings,
    fingerprint_student,
    sha256_of,
    write_settings,
)
from drdecr.encoder.unigram import BEGIN, END, PADDING, UNKNOWN

SPECIAL = (UNKNOWN, BEGIN, END, PADDING)
SCRIPTS = {
    "ar": range(0x0621, 0x064B),
    "ru": range(0x0410, 0x0450),
    "th": range(0x0E01, 0x0E50),
    "ja": range(0x3041, 0x30FF),
    "ko": range(0xAC00, 0xAD00),
    "zh": range(0x4E00, 0x4F00),
}


def make_student(path: Path, *, dim: int, sentence_dim: int, seed: int = 0, sentence_weight: float = 0.5) -> Path:
    """Write a student directory with its `onnx/` folder."""
    (path / "onnx").mkdir(parents=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(path / "tokenizer.json"))
    tokenizer.save(str(path / "onnx" / "tokenizer.json"))
    settings = StudentSettings(
        name=path.name,
        dim=dim,
        sentence_dim=sentence_dim,
        sentence_weight=sentence_weight if sentence_dim else 0.0,
        query_length=32,
        passage_length=128,
        pad_id=3,
        unknown_id=0,
    )
    write_settings(path, settings)
    table = np.random.default_rng(seed).standard_normal((tokenizer.get_vocab_size(), max(dim, sentence_dim, 8)))
    onnx.save(_graph(table.astype(np.float32), dim, sentence_dim), path / "onnx" / "model.onnx")
    manifest = OnnxManifest(
        **settings.model_dump(),
        fingerprint=fingerprint_student(path),
        files={"fp32": "model.onnx"},
        serves="fp32",
        sha256={name: sha256_of(path / "onnx" / name) for name in ("model.onnx", "tokenizer.json")},
        quality={"fp32": Quality(largest_difference=0.0)},
    )
    (path / "onnx" / "encoder.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return path


def make_tokenizer() -> Tokenizer:
    """Return a unigram tokenizer over single letters of a few scripts and pairs of Latin letters."""
    letters = [chr(code) for code in range(33, 127)] + [chr(code) for codes in SCRIPTS.values() for code in codes]
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
    vocabulary = [(name, 0.0) for name in SPECIAL] + [("▁", -3.0)]
    vocabulary += [(letter, -6.0) for letter in letters] + [(pair, -8.0) for pair in pairs]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[BEGIN, "$A", END], special_tokens=[(BEGIN, 1), (END, 2)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _graph(table: NDArray[np.float32], dim: int, sentence_dim: int) -> onnx.ModelProto:
    """Token vector = its row plus a quarter of the text's mean row; sentence vector = the mean row."""
    ids, tokens = ["batch", "tokens"], ["batch", "tokens", dim]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["real_rows"]),
        helper.make_node("ReduceSum", ["real_rows", "middle"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["column", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Mul", ["mean", "quarter"], ["context"]),
        helper.make_node("Add", ["rows", "context"], ["mixed"]),
        helper.make_node("Slice", ["mixed", "zero", "dim", "last"], ["cut"]),
        helper.make_node("LpNormalization", ["cut"], ["token_vectors"], axis=-1, p=2),
    ]
    constants = {
        "table": table,
        "last": np.array([2]),
        "middle": np.array([1]),
        "zero": np.array([0]),
        "dim": np.array([dim]),
        "quarter": np.array(0.25, np.float32),
    }
    outputs = [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, tokens)]
    if sentence_dim:
        nodes += [
            helper.make_node("Squeeze", ["mean", "middle"], ["flat"]),
            helper.make_node("Slice", ["flat", "zero", "sentence_dim", "middle"], ["flat_cut"]),
            helper.make_node("LpNormalization", ["flat_cut"], ["sentence_vectors"], axis=-1, p=2),
        ]
        constants["sentence_dim"] = np.array([sentence_dim])
        outputs.append(helper.make_tensor_value_info("sentence_vectors", TensorProto.FLOAT, ["batch", sentence_dim]))
    graph = helper.make_graph(
        nodes,
        "fabricated",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ids) for name in ("input_ids", "attention_mask")],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
