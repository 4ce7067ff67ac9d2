"""Fabricate a student of XLM-R-base's size with random weights, export it, and measure a query in 8 bits.

Shows that such a student loads, exports, passes the gate or is refused, and what a 32-token query costs on one
thread. Times are processor time. Needs about 6 GB of memory and 4 GB of disk.

Example: python benchmarks/large_student.py /tmp/large --require benchmarks/large_student.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from encode_latency import check, queries
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from drdecr.corpus import Passage
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import StudentSettings, write_settings
from training.export import export_onnx
from training.ranking_quality import generated_judgments

PIECES = 250_002
WORDS = "which program plays music over the network and converts old photographs of a holiday into films"


def fabricate(student: Path) -> None:
    """Write the student: 12 layers of 768, 250,002 pieces, 128 dimensions."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    entries = [(name, 0.0) for name in special] + [(f"▁{word}", -3.0) for word in WORDS.split()]
    entries += [(f"▁w{index}", -9.0) for index in range(PIECES - len(entries))]
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=PIECES, max_position_embeddings=514, type_vocab_size=1)
    backbone = student.with_name(f"{student.name}-backbone")
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(backbone)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(backbone)
    modules = [
        Transformer(str(backbone), query_length=64, document_length=256),
        Dense(768, 128, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
        Normalize(module_input_name="token_embeddings"),
    ]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(student), create_model_card=False)
    write_settings(student, StudentSettings(name="large", dim=128, pad_id=1, unknown_id=3))


def passages(count: int) -> list[Passage]:
    """Return texts of 40 words out of all 250,000, each its own."""
    rng = random.Random(0)
    return [
        Passage(str(index), " ".join(f"w{rng.randrange(PIECES - 100)}" for _ in range(40))) for index in range(count)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--require", type=Path, help="YAML of what the figures must reach")
    options = parser.parse_args()
    student = options.folder / "student"
    figures: dict[str, float] = {}
    if not (student / "onnx").is_dir():
        options.folder.mkdir(parents=True, exist_ok=True)
        fabricate(student)
        start = time.process_time()
        export_onnx(student, judged=generated_judgments(passages(24), count=24), threads=1)
        figures["export_and_gate_cpu_s"] = round(time.process_time() - start, 1)
        figures["export_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    served = OnnxEncoder.load(student, threads=1)
    quality = json.loads((student / "onnx" / "encoder.json").read_text())["quality"]
    for precision, measured in quality.items():
        figures[f"{precision}_ndcg_at_10"] = round(measured["ndcg_at_10"], 4)
    encoder = OnnxEncoder.load(student, threads=1, precision="int8")
    texts = queries(encoder, 32)
    times = []
    for _ in range(options.rounds):
        text = next(texts)
        start = time.process_time()
        encoder.encode([text], "query")
        times.append(time.process_time() - start)
    figures["int8_p50_cpu_ms"] = round(1000 * float(np.median(times[options.rounds // 10 :])), 1)
    print(json.dumps({"serves": served.precision, **figures}, indent=2))
    return check(figures, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
