"""What a smaller index costs: bytes a passage beside the quality of the ranking, for each --bits, --dims and --pool.

The passages are encoded once, their first windows, and one snapshot is built of the vectors for each combination.
The data directory holds `passages.jsonl.gz` (or `.jsonl`), `queries.LANG.tsv` and `qrels.trec`. Bytes are all but the
texts; R@k is the share of questions with an answer among the first k, over all languages but English; `same@10` the
share of the ten best of the first snapshot that a smaller one finds, both by exact search.

Example: python benchmarks/smaller_index.py --student models/drdecr-16 --data dev --languages en,de,ar,zh,es
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean

import numpy as np

from drdecr.corpus import Qrels, read_passages, read_qrels, read_queries
from drdecr.encoder.load import load_encoder
from drdecr.encoder.types import Encoded, Encoder
from drdecr.index import EXACT, SearchParams, Snapshot
from indexer.build import build_from_vectors

_K = 10


class Questions:
    """The questions of one language, encoded once."""

    def __init__(self, encoder: Encoder, path: Path, qrels: Qrels, most: int) -> None:
        found = [query for query in read_queries(path) if any(qrels.get(query.id, {}).values())][:most]
        self.ids = [query.id for query in found]
        self.encoded: Encoded = encoder.encode([query.text for query in found], "query")

    def search(self, snapshot: Snapshot, params: SearchParams) -> list[list[str]]:
        """Return each question's ten best passages."""
        return [[hit.id for hit in hits] for hits in snapshot.search(self.encoded, _K, params)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", default="de,en")
    parser.add_argument("--queries", type=int, default=100, help="of each language, from the start of its file")
    parser.add_argument("--bits", type=int, nargs="+", default=[16])
    parser.add_argument("--dims", type=int, nargs="+", help="the student's, then half of them and so on by default")
    parser.add_argument("--pool", type=float, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    encoder = load_encoder(options.student, threads=options.threads)
    qrels = read_qrels(options.data / "qrels.trec")
    asked = {
        lang: Questions(encoder, options.data / f"queries.{lang}.tsv", qrels, options.queries)
        for lang in options.languages.split(",")
    }
    dim = encoder.spec.dim
    whole: dict[str, list[list[str]]] | None = None
    with tempfile.TemporaryDirectory() as home:
        vectors = _encode(encoder, options.data, Path(home) / "passages.npz")
        for bits in options.bits:
            for pool in options.pool:
                for dims in options.dims or [dim, dim // 2, dim // 4]:
                    out = Path(home) / "snapshot"
                    began = time.process_time()
                    build_from_vectors(vectors, out, bits=bits, dims=dims, pool=pool, force=True)
                    row = {"bits": bits, "dims": dims, "pool": pool, "build_cpu_s": time.process_time() - began}
                    found = _measure(out, asked, qrels, row)
                    whole = whole or found
                    row["same@10"] = fmean(
                        len(set(one) & set(other)) / max(len(other), 1)
                        for lang in asked
                        for one, other in zip(found[lang], whole[lang], strict=True)
                    )
                    print(json.dumps({name: round(value, 3) for name, value in row.items()}), flush=True)


def _encode(encoder: Encoder, data: Path, out: Path) -> Path:
    (file, *_) = [path for path in (data / "passages.jsonl.gz", data / "passages.jsonl") if path.is_file()]
    passages = list(read_passages(file))
    encoded = encoder.encode([passage.content for passage in passages], "passage")
    arrays = {} if encoded.sentences is None else {"sentences": encoded.sentences}
    np.savez(
        out,
        vectors=encoded.vectors.astype(np.float16),
        offsets=encoded.offsets,
        ids=np.array([passage.id for passage in passages]),
        sentence_weight=encoder.spec.sentence_weight,
        fingerprint=encoder.spec.fingerprint,
        **arrays,
    )
    return out


def _measure(
    path: Path, asked: dict[str, Questions], qrels: Qrels, row: dict[str, float]
) -> dict[str, list[list[str]]]:
    with Snapshot.open(path) as snapshot:
        snapshot.warm_up()
        manifest = snapshot.manifest
        index = sum(file.size_bytes for name, file in manifest.paths().items() if not name.endswith(".sqlite"))
        row |= {"bytes_a_passage": index / len(snapshot), "vectors_a_passage": manifest.tokens / len(snapshot)}
        found = {lang: own.search(snapshot, EXACT) for lang, own in asked.items()}
        began = time.process_time()
        narrowed = {lang: own.search(snapshot, SearchParams()) for lang, own in asked.items()}
        row["cpu_ms_a_query"] = 1000 * (time.process_time() - began) / sum(len(own.ids) for own in asked.values())
    foreign = [lang for lang in asked if lang != "en"] or list(asked)
    for k in (1, _K):
        row[f"R@{k}"] = fmean(_success(asked[lang], found[lang], qrels, k) for lang in foreign)
        row[f"R@{k}_as_searched"] = fmean(_success(asked[lang], narrowed[lang], qrels, k) for lang in foreign)
        if "en" in asked:
            row[f"R@{k}_en"] = _success(asked["en"], found["en"], qrels, k)
    return found


def _success(asked: Questions, found: list[list[str]], qrels: Qrels, k: int) -> float:
    return fmean(
        any(qrels[query].get(each, 0) > 0 for each in hits[:k]) for query, hits in zip(asked.ids, found, strict=True)
    )


if __name__ == "__main__":
    main()
