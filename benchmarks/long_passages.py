"""What windows are worth: bury each passage among others, and ask the same questions of the long texts.

`--joined` passages, drawn at random, make one long text; a question's answer is the text that its passage went into.
The same long texts are ranked exactly, cut at the student's limit and in windows. The data directory holds
`passages.jsonl.gz` (or `.jsonl`), `queries.LANG.tsv` and `qrels.trec`.

Example: python benchmarks/long_passages.py --student models/drdecr-16 --data dev --languages ar,de,en,es,zh
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import fmean

from drdecr.corpus import Qrels, Query, read_passages, read_qrels, read_queries
from drdecr.encoder.batching import concatenate
from drdecr.encoder.load import load_encoder
from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import Windowed, encode_windows, join
from training.evaluation.measures import Run
from training.evaluation.ranking import rank_encoded

_TEXTS_AT_ONCE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", default="de,en")
    parser.add_argument("--queries", type=int, default=300, help="of each language, from the start of its file")
    parser.add_argument("--joined", type=int, default=6, help="passages in a long text")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    encoder = load_encoder(options.student, threads=options.threads)
    texts, home = _long_texts(options.data, options.joined)
    qrels = {
        query: {home[passage]: 1 for passage, grade in judged.items() if grade > 0 and passage in home}
        for query, judged in read_qrels(options.data / "qrels.trec").items()
    }
    ids = [str(number) for number in range(len(texts))]
    whole, cut = _encode(encoder, texts)
    print(
        json.dumps(
            {"long_texts": len(texts), "windows": len(whole.windows), "passage_length": encoder.spec.passage_length}
        )
    )
    for lang in options.languages.split(","):
        found = [query for query in read_queries(options.data / f"queries.{lang}.tsv") if qrels.get(query.id)]
        asked = found[: options.queries]
        row = {"language": lang, "queries": len(asked)}
        for name, passages in (("cut", cut), ("windows", whole)):
            run = rank_encoded(encoder, asked, passages, ids, 10)
            row |= {f"{name}_R@{k}": round(_success(run, asked, qrels, k), 3) for k in (1, 10)}
        print(json.dumps(row))


def _long_texts(data: Path, joined: int) -> tuple[list[str], dict[str, str]]:
    """Return the long texts, and the number of the one that each passage went into."""
    (file, *_) = [path for path in (data / "passages.jsonl.gz", data / "passages.jsonl") if path.is_file()]
    passages = list(read_passages(file))
    random.Random(0).shuffle(passages)
    groups = [passages[start : start + joined] for start in range(0, len(passages), joined)]
    home = {passage.id: str(number) for number, group in enumerate(groups) for passage in group}
    return ["\n\n".join(passage.content for passage in group) for group in groups], home


def _encode(encoder: Encoder, texts: list[str]) -> tuple[Windowed, Windowed]:
    starts = range(0, len(texts), _TEXTS_AT_ONCE)
    parts = [texts[start : start + _TEXTS_AT_ONCE] for start in starts]
    cut = concatenate([encoder.encode(part, "passage") for part in parts])
    return join([encode_windows(encoder, part) for part in parts]), Windowed.whole(cut)


def _success(run: Run, queries: list[Query], qrels: Qrels, k: int) -> float:
    return fmean(any(text in qrels[query.id] for text in list(run[query.id])[:k]) for query in queries)


if __name__ == "__main__":
    main()
