"""Measure what training saves by computing on real tokens alone, on a student of two streams and given texts.

    python benchmarks/packed_training.py --student RUN/models/base --texts data/interfaces/ru.tsv.gz [--batch 128]

Forward and backward of the encoder over one side of a batch, padded and packed, and of MaxSim of the batch's queries
with its passages as the library computes it and as we do. They take turns, times are processor time, and their losses
must agree. `--texts` are files of parallel text (source, English, translation); the translations are the queries.
With `--bfloat16` the encoder computes in 16 bits, and packed rows are also filled up to a multiple, as training does
there. Each round has another batch, as in training: what is compiled for one number of rows serves no other.
"""

from __future__ import annotations

import argparse
import gzip
import random
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from sentence_transformers.multi_vector_encoder.scoring import colbert_scores
from torch import Tensor, nn

from drdecr.encoder import packing
from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from training.losses.maxsim import maxsim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True)
    parser.add_argument("--texts", required=True, nargs="+")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--query-tokens", type=int, default=24)
    parser.add_argument("--passage-tokens", type=int, default=40)
    parser.add_argument("--longest", type=int, default=80, help="characters of English at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packed, padded = trainable(options.student), trainable(options.student)
    # What training took before: the backward pass of torch's fused attention is slower on a processor.
    padded.context.bert.set_attn_implementation("eager")
    chance = random.Random(0)
    for file in options.texts:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
        rows = [row for row in rows if 0 < len(row[1]) <= options.longest]
        batches = [chance.sample(rows, options.batch) for _ in range(options.rounds + 1)]
        sides = {
            "queries": [
                packed.preprocess([row[2] for row in each], max_length=options.query_tokens) for each in batches
            ],
            "passages": [
                packed.preprocess([row[1] for row in each], max_length=options.passage_tokens) for each in batches
            ],
        }
        for name, inputs in sides.items():
            masks = [features["attention_mask"] for features in inputs]
            what = f"{file} {name} {tuple(masks[0].shape)}, {masks[0].float().mean():.2f} real"
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                report(what, [encoding(padded, packed, each, options.bfloat16) for each in inputs], options.bfloat16)
        pairs = zip(*sides.values(), strict=True)
        rounds = [comparing(*(side["attention_mask"].bool() for side in pair)) for pair in pairs]
        report(f"{file} MaxSim", rounds)


def trainable(student: str) -> TwoStreamEncoder:
    encoder = load_model(student, device="cpu")[0]
    assert isinstance(encoder, TwoStreamEncoder)
    encoder.requires_grad_(True)
    encoder.ngram.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder.train()


def encoding(
    padded: TwoStreamEncoder, packed: TwoStreamEncoder, features: dict[str, Tensor], bfloat16: bool
) -> dict[str, Callable[[], Tensor]]:
    mask = features["attention_mask"]
    width = packed.get_embedding_dimension()
    wanted = torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(1)) * mask.unsqueeze(-1)

    def step(encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        tokens, sentence, context = encode(features["input_ids"], mask)
        loss = (torch.cat([context, tokens], -1) * wanted).sum() + sentence.sum()
        loss.backward()
        return loss.detach()

    def exact(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with mock.patch.object(packing, "_FILLED_TO", 1):
            return packed._packed(ids, mask)

    filled = {"filled": lambda: step(packed._packed)} if bfloat16 else {}
    return {"padded": lambda: step(padded._padded), "packed": lambda: step(exact), **filled}


def comparing(query_mask: Tensor, passage_mask: Tensor, dim: int = 256) -> dict[str, Callable[[], Tensor]]:
    chance = torch.Generator().manual_seed(2)
    queries, passages = (
        nn.functional.normalize(torch.randn(*mask.shape, dim, generator=chance), dim=-1).requires_grad_(True)
        for mask in (query_mask, passage_mask)
    )

    def step(score: Callable[[], Tensor]) -> Tensor:
        loss = score().square().sum()
        loss.backward()
        return loss.detach()

    return {
        "padded": lambda: step(
            lambda: colbert_scores(
                queries,
                passages.unsqueeze(1),
                queries_mask=query_mask,
                documents_mask=passage_mask.unsqueeze(1),
                length_normalize=True,
            )
        ),
        "packed": lambda: step(lambda: maxsim(queries, passages, query_mask, passage_mask, mean=True)),
    }


def report(what: str, rounds: list[dict[str, Callable[[], Tensor]]], bfloat16: bool = False) -> None:
    elapsed: dict[str, list[float]] = {name: [] for name in rounds[0]}
    for sides in rounds:
        losses: list[Tensor] = []
        for name, step in sides.items():
            started = time.process_time()
            losses.append(step())
            elapsed[name].append(time.process_time() - started)
        for loss in losses[1:]:
            torch.testing.assert_close(loss, losses[0], rtol=1e-3, atol=1.0 if bfloat16 else 1e-2)
    # The first round pays for warming up.
    medians = {name: statistics.median(times[1:]) for name, times in elapsed.items()}
    seconds = ", ".join(f"{name} {median:.3f} s" for name, median in medians.items())
    factors = ", ".join(f"{medians['padded'] / median:.2f}" for name, median in medians.items() if name != "padded")
    print(f"{what}: {seconds}; {factors} times as fast")


if __name__ == "__main__":
    main()
