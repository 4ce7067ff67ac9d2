"""Measure what training saves by computing on real tokens alone, on a student of two streams and given texts.

    python benchmarks/packed_training.py --student RUN/models/base --texts data/interfaces/ru.tsv.gz [--batch 128]

Forward and backward of the encoder over one side of a batch, padded and packed, and of MaxSim of the batch's queries
with its passages as the library computes it and as we do. They take turns, times are processor time, and their losses
must agree. `--texts` are files of parallel text (source, English, translation); the translations are the queries.
"""

from __future__ import annotations

import argparse
import gzip
import random
import statistics
import time
from collections.abc import Callable

import torch
from sentence_transformers.multi_vector_encoder.scoring import colbert_scores
from torch import Tensor, nn

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
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packed, padded = trainable(options.student), trainable(options.student)
    # What training took before: the backward pass of torch's fused attention is slower on a processor.
    padded.context.bert.set_attn_implementation("eager")
    chance = random.Random(0)
    for file in options.texts:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
        rows = chance.sample([row for row in rows if 0 < len(row[1]) <= options.longest], options.batch)
        sides = {
            "queries": packed.preprocess([row[2] for row in rows], max_length=options.query_tokens),
            "passages": packed.preprocess([row[1] for row in rows], max_length=options.passage_tokens),
        }
        for name, features in sides.items():
            mask = features["attention_mask"]
            what = f"{file} {name} {tuple(mask.shape)}, {mask.float().mean():.2f} real"
            report(what, encoding(padded, packed, features), options.rounds)
        masks = (side["attention_mask"].bool() for side in sides.values())
        report(f"{file} MaxSim", comparing(*masks), options.rounds)


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
    padded: TwoStreamEncoder, packed: TwoStreamEncoder, features: dict[str, Tensor]
) -> dict[str, Callable[[], Tensor]]:
    mask = features["attention_mask"]
    width = packed.get_embedding_dimension()
    wanted = torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(1)) * mask.unsqueeze(-1)

    def step(encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        tokens, sentence, context = encode(features["input_ids"], mask)
        loss = (torch.cat([context, tokens], -1) * wanted).sum() + sentence.sum()
        loss.backward()
        return loss.detach()

    return {"padded": lambda: step(padded._padded), "packed": lambda: step(packed._packed)}


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


def report(what: str, sides: dict[str, Callable[[], Tensor]], rounds: int) -> None:
    elapsed: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, Tensor] = {}
    for _ in range(rounds + 1):
        for name, step in sides.items():
            started = time.process_time()
            losses[name] = step()
            elapsed[name].append(time.process_time() - started)
    # The first round pays for warming up.
    padded, packed = (statistics.median(times[1:]) for times in elapsed.values())
    torch.testing.assert_close(losses["packed"], losses["padded"], rtol=1e-3, atol=1e-2)
    print(f"{what}: padded {padded:.3f} s, packed {packed:.3f} s, {padded / packed:.2f} times as fast")


if __name__ == "__main__":
    main()
