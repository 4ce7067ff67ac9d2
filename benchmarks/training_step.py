"""Measure a training step against sentence-transformers' own on the same texts, and what alignment takes of it.

    python benchmarks/training_step.py [--steps 12] [--threads 1] [--layers 6] [--width 384]

Both sides tokenise, run forward and backward, and take an optimiser step, on one encoder with random weights. They
take turns, and times are processor time, so that a machine that others use slows both alike. `training_step.yaml`
holds what must be reached; exit status 1 where it is not.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.data_collator import MultiVectorEncoderDataCollator
from sentence_transformers.multi_vector_encoder.losses import (
    MultiVectorDistillKLDivLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from drdecr.encoder.torch_runtime import load_model
from training.alignment import align_tokens
from training.candidates.collator import CandidateCollator, TextInputs
from training.candidates.lists import Candidates, GivenLists
from training.fresh import make_student
from training.losses.distillation import DistillationLoss
from training.losses.ranking import RankingLoss
from training.ranking import columns_of
from training.recipe import ObjectiveWeights, RankingStage
from training.teacher import TeacherVectors
from training.transport import transport_tokens

WORDS = 30_000
DIM = 128
QUERY_TOKENS, PASSAGE_TOKENS = 48, 96


def make_encoder(folder: Path, width: int, layers: int) -> Path:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


def texts(count: int, longest: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [
        " ".join(f"w{chance.randrange(WORDS)}" for _ in range(chance.randint(longest // 3, longest)))
        for _ in range(count)
    ]


def stepper(loss: nn.Module, batch: Callable[[int], object]) -> Callable[[int], None]:
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-6, fused=True)

    def step(number: int) -> None:
        found = loss(*batch(number))  # type: ignore[misc]
        value = sum(found.values()) if isinstance(found, dict) else found
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def in_turns(ours: Callable[[int], None], theirs: Callable[[int], None], steps: int) -> tuple[float, float]:
    elapsed: tuple[list[float], list[float]] = [], []
    for number in range(steps + 1):
        for side, one in enumerate((ours, theirs) if number % 2 else (theirs, ours)):
            started = time.process_time()
            one(number)
            elapsed[side if number % 2 else 1 - side].append(time.process_time() - started)
    # The first step of each pays for warming up.
    return statistics.median(elapsed[0][1:]), statistics.median(elapsed[1][1:])


def distillation(student: Path, batch: int, ways: int, steps: int) -> tuple[float, float]:
    """n-way KL over the same lists: `RankingLoss` and `MultiVectorDistillKLDivLoss`."""
    rows = batch * (steps + 1)
    queries, passages = texts(rows, QUERY_TOKENS - 4, 1), texts(rows * ways, PASSAGE_TOKENS - 4, 2)
    scores = np.random.default_rng(0).normal(size=(rows, ways)).astype(np.float32)
    lists = GivenLists(
        [Candidates(query, query, tuple(passages[at * ways : (at + 1) * ways])) for at, query in enumerate(queries)]
    )
    mine, peer = (load_model(student, device="cpu").train() for _ in range(2))
    collator = CandidateCollator(TextInputs(mine, QUERY_TOKENS, PASSAGE_TOKENS), lists, scores)
    stage = RankingStage(kind="ranking", name="a", steps=1, ways=ways, scores="teacher")
    library = MultiVectorEncoderDataCollator(
        peer.preprocess,
        prompts={"query": "[Q]"} | {f"p{way}": "[D]" for way in range(ways)},
        max_length={"query": QUERY_TOKENS, "document": PASSAGE_TOKENS},
    )

    def ours(number: int) -> object:
        return columns_of(
            collator([{"row": row} for row in range(number * batch, (number + 1) * batch)]), mine.device
        )

    def theirs(number: int) -> object:
        chosen = range(number * batch, (number + 1) * batch)
        features = [
            {
                "query": queries[row],
                **{f"p{way}": lists[row].passages[way] for way in range(ways)},
                "label": scores[row].tolist(),
            }
            for row in chosen
        ]
        return columns(library(features), ["query", *(f"p{way}" for way in range(ways))])

    return in_turns(
        stepper(RankingLoss(mine, stage), ours), stepper(MultiVectorDistillKLDivLoss(peer), theirs), steps
    )


def pairs(student: Path, batch: int, steps: int) -> tuple[float, float, dict[str, float]]:
    """Token KD and relevance KD over pairs, and the library's contrastive loss over the same pairs."""
    rows = batch * (steps + 1)
    queries, passages = texts(rows, QUERY_TOKENS - 4, 3), texts(rows, PASSAGE_TOKENS - 4, 4)
    rng = np.random.default_rng(0)
    lengths = [len(text.split()) for text in (*queries, *passages)]
    vectors = rng.normal(size=(sum(lengths), DIM)).astype(np.float16)
    teacher = TeacherVectors(vectors, np.cumsum([0, *lengths]).astype(np.int64))
    objectives = ObjectiveWeights(token_query=0.5, token_passage=0.5, relevance=1.0)
    mine, peer = (load_model(student, device="cpu").train() for _ in range(2))
    lengths_of = {"query": QUERY_TOKENS, "document": PASSAGE_TOKENS}

    def columns_for(model: MultiVectorEncoder, number: int, *, labelled: bool) -> object:
        chosen = range(number * batch, (number + 1) * batch)
        library = MultiVectorEncoderDataCollator(
            model.preprocess, prompts={"query": "[Q]", "passage": "[D]"}, max_length=lengths_of
        )
        label = [{"label": [row, rows + row]} if labelled else {} for row in chosen]
        features = [
            {"query": queries[row], "passage": passages[row], **one} for row, one in zip(chosen, label, strict=True)
        ]
        return columns(library(features), ["query", "passage"])

    ours, theirs = in_turns(
        stepper(DistillationLoss(mine, teacher, objectives), lambda number: columns_for(mine, number, labelled=True)),
        stepper(
            MultiVectorMultipleNegativesRankingLoss(peer), lambda number: columns_for(peer, number, labelled=False)
        ),
        steps,
    )
    return ours, theirs, {name: aligning(name, teacher, batch, rows) for name in ("greedy", "transport")}


def aligning(name: str, teacher: TeacherVectors, batch: int, rows: int) -> float:
    """Seconds that the alignment of both sides of a batch takes."""
    align = {"greedy": align_tokens, "transport": transport_tokens}[name]
    elapsed = []
    for _ in range(7):
        total = 0.0
        for first in (0, rows):
            tokens, mask = teacher.padded(range(first, first + batch), torch.device("cpu"))
            student = torch.nn.functional.normalize(tokens + torch.randn_like(tokens), dim=-1)
            started = time.process_time()
            align(student, tokens, mask, mask)
            total += time.process_time() - started
        elapsed.append(total)
    return statistics.median(elapsed)


def columns(batch: dict[str, object], names: list[str]) -> tuple[list[dict[str, object]], object]:
    found = []
    for name in names:
        prefix = f"{name}_"
        found.append({key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)})
    return found, batch.get("label")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ways", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    expected = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        encoder = make_encoder(Path(folder) / "encoder", options.width, options.layers)
        student = make_student(encoder, Path(folder) / "student", dim=DIM, seed=0)
        ours, theirs = distillation(student, options.batch, options.ways, options.steps)
        print(f"{options.ways}-way distillation, {options.batch} rows: {ours:.2f} s ours, {theirs:.2f} s theirs")
        size = 4 * options.batch
        step, contrastive, shares = pairs(student, size, options.steps)
        print(f"token and relevance KD, {size} pairs: {step:.2f} s; their contrastive loss {contrastive:.2f} s")
    reached = {"throughput": theirs / ours} | {f"{name}_share": value / step for name, value in shares.items()}
    failed = False
    for name, value in reached.items():
        limit = expected[name]
        fine = value >= limit["at_least"] if "at_least" in limit else value <= limit["at_most"]
        failed |= not fine
        print(f"{'OK  ' if fine else 'FAIL'} {name} {value:.3f} (expected {limit})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
