"""Measure what sentence vectors cost an index build: sentences read whole again, or for that vector alone.

Rounds alternate, so that a busy machine slows all alike. Times are processor time of one thread, for passages of a
student with a `closeness`; `without_sentences` reads the first windows of passages and nothing else.

Example: python benchmarks/sentences_alone.py models/drdecr-16 passages.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from encode_passages import passages_a_second
from numpy.typing import NDArray

from drdecr.corpus import read_passages
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.types import Encoded
from drdecr.encoder.windows import Windowed, add_windows


def measure(student: Path, texts: list[str], rounds: int) -> dict[str, float]:
    """Return passages a second by way, medians over rounds, their ratio, and the largest difference of a number."""
    encoder = OnnxEncoder.load(student, threads=1)

    def encode(some: Sequence[str]) -> Encoded:
        return encoder.encode(some, "passage")

    def read_whole_again(some: Sequence[str]) -> NDArray[np.float32]:
        found = encode(some).sentences
        assert found is not None
        return found

    def windows(encode_sentences: Callable[[Sequence[str]], NDArray[np.float32]]) -> Windowed:
        return add_windows(encode(texts), texts, encode, encode_sentences, encoder.spec)

    ways: dict[str, Callable[[], Encoded]] = {
        "read_whole_again": lambda: windows(read_whole_again).windows,
        "alone": lambda: windows(encoder.encode_sentences).windows,
        "without_sentences": lambda: encode(texts),
    }
    one, other = ways["alone"](), ways["read_whole_again"]()
    speed = passages_a_second(ways, len(texts), rounds)
    figures = {f"{name}_passages_per_s": round(value, 1) for name, value in speed.items()}
    figures["alone_over_read_whole_again"] = round(speed["alone"] / speed["read_whole_again"], 2)
    assert one.sentences is not None and other.sentences is not None
    vectors, sentences = np.abs(one.vectors - other.vectors), np.abs(one.sentences - other.sentences)
    figures["largest_difference"] = max(float(vectors.max(initial=0.0)), float(sentences.max(initial=0.0)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = [passage.content for passage in islice(read_passages(options.passages), options.limit)]
    print(json.dumps({"passages": len(texts), **measure(options.student, texts, options.rounds)}, indent=1))


if __name__ == "__main__":
    main()
