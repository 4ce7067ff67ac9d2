"""Stanford's PLAID on the CPU (colbert-ai: its C++ kernels, its codec), over the centroids of our snapshot.

Only what encodes text is left out: codes, buckets and inverted lists are made as its indexer makes them.
`engine.py` runs this with the Python of an environment that has colbert-ai and torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from colbert.indexing.codecs.residual import ResidualCodec
from colbert.infra.config import ColBERTConfig
from colbert.modeling.colbert import ColBERT
from colbert.search.index_storage import IndexScorer
from colbert.search.strided_tensor import StridedTensor

BITS, CHUNK = 4, 2**15
# Cells, threshold and passages: PLAID's own for k <= 10, for k <= 100, for more, and wider.
SETTINGS = [(1, 0.5, 256), (2, 0.45, 1024), (4, 0.4, 4096), (8, 0.35, 8192)]


def make_scorer(vectors: Path, passages: int, work: Path) -> tuple[IndexScorer, int]:
    offsets = np.load(vectors / "offsets.npy")[: passages + 1]
    tokens = int(offsets[-1])
    data = np.load(vectors / "vectors.npy", mmap_mode="r")[:tokens]
    centroids = torch.from_numpy(np.load(work / "centroids.npy"))
    cells = np.load(work / "cells.npy").astype(np.int64)
    lists, dim = centroids.shape
    config = ColBERTConfig(dim=dim, nbits=BITS, gpus=0, rank=0)
    sample = np.sort(np.random.default_rng(0).choice(tokens, min(tokens, 2**17), replace=False))
    left_over = torch.from_numpy(np.asarray(data[sample], np.float32)) - centroids[torch.from_numpy(cells[sample])]
    places = torch.arange(2**BITS) / 2**BITS
    thinned = left_over.flatten()[:: max(1, left_over.numel() // 2**23)]
    codec = ResidualCodec(
        config,
        centroids,
        left_over.abs().mean(),
        thinned.quantile(places[1:]),
        thinned.quantile(places + 0.5 / 2**BITS),
    )
    codes = torch.from_numpy(cells.astype(np.int32))
    residuals = torch.empty((tokens, dim // 8 * BITS), dtype=torch.uint8)
    for start in range(0, tokens, CHUNK):
        own = slice(start, min(start + CHUNK, tokens))
        part = torch.from_numpy(np.asarray(data[own], np.float32))
        residuals[own] = codec.binarize(part - centroids[codes[own].long()])
    owners = np.repeat(np.arange(passages), np.diff(offsets))
    pairs = np.unique(cells * passages + owners)
    lengths = torch.from_numpy(np.bincount(pairs // passages, minlength=lists))
    scorer = IndexScorer.__new__(IndexScorer)
    IndexScorer.try_load_torch_extensions(False)
    ColBERT.try_load_torch_extensions(False)
    scorer.use_gpu = False
    scorer.codec = codec
    scorer.embeddings = ResidualCodec.Embeddings(codes, residuals)
    scorer.doclens = torch.from_numpy(np.diff(offsets))
    scorer.offsets = torch.from_numpy(offsets)
    scorer.ivf = StridedTensor(torch.from_numpy((pairs % passages).astype(np.int32)), lengths, use_gpu=False)
    size = residuals.numel() + 4 * tokens + 4 * len(pairs) + 4 * passages + 2 * centroids.numel()
    return scorer, round(size / tokens, 1)


def main() -> None:
    vectors, passages, work = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    scorer, size = make_scorer(vectors, passages, work)
    queries = torch.from_numpy(np.load(vectors / "queries.npy")[: int(sys.argv[4])])
    for cells, threshold, passages_scored in SETTINGS:
        config = ColBERTConfig(ncells=cells, centroid_score_threshold=threshold, ndocs=passages_scored, gpus=0)
        scorer.rank(config, queries[:1])
        found, used = [], []
        for query in queries[len(queries) // 2 :]:
            started = time.thread_time()
            best, _ = scorer.rank(config, query[None])
            used.append(1000 * (time.thread_time() - started))
            found.append(best[:100])
        setting = f"ncells {cells}, threshold {threshold}, ndocs {passages_scored}"
        record = {"setting": setting, "bytes": size, "p50_cpu_ms": round(float(np.median(used)), 2), "found": found}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
