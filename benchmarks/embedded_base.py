"""Take a student of the embedded kind apart: what each stream, their combination and the projection are worth.

With `--bridge-shares`, also what the bridge is worth: the untrained student's bridge, which has a share of SHARE
(training/transfer/bridge.py), is scaled to others.

The data directory holds `passages.jsonl.gz` (or `.jsonl`), `queries.LANG.tsv` and `qrels.trec`. Scores are success@1
and success@10, by exact ranking; `both + sentence` is the untrained student at full width. The
rows above the student's have no query weights and no length prior; the student is also ranked without either.

Example: python benchmarks/embedded_base.py --student run/models/base --teacher run/models/teacher --data dev
    --languages ar,de,es,zh --queries 500
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder

from drdecr.corpus import Qrels, Query, read_passages, read_qrels, read_queries
from drdecr.encoder.batching import concatenate
from drdecr.encoder.load import load_encoder
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.encoder.types import Encoded, Encoder, Kind
from training.evaluation.ranking import relevance
from training.transfer.bridge import SHARE

System = tuple[str, slice, float]
# The settings of a student that ranks by its vectors alone.
PLAIN = {"query_weights": False, "length_prior": None}


def main() -> None:
    options = _options()
    ids, texts = _passages(options.data)
    qrels = read_qrels(options.data / "qrels.trec")
    queries = {
        lang: [query for query in read_queries(options.data / f"queries.{lang}.tsv") if query.id in qrels]
        for lang in options.languages.split(",")
    }
    queries = {lang: _some(of_lang, options.queries) for lang, of_lang in queries.items()}
    rows: dict[str, dict[str, list[float]]] = {}

    model = load_model(options.student, device="cpu")
    if "token_features" in model(model.preprocess(["a"])):
        wide = _Features(model, options.student)
        half = wide.context_width
        systems: list[System] = [
            ("contextual stream", slice(0, half), 0.0),
            ("n-gram stream", slice(half, None), 0.0),
            ("both streams", slice(None), 0.0),
            ("both + sentence, weight 0.5", slice(None), 0.5),
            ("both + sentence, weight 1", slice(None), 1.0),
        ]
        for share in options.bridge_shares or [None]:
            if share is not None:
                wide.set_bridge_share(share)
            note = "" if share is None else f", bridge {share:g}"
            passages = wide.encode(texts, "passage")
            for lang, asked in queries.items():
                encoded = wide.encode([query.text for query in asked], "query")
                for name, part, weight in systems:
                    scores = relevance(_part(encoded, part), _part(passages, part), weight)
                    rows.setdefault(name + note, {})[lang] = _success(scores, asked, ids, qrels)
                assert encoded.sentences is not None and passages.sentences is not None
                rows.setdefault("sentence vectors", {})[lang] = _success(
                    encoded.sentences @ passages.sentences.T, asked, ids, qrels
                )
    student = load_encoder(options.student)
    name = f"student, {student.spec.dim} dimensions, weight {student.spec.sentence_weight:g}"
    rows[name] = _rank(student, texts, queries, ids, qrels)
    whole = TorchEncoder.load(options.student, device="cpu")
    for setting, without in PLAIN.items():
        if getattr(whole.settings, setting):
            lacking = whole.settings.model_copy(update={setting: without})
            plain = TorchEncoder(whole.model, lacking, whole.spec.fingerprint)
            rows[f"the same without {setting.replace('_', ' ')}"] = _rank(plain, texts, queries, ids, qrels)
    if options.teacher:
        english = [query for query in read_queries(options.data / "queries.en.tsv") if query.id in qrels]
        asked = {"en": _some(english, options.queries)}
        rows["teacher, English queries"] = _rank(TorchEncoder.load(options.teacher), texts, asked, ids, qrels)
    _print(rows, as_json=options.json)


class _Features:
    """The student's token features before the projection."""

    def __init__(self, model: MultiVectorEncoder, path: Path) -> None:
        self.context_width = int(model[0].context.config.hidden_size)
        self._encoder = TorchEncoder.load(path)
        # Without what follows the streams, the vectors are their features.
        while len(self._encoder.model) > 1:
            del self._encoder.model[-1]
        width = model[0].get_embedding_dimension()
        self._encoder._spec = replace(self._encoder.spec, dim=width)
        self._encoder.settings = self._encoder.settings.model_copy(update={"dim": width, **PLAIN})
        self._streams = model[0]

    @torch.no_grad()
    def set_bridge_share(self, share: float) -> None:
        """Let the bridge give another share of the piece embeddings than it was fitted with."""
        streams = self._encoder.model[0]
        fitted = self._streams
        streams.bridge.weight.copy_(fitted.bridge.weight * (share / SHARE))
        weights = fitted.context.embedding.weights
        streams.context.embedding.weights.copy_(weights * ((1 - share) / (1 - SHARE)))

    def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
        return concatenate([self._encoder.encode(texts[i : i + 512], kind) for i in range(0, len(texts), 512)])


def _part(encoded: Encoded, part: slice) -> Encoded:
    vectors = encoded.vectors[:, part]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return replace(encoded, vectors=np.ascontiguousarray(unit))


def _rank(
    encoder: Encoder, texts: list[str], queries: dict[str, list[Query]], ids: list[str], qrels: Qrels
) -> dict[str, list[float]]:
    passages = encoder.encode(texts, "passage")
    return {
        lang: _success(
            relevance(encoder.encode([q.text for q in asked], "query"), passages, encoder.spec.sentence_weight),
            asked,
            ids,
            qrels,
        )
        for lang, asked in queries.items()
    }


def _success(scores: np.ndarray, queries: list[Query], ids: list[str], qrels: Qrels) -> list[float]:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    hits = [[ids[at] in qrels[query.id] for at in row] for row, query in zip(best, queries, strict=True)]
    return [fmean(row[0] for row in hits), fmean(any(row) for row in hits)]


def _passages(data: Path) -> tuple[list[str], list[str]]:
    files = [path for path in (data / "passages.jsonl.gz", data / "passages.jsonl") if path.is_file()]
    passages = list(read_passages(files[0]))
    return [passage.id for passage in passages], [passage.content for passage in passages]


def _some(queries: list[Query], limit: int) -> list[Query]:
    order = np.random.default_rng(0).permutation(len(queries))[:limit]
    return [queries[at] for at in sorted(order)]


def _print(rows: dict[str, dict[str, list[float]]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    languages = list(dict.fromkeys(lang for row in rows.values() for lang in row))
    width = max(len(name) for name in rows) + 2
    print(f"{'success@1 / @10':{width}}" + "".join(f"{lang:>13}" for lang in (*languages, "mean")))
    for name, row in rows.items():
        mean = [fmean(one[at] for one in row.values()) for at in (0, 1)]
        cells = [row.get(lang) for lang in languages] + [mean]
        print(f"{name:{width}}" + "".join(f"{c[0]:>7.3f}/{c[1]:.3f}" if c else f"{'':>13}" for c in cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="also rank with the teacher and the English queries")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", default="ar,de,es,zh")
    parser.add_argument("--queries", type=int, default=500, help="queries a language")
    parser.add_argument("--bridge-shares", type=float, nargs="*", help="rank with these shares of the bridge")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
