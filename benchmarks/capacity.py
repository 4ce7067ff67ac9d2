"""What a collection takes: bytes and milliseconds by a formula, and how far it is off at sizes that fit here.

With T token vectors of `dim` dimensions and `bits` bits each, and L lists (the power of two near 7 x sqrt(T)):

    bytes = T x (dim x bits / 8 + codes) + L x dim x 4      codes: what a vector's list and place take
    ms    = fixed + growing x sqrt(T)                       processor time of a search, default knobs, one thread

`codes`, `fixed` and `growing` are fitted by least squares (of relative errors) to the sizes that were measured. The
error of a size is that of the formula fitted to the other sizes. Texts (SQLite) and sentence vectors come on top.

The vectors come from `benchmarks/engine_data.py`; what `benchmarks/engine.py` left in --work is used.

Example: python benchmarks/capacity.py --vectors engine-data --work engine-work --out benchmarks/capacity.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from engine import Collection, our_search, recalls, snapshot_of
from numpy.typing import NDArray

from drdecr.index import SearchParams, Snapshot
from indexer.centroids import token_lists

ROUNDS = 3
QUANTILES = 200
PASSAGES = (1_000_000, 20_000_000, 500_000_000)


def measured(collection: Collection, bits: int, work: Path) -> dict[str, object]:
    """Measure the bytes of everything but the texts, and a search's milliseconds and recall, default knobs."""
    path = snapshot_of(collection, bits, work)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.suffix != ".sqlite")
    with Snapshot.open(path) as snapshot:
        snapshot.warm_up()
        search = our_search(snapshot, 10, SearchParams())
        found = [search(query) for query in collection.queries]
        used = []
        for _ in range(ROUNDS):
            for query in collection.queries:
                started = time.thread_time()
                search(query)
                used.append(1000 * (time.thread_time() - started))
    return {
        "passages": len(collection),
        "token_vectors": collection.tokens,
        "bytes": size,
        "ms_p50": round(float(np.median(used)), 3),
        "ms_quantiles": np.quantile(used, np.linspace(0, 1, QUANTILES)).round(3).tolist(),
        **recalls(found, collection, range(len(found))),
    }


class Formula:
    """The formula of the module's docstring, fitted to some sizes."""

    def __init__(self, sizes: list[dict[str, object]], dim: int, bits: int) -> None:
        self.dim, self.bits = dim, bits
        tokens, size, ms = (
            np.array([each[name] for each in sizes], np.float64) for name in ("token_vectors", "bytes", "ms_p50")
        )
        rest = size - np.array([self._known(int(t)) for t in tokens])
        self.codes = float(np.sum(tokens * rest / size**2) / np.sum((tokens / size) ** 2))
        terms: NDArray[np.float64] = np.stack([np.ones_like(tokens), np.sqrt(tokens)], axis=1) / ms[:, None]
        self.fixed, self.growing = np.linalg.lstsq(terms, np.ones_like(ms), rcond=None)[0].tolist()

    def _known(self, tokens: int) -> float:
        return tokens * self.dim * self.bits / 8 + token_lists(tokens) * self.dim * 4

    def bytes(self, tokens: int) -> float:
        return self._known(tokens) + tokens * self.codes

    def ms(self, tokens: int) -> float:
        return self.fixed + self.growing * tokens**0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--passages", type=int, nargs="*", default=[10_000, 50_000, 100_000])
    parser.add_argument("--shard", type=int, default=5_000_000, help="passages a shard in the table")
    parser.add_argument("--out", type=Path, help="where the figures are kept, for benchmarks/fan_out.py")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sizes, dim = [], 0
    for count in options.passages:
        collection = Collection(options.vectors, count, options.work)
        dim = collection.dim
        sizes.append(measured(collection, options.bits, options.work))
    whole = Formula(sizes, dim, options.bits)
    print(f"codes {whole.codes:.2f} bytes, fixed {whole.fixed:.2f} ms, growing {whole.growing:.6f} ms")
    print(f"{'passages':>12}{'bytes a vector':>16}{'off by':>9}{'ms':>8}{'off by':>9}{'Recall@10':>11}")
    for at, each in enumerate(sizes):
        others = Formula(sizes[:at] + sizes[at + 1 :], dim, options.bits)
        tokens, size, ms = int(each["token_vectors"]), float(each["bytes"]), float(each["ms_p50"])
        each["bytes_off"] = round(others.bytes(tokens) / size - 1, 4)
        each["ms_off"] = round(others.ms(tokens) / ms - 1, 4)
        print(
            f"{each['passages']:>12,}{size / tokens:>16.1f}{each['bytes_off']:>+9.1%}{ms:>8.2f}"
            f"{each['ms_off']:>+9.1%}{each['recall_at_10']:>11.3f}"
        )
    last = sizes[-1]
    tokens_each = int(last["token_vectors"]) / int(last["passages"])
    for passages in PASSAGES:
        shards = max(1, -(-passages // options.shard))
        tokens = int(passages / shards * tokens_each)
        print(
            f"{passages:>12,} passages: {shards} shards of {whole.bytes(tokens) / 2**30:.1f} GiB, "
            f"{whole.ms(tokens):.0f} ms of processor time each, {shards * whole.ms(tokens) / 1000:.2f} s in all"
        )
    if options.out:
        formula = {"codes": whole.codes, "fixed_ms": whole.fixed, "growing_ms": whole.growing}
        record = {
            "dim": dim,
            "bits": options.bits,
            "tokens_a_passage": tokens_each,
            "formula": formula,
            "sizes": sizes,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
