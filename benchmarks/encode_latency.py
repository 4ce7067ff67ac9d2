"""Measure what encoding one query costs on one thread, tokenisation included: fp32, int8 and torch side by side.

Rounds of the runtimes alternate, so that a busy machine slows all of them alike. Times are processor time.

Example: python benchmarks/encode_latency.py models/drdecr-16 --require benchmarks/encode_latency.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import read_manifest
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoder
from training.compact.weights import unpack

TEXT = "which program plays music over the network and converts old photographs of a holiday into small films"


def queries(encoder: Encoder, tokens: int) -> Iterator[str]:
    """Yield queries without end that have so many token vectors, or as near as words come."""
    rng = np.random.default_rng(0)
    words = TEXT.split()
    while True:
        text: list[str] = []
        while len(encoder.encode([" ".join(text)], "query").vectors) < tokens:
            text.append(str(rng.choice(words)))
        yield " ".join(text)


def encoders(student: Path) -> dict[str, Encoder]:
    found: dict[str, Encoder] = {
        precision: OnnxEncoder.load(student, threads=1, precision=precision)
        for precision in read_manifest(student).files
    }
    with torch_weights(student) as weights:
        found["torch"] = TorchEncoder.load(weights, threads=1, device="cpu")
    return found


@contextmanager
def torch_weights(student: Path) -> Iterator[Path]:
    """Give a directory that torch loads: the student's own, or what a compact one unpacks to."""
    if (student / "modules.json").is_file():
        yield student
        return
    with tempfile.TemporaryDirectory() as folder:
        yield unpack(student, Path(folder) / "student")


def measure(student: Path, tokens: int, rounds: int) -> dict[str, float]:
    """Return the median milliseconds a query by runtime, and torch's median over that of the file which serves."""
    runtimes = encoders(student)
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    texts = queries(next(iter(runtimes.values())), tokens)
    for _ in range(rounds):
        text = next(texts)
        for name, encoder in runtimes.items():
            start = time.process_time()
            encoder.encode([text], "query")
            times[name].append(time.process_time() - start)
    # The first rounds fill caches.
    medians = {name: float(np.median(values[rounds // 10 :])) for name, values in times.items()}
    figures = {f"{name}_p50_cpu_ms": round(value * 1000, 2) for name, value in medians.items()}
    served = read_manifest(student).serves
    figures["served_p50_cpu_ms"] = figures[f"{served}_p50_cpu_ms"]
    figures["torch_over_served"] = round(medians["torch"] / medians[served], 2)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--require", type=Path, help="YAML of what the figures must reach")
    options = parser.parse_args()
    figures = measure(options.student, options.tokens, options.rounds)
    print(json.dumps(figures, indent=2))
    if not options.require:
        return 0
    return check(figures, options.require)


def check(figures: dict[str, float], required: Path) -> int:
    """Compare with `at_most` and `at_least` of a YAML file; 0 when all are reached."""
    import yaml

    limits = yaml.safe_load(required.read_text(encoding="utf-8"))
    lines = [(name, figures[name] <= limit, "<=", limit) for name, limit in limits.get("at_most", {}).items()]
    lines += [(name, figures[name] >= limit, ">=", limit) for name, limit in limits.get("at_least", {}).items()]
    for name, reached, relation, limit in lines:
        print(f"{'OK' if reached else 'FAIL'}  {name} {figures[name]} {relation} {limit}")
    return 0 if all(reached for _, reached, _, _ in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
