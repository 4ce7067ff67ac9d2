"""Measure passages a second: the file that serves against sentence-transformers with torch, same texts and threads.

Rounds alternate, so that a busy machine slows both alike. sentence-transformers batches 32 texts sorted by length,
its default. Times are processor time of one thread.

Example: python benchmarks/encode_passages.py models/drdecr-16 passages.jsonl
    --require benchmarks/encode_passages.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from encode_latency import check, torch_weights

from drdecr.corpus import read_passages
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import read_manifest
from drdecr.encoder.torch_runtime import load_model


def measure(student: Path, texts: list[str], rounds: int, batch_tokens: int | None = None) -> dict[str, float]:
    """Return passages a second of processor time by runtime, medians over rounds, and the ratios."""
    torch.set_num_threads(1)
    with torch_weights(student) as weights:
        model = load_model(weights, device="cpu")
    runs: dict[str, Callable[[], object]] = {"torch": lambda: model.encode_document(texts, show_progress_bar=False)}
    for precision in read_manifest(student).files:
        encoder = OnnxEncoder.load(student, threads=1, precision=precision)
        encoder.batch_tokens = batch_tokens or encoder.batch_tokens
        runs[precision] = lambda encoder=encoder: encoder.encode(texts, "passage")  # type: ignore[misc]
    speed = passages_a_second(runs, len(texts), rounds)
    figures = {f"{name}_passages_per_s": round(value, 1) for name, value in speed.items()}
    served = read_manifest(student).serves
    figures["served_over_torch"] = round(speed[served] / speed["torch"], 2)
    if "fp32" in speed:
        figures["fp32_over_torch"] = round(speed["fp32"] / speed["torch"], 2)
    return figures


def passages_a_second(runs: Mapping[str, Callable[[], object]], passages: int, rounds: int) -> dict[str, float]:
    """Run each in turns; return how many passages it encodes in a second of processor time, medians over rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: passages / float(np.median(values)) for name, values in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, help="of ONNX Runtime, instead of the encoder's own choice")
    parser.add_argument("--require", type=Path, help="YAML of what the figures must reach")
    options = parser.parse_args()
    texts = [passage.content for passage in islice(read_passages(options.passages), options.count)]
    figures = measure(options.student, texts, options.rounds, options.batch_tokens)
    print(json.dumps(figures, indent=2))
    return check(figures, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
