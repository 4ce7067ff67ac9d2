"""Compute shards, memory, time and cost of a collection, and hold the formula against measured collections.

The formula (docs/capacity.md) has four measured constants, which come from the collections of `--fit` passages; every
measured collection, one of which lies in four segments that share a quantiser, is then predicted.

- bytes = T (code + cell + posting) + 2 L d + 16 L S + 8 N, and the texts beside them
- CPU ms of a query = table L + S (list 32 nprobe (T / S) / L + candidate c(N / S, k))

T tokens, N passages, d dimensions, S segments, L = lists(T / S), c the candidates that are scored by their codes. The
vectors come from `benchmarks/engine_data.py`; queries have 32 tokens. Recall@10 is of the largest, against exact
MaxSim.

Example: python benchmarks/capacity.py --vectors engine-data --work capacity-work --bits 4 --out capacity.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
from engine import Collection as Vectors
from engine import our_search, recalls

from drdecr import __version__
from drdecr.index import SearchParams, Snapshot
from drdecr.index.codec import record_of
from drdecr.index.knobs import LEVELS
from drdecr.index.manifest import Manifest, StudentRecord, format_of, write_manifest
from drdecr.index.reduction import WHOLE
from drdecr.index.score import query_lanes
from drdecr.index.vector_file import VectorFile
from indexer.build import build_from_vectors
from indexer.centroids import centroid_sample, token_lists
from indexer.progress import SILENT
from indexer.quantizer_training import train_on_sample
from indexer.segments import hash_files, write_segment
from indexer.sources import VectorSource

SIZES, SPLIT = (10_000, 50_000, 100_000), 4
QUERIES, ROUNDS, K = 200, 3, 10
QUERY_TOKENS = 32
NPROBE = LEVELS["balanced"].nprobe


@dataclass(frozen=True)
class Constants:
    """What was measured: bytes of a posting a token, and CPU milliseconds a unit of each of a query's three parts."""

    posting_bytes: float
    table_ms: float
    list_ms: float
    candidate_ms: float


@dataclass(frozen=True)
class Collection:
    """A collection in segments of equal size."""

    passages: int
    tokens: int
    segments: int
    dim: int
    bits: int

    @property
    def lists(self) -> int:
        return token_lists(self.tokens // self.segments)

    def entries(self) -> float:
        """Count what one query's probing reads, over all segments."""
        return QUERY_TOKENS * min(NPROBE, self.lists) * self.tokens / self.lists

    def candidates(self) -> float:
        """Count the passages that are scored by their codes, over all segments."""
        each = self.passages / self.segments
        return self.segments * min(LEVELS["balanced"].candidates(round(each), K), each)

    def size_bytes(self, constants: Constants) -> float:
        """Predict everything but the texts."""
        cell = 2 if self.lists <= 2**16 else 4
        vector = record_of(self.bits, self.dim, unit=True).code_bytes + cell + constants.posting_bytes
        lists = self.lists * (2 * self.dim + 16 * self.segments)
        return self.tokens * vector + lists + 8 * self.passages

    def cpu_ms(self, constants: Constants) -> float:
        """Predict the CPU time of a query over all segments."""
        return (
            constants.table_ms * self.lists
            + constants.list_ms * self.entries()
            + constants.candidate_ms * self.candidates()
        )


@dataclass(frozen=True)
class Measured:
    """A collection as it was found to be; `queries_ms` are the CPU milliseconds of its queries."""

    collection: Collection
    size_bytes: float
    posting_bytes: float
    table_ms: float
    queries_ms: list[float]
    found: list[Any]

    @property
    def cpu_ms(self) -> float:
        return float(np.median(self.queries_ms))


def build(vectors: Path, passages: int, segments: int, bits: int, work: Path) -> Path:
    """Build the first passages of the vectors; several segments share a quantiser, as a build on a cluster has it."""
    path = work / f"capacity-{passages}-{segments}-{bits}"
    if path.exists():
        return path
    offsets = np.load(vectors / "offsets.npy")[: passages + 1]
    rows = np.load(vectors / "vectors.npy", mmap_mode="r")
    faiss.omp_set_num_threads(2)

    def save(low: int, high: int) -> Path:
        own = offsets[low : high + 1]
        ids = np.array([str(at) for at in range(low, high)])
        np.savez(work / "part.npz", vectors=rows[own[0] : own[-1]], offsets=own - own[0], ids=ids)
        return work / "part.npz"

    if segments == 1:
        build_from_vectors(save(0, passages), path, bits=bits)
    else:
        partial = path.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        tokens = int(offsets[-1])
        lists = token_lists(tokens // segments)
        sample = centroid_sample(rows[:tokens], lists)
        quantizer = train_on_sample(partial, "quantizers/000001", sample, lists, bits)
        files = hash_files(partial / quantizer.directory, SILENT)
        quantizer = quantizer.model_copy(update={"files": files})
        records = []
        for number in range(segments):
            name = f"segments/{number + 1:06d}"
            (partial / name).mkdir(parents=True)
            part = save(number * passages // segments, (number + 1) * passages // segments)
            source = VectorSource(VectorFile(part))
            records.append(write_segment(partial, name, source, lambda _: quantizer, SILENT).record)
            student = StudentRecord.of(source.spec)
        write_manifest(
            partial,
            Manifest(
                format_version=format_of(WHOLE, student.closeness),
                written_by=f"drdecr {__version__}",
                student=student,
                quantizers=[quantizer],
                segments=records,
            ),
        )
        partial.rename(path)
    faiss.omp_set_num_threads(1)
    return path


def measure(path: Path, vectors: Path, bits: int) -> Measured:
    """Measure a snapshot's size and its queries, each the least of three rounds."""
    queries = np.load(vectors / "queries.npy")[:QUERIES]
    files = [file for file in path.rglob("*") if file.is_file() and file.suffix != ".sqlite"]
    postings = sum(file.stat().st_size for file in files if file.name == "postings.npy")
    with Snapshot.open(path) as snapshot:
        snapshot.warm_up()
        tables = []
        for query in queries[:20]:
            lanes = query_lanes(query, None, 0.0)
            lanes.blocks(snapshot.segments[0].quantizer)
            began = time.thread_time()
            lanes.table(snapshot.segments[0].quantizer)
            tables.append(1_000 * (time.thread_time() - began))
        search = our_search(snapshot, K, SearchParams())
        took = np.full((ROUNDS, len(queries)), np.inf)
        hits = [search(query) for query in queries]
        for turn in range(ROUNDS):
            for number, query in enumerate(queries):
                began = time.thread_time()
                search(query)
                took[turn, number] = 1_000 * (time.thread_time() - began)
        manifest = snapshot.manifest
        collection = Collection(manifest.passages, manifest.tokens, len(manifest.segments), snapshot.spec.dim, bits)
    return Measured(
        collection,
        sum(file.stat().st_size for file in files),
        postings / manifest.tokens,
        float(np.median(tables)),
        took.min(axis=0).tolist(),
        hits,
    )


def fit(found: list[Measured]) -> Constants:
    """Find the constants: the posting and the table as they were measured, the other two by least squares."""
    table = float(np.mean([each.table_ms / each.collection.lists for each in found]))
    rest = np.array([each.cpu_ms - table * each.collection.lists for each in found])
    units = np.array([[each.collection.entries(), each.collection.candidates()] for each in found])
    # Relative errors count, or the largest collection alone would decide.
    weights = 1 / np.array([each.cpu_ms for each in found])
    solved = np.linalg.lstsq(units * weights[:, None], rest * weights, rcond=None)[0]
    return Constants(float(np.mean([each.posting_bytes for each in found])), table, *map(float, solved))


def plan(constants: Constants, passages: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Divide a collection among machines of one kind, a shard each, and compute what it takes.

    The threads of a node divide its segments, and each computes the table for itself.
    """
    tokens = round(passages * arguments.tokens)
    segments = max(1, round(passages / arguments.segment_passages))
    whole = Collection(passages, tokens, segments, arguments.dim, arguments.bits)
    # A fifth of a node's memory stays free.
    nodes = max(1, int(np.ceil(whole.size_bytes(constants) / (0.8e9 * arguments.node_gb))))
    threads = min(arguments.node_cpus, max(1, segments // nodes))
    table_ms = constants.table_ms * whole.lists
    rest_ms = whole.cpu_ms(constants) - table_ms
    cpu_ms = nodes * threads * table_ms + rest_ms
    shard_ms = table_ms + rest_ms / (nodes * threads)
    front_ms = arguments.front_ms + nodes * arguments.call_ms
    return {
        "passages": passages,
        "segments": segments,
        "lists": whole.lists,
        "index_gb": round(whole.size_bytes(constants) / 1e9, 2),
        "texts_gb": round(passages * arguments.text_bytes / 1e9, 2),
        "shards": nodes,
        "threads": threads,
        "search_cpu_ms": round(cpu_ms, 1),
        "shard_ms": round(shard_ms, 1),
        "expected_ms": round(arguments.encode_ms + shard_ms + front_ms, 1),
        "searches_a_second": round(1_000 * nodes * arguments.node_cpus / cpu_ms, 1),
        "nodes_for_two_replicas": 2 * nodes,
        "cost_a_month": round(2 * nodes * arguments.node_price),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the snapshots are kept")
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--fit", type=int, nargs="+", default=[10_000, 50_000], help="sizes that fit the constants")
    parser.add_argument("--plan", type=int, nargs="+", default=[1_000_000, 20_000_000, 500_000_000])
    parser.add_argument("--tokens", type=float, default=50.3, help="tokens a passage of what is planned")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--text-bytes", type=float, default=600, help="of a passage, in the file of texts")
    parser.add_argument("--segment-passages", type=int, default=1_000_000)
    parser.add_argument("--node-gb", type=float, default=128)
    parser.add_argument("--node-cpus", type=int, default=16)
    parser.add_argument("--node-price", type=float, default=500, help="of a node a month, in any currency")
    parser.add_argument("--encode-ms", type=float, default=3.0, help="of a query, in the front")
    parser.add_argument("--front-ms", type=float, default=20.0, help="of a request beside the shards' work")
    parser.add_argument("--call-ms", type=float, default=1.0, help="of a call to a shard, in the front")
    parser.add_argument("--out", type=Path, help="write the figures, and the shards' times for the simulation, here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    shapes = [(size, 1) for size in SIZES] + [(SIZES[-1], SPLIT)]
    found = [
        measure(
            build(arguments.vectors, size, parts, arguments.bits, arguments.work), arguments.vectors, arguments.bits
        )
        for size, parts in shapes
    ]
    constants = fit([each for each in found if each.collection.passages in arguments.fit])
    rows = [
        {
            "passages": each.collection.passages,
            "segments": each.collection.segments,
            "mb": round(each.size_bytes / 1e6, 1),
            "predicted_mb": round(each.collection.size_bytes(constants) / 1e6, 1),
            "size_error": round(each.collection.size_bytes(constants) / each.size_bytes - 1, 4),
            "cpu_ms": round(each.cpu_ms, 2),
            "predicted_cpu_ms": round(each.collection.cpu_ms(constants), 2),
            "cpu_error": round(each.collection.cpu_ms(constants) / each.cpu_ms - 1, 4),
        }
        for each in found
    ]
    truth = Vectors(arguments.vectors, SIZES[-1], arguments.work)
    for row, each in zip(rows, found, strict=True):
        if each.collection.passages == SIZES[-1]:
            row["recall_at_10"] = recalls(each.found, truth, range(QUERIES))["recall_at_10"]
    plans = [plan(constants, passages, arguments) for passages in arguments.plan]
    figures = {"constants": vars(constants), "measured": rows, "plans": plans}
    json.dump(figures, sys.stdout, indent=2)
    if arguments.out is not None:
        times = {"passages": found[-2].collection.passages, "queries_ms": found[-2].queries_ms}
        arguments.out.write_text(json.dumps({**figures, "times": times}, indent=2) + "\n")


if __name__ == "__main__":
    main()
