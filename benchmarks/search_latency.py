"""Measure a search on one thread: milliseconds, and recall against the exact answer.

The collection is fabricated: words (Zipf) of a vocabulary of directions, bent towards each passage's topic. A query
is a noisy part of a passage. Words and noise are set so that recall lies near that of real text (.995 for 6,000
English passages under a small English encoder). Figures for real text depend on the student; these follow changes of
the engine.

Example: python benchmarks/search_latency.py --passages 6000 --require benchmarks/search_latency.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT, SearchParams, Snapshot, StageTimes
from indexer.build import build_from_vectors

WORDS, TOPICS, TOPIC_WORDS = 50_000, 500, 100


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class World:
    """The directions of words and topics, the same for passages and queries."""

    def __init__(self, dim: int, sentence_dim: int) -> None:
        rng = np.random.default_rng(0)
        self.dim, self.sentence_dim = dim, sentence_dim
        self.words = unit(rng.standard_normal((WORDS, dim), dtype=np.float32))
        self.topics = unit(rng.standard_normal((TOPICS, dim), dtype=np.float32))
        self.topic_sentences = unit(rng.standard_normal((TOPICS, max(sentence_dim, 1)), dtype=np.float32))
        frequency = 1 / np.arange(1, WORDS + 1)
        self.frequency = frequency / frequency.sum()
        self.topic_words = rng.integers(0, WORDS, (TOPICS, TOPIC_WORDS))

    def passages(self, count: int) -> Encoded:
        rng = np.random.default_rng(1)
        lengths = np.clip(rng.normal(51, 18, count), 5, 180).astype(np.int64)
        owner = np.repeat(np.arange(count), lengths)
        topic = rng.integers(0, TOPICS, count)
        common = rng.choice(WORDS, len(owner), p=self.frequency)
        own = self.topic_words[topic[owner], rng.integers(0, TOPIC_WORDS, len(owner))]
        word = np.where(rng.random(len(owner)) < 0.5, common, own)
        vectors = np.empty((len(owner), self.dim), np.float32)
        for start in range(0, len(owner), 2**18):
            part = slice(start, start + 2**18)
            noise = rng.standard_normal((len(owner[part]), self.dim), dtype=np.float32) / np.sqrt(self.dim)
            vectors[part] = unit(self.words[word[part]] + 0.5 * self.topics[topic[owner[part]]] + 0.2 * noise)
        sentences = None
        if self.sentence_dim:
            noise = rng.standard_normal((count, self.sentence_dim), dtype=np.float32) / np.sqrt(self.sentence_dim)
            sentences = unit(self.topic_sentences[topic] + noise)
        return encoded(vectors, lengths, sentences)

    def queries(self, passages: Encoded, count: int, tokens: int) -> Encoded:
        rng = np.random.default_rng(2)
        chosen = rng.integers(0, len(passages), count)
        vectors = np.empty((count * tokens, self.dim), np.float32)
        for i, position in enumerate(chosen):
            own = passages.tokens_of(int(position))
            noise = rng.standard_normal((tokens, self.dim), dtype=np.float32) / np.sqrt(self.dim)
            vectors[i * tokens : (i + 1) * tokens] = own[rng.integers(0, len(own), tokens)] + 0.3 * noise
        sentences = None
        if passages.sentences is not None:
            noise = rng.standard_normal((count, self.sentence_dim), dtype=np.float32) / np.sqrt(self.sentence_dim)
            sentences = unit(passages.sentences[chosen] + 0.8 * noise)
        return encoded(unit(vectors), np.full(count, tokens), sentences)


def encoded(
    vectors: NDArray[np.float32], lengths: NDArray[np.int64], sentences: NDArray[np.float32] | None
) -> Encoded:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    nothing = np.zeros(len(lengths), np.float32)
    return Encoded(vectors, offsets, sentences, np.empty((0, 2), np.int32), nothing.astype(np.bool_), nothing)


def measure(snapshot: Snapshot, queries: Encoded, params: SearchParams, truth: list[set[str]]) -> dict[str, float]:
    """Search one query at a time, as a service does; on a busy machine compare the CPU time, not the wall's."""
    took, used, found, times = [], [], 0, StageTimes()
    for i in range(len(queries)):
        query = queries.select(i, i + 1)
        started, worked = time.perf_counter(), time.thread_time()
        hits = snapshot.search(query, 10, params, times=times)[0]
        took.append(1000 * (time.perf_counter() - started))
        used.append(1000 * (time.thread_time() - worked))
        found += len(truth[i] & {hit.id for hit in hits})
    return {
        "p50_ms": round(float(np.percentile(took, 50)), 3),
        "p95_ms": round(float(np.percentile(took, 95)), 3),
        "p50_cpu_ms": round(float(np.percentile(used, 50)), 3),
        "recall_at_10": round(found / sum(map(len, truth)), 4),
        "candidates_ms": round(1000 * times.candidates_s / len(queries), 3),
        "score_ms": round(1000 * times.score_s / len(queries), 3),
        "fetch_ms": round(1000 * times.fetch_s / len(queries), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--sentence-dim", type=int, default=0)
    parser.add_argument("--query-tokens", type=int, default=32)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--settings", nargs="*", default=[], metavar="NPROBE:CANDIDATES", help="beside the defaults")
    parser.add_argument("--workdir", type=Path, help="keep the snapshot here and use it again")
    parser.add_argument("--require", type=Path, help="YAML of the figures that the defaults must reach")
    options = parser.parse_args()

    world = World(options.dim, options.sentence_dim)
    passages = world.passages(options.passages)
    queries = world.queries(passages, options.queries, options.query_tokens)
    with tempfile.TemporaryDirectory() as temporary:
        home = options.workdir or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{options.passages}-{options.dim}-{options.sentence_dim}"
        if not path.exists():
            arrays = {"sentences": passages.sentences} if passages.sentences is not None else {}
            ids = np.array([f"p{i}" for i in range(len(passages))])
            np.savez(home / "vectors.npz", vectors=passages.vectors, offsets=passages.offsets, ids=ids, **arrays)
            report = build_from_vectors(home / "vectors.npz", path)
            (home / "vectors.npz").unlink()
            print(json.dumps({"build_s": report.seconds, "tokens": report.tokens, "lists": report.lists}))
        with Snapshot.open(path) as snapshot:
            started = time.perf_counter()
            snapshot.warm_up()
            print(json.dumps({"warm_up_s": round(time.perf_counter() - started, 3)}))
            truth = [{hit.id for hit in hits} for hits in snapshot.search(queries, 10, EXACT)]
            exact = measure(snapshot, queries.select(0, min(20, len(queries))), EXACT, truth[:20])
            print(json.dumps({"setting": "exact", **exact}))
            reached = measure(snapshot, queries, SearchParams(), truth)
            print(json.dumps({"setting": "default", **reached}))
            for setting in options.settings:
                nprobe, candidates = map(int, setting.split(":"))
                figures = measure(snapshot, queries, SearchParams(nprobe, candidates), truth)
                print(json.dumps({"setting": setting, **figures}))
    return check(reached, options.require) if options.require else 0


def check(reached: dict[str, float], required: Path) -> int:
    """Compare with `at_most` and `at_least` of a YAML file; 0 when all are reached."""
    import yaml

    wanted = yaml.safe_load(required.read_text(encoding="utf-8"))
    status = 0
    for name, limit in wanted.get("at_most", {}).items():
        status |= report_line(name, reached[name], "<=", limit, reached[name] <= limit)
    for name, limit in wanted.get("at_least", {}).items():
        status |= report_line(name, reached[name], ">=", limit, reached[name] >= limit)
    return status


def report_line(name: str, value: float, relation: str, limit: float, reached: bool) -> int:
    print(f"{'OK' if reached else 'FAIL'}  {name} {value} {relation} {limit}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
