"""What a query costs the student, and what it costs the two stages that it replaces, a neural translator among them.

The translator is fabricated: a MarianMT of the size that opus-mt publishes for a pair of languages (6 + 6 layers of
512, inner width 2,048, 58,101 pieces), with random weights, made to write as many pieces as the English query has.
Its quality is none; its cost is that of a trained one, since no step of it depends on the weights' values. Its own
tokenizer is left out, in its favour. The teacher encodes the English query in torch, as it trains the student; the
search is that of the student's snapshot on both sides. Processor time of one thread, all parts in turns.

Example: python benchmarks/two_stage_cost.py --student models/drdecr-16 --snapshot quickstart/snapshot \\
    --teacher runs/released/models/teacher --queries data/debian --lang de --require benchmarks/two_stage_cost.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from encode_latency import check
from transformers import MarianConfig, MarianMTModel

from drdecr.corpus import read_queries
from drdecr.encoder.load import load_encoder
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.index import Snapshot

PIECES = 58_101
CONFIG = {
    "vocab_size": PIECES,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "max_position_embeddings": 512,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": PIECES - 1,
    "decoder_start_token_id": PIECES - 1,
    "eos_token_id": 0,
}
BEAMS = (1, 6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True, help="A fetched data set.")
    parser.add_argument("--lang", default="de")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--require", type=Path, help="YAML of what the figures must reach")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = options.queries / "queries"
    english = {query.id: query.text for query in read_queries(folder / "en.test.tsv")}
    asked = [query for query in read_queries(folder / f"{options.lang}.test.tsv") if query.id in english]
    asked = asked[: options.count]

    student = load_encoder(options.student)
    teacher = TorchEncoder.load(options.teacher, device="cpu")
    snapshot = Snapshot.open(options.snapshot)
    translator = MarianMTModel(MarianConfig(**CONFIG)).eval()

    def translate(read: int, written: int, beams: int) -> None:
        ids = torch.randint(1, PIECES - 1, (1, read))
        with torch.inference_mode():
            translator.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=beams,
                do_sample=False,
                min_new_tokens=written,
                max_new_tokens=written,
            )

    spent: dict[str, list[float]] = {}

    def timed(part: str, work: Callable[[], object]) -> None:
        started = time.process_time()
        work()
        spent.setdefault(part, []).append(1000 * (time.process_time() - started))

    pieces = []
    for query in [*asked[:5], *asked]:
        encoded = student.encode([query.text], "query")
        written = max(2, len(teacher.encode([english[query.id]], "query").vectors))
        pieces.append(written)
        for beams in BEAMS:
            timed(f"translate, {beams} beams", lambda: translate(len(encoded.vectors), written, beams))  # noqa: B023
        timed("teacher encodes", lambda: teacher.encode([english[query.id]], "query"))  # noqa: B023
        timed("student encodes", lambda: student.encode([query.text], "query"))  # noqa: B023
        timed("search", lambda: snapshot.search(encoded, k=10))  # noqa: B023
    figures = {f"{part}, ms": round(float(np.median(some[5:])), 2) for part, some in spent.items()}
    student_ms = figures["student encodes, ms"] + figures["search, ms"]
    figures["student, whole, ms"] = round(student_ms, 2)
    figures["english pieces"] = float(np.mean(pieces[5:]))
    for beams in BEAMS:
        whole = figures[f"translate, {beams} beams, ms"] + figures["teacher encodes, ms"] + figures["search, ms"]
        figures[f"two stages, {beams} beams, ms"] = round(whole, 2)
        figures[f"times_{beams}_beams"] = round(whole / student_ms, 1)
    print(json.dumps({"queries": len(asked), "lang": options.lang} | figures, indent=2))
    return check(figures, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
