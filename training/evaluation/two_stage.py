"""The teacher as a system: a translator, then the English retriever; what it finds and what it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from drdecr.corpus import Query
from training.evaluation.measures import Run
from training.evaluation.snapshot_run import SnapshotRanker
from training.translators.translator import Translator, open_translator

# Enough for a mean that a slow query does not make, few enough for a neural translator.
_TIMED_QUERIES = 40
_WARM_UP = 3

Costs = dict[str, float | None]
"""step -> milliseconds a query; None for human translation, which no clock here measures"""


@dataclass(frozen=True, slots=True)
class TwoStageTeacher:
    """Queries in any language over a translator for each, answered by the teacher's own snapshot."""

    translators: Mapping[str, Translator]
    ranker: SnapshotRanker

    @classmethod
    def open(cls, spec: str, languages: Sequence[str], ranker: SnapshotRanker) -> TwoStageTeacher:
        """Open a translator for every language (see `open_translator`)."""
        return cls({lang: open_translator(spec, lang) for lang in languages}, ranker)

    @property
    def name(self) -> str:
        names = dict.fromkeys(translator.name for translator in self.translators.values())
        return f"{', '.join(names)} + {self.ranker.encoder.spec.name}"

    def rank(self, lang: str, queries: Sequence[Query], k: int) -> Run:
        """Translate and rank."""
        english = self.translators[lang].translate(queries)
        return self.ranker.rank([replace(query, text=text) for query, text in zip(queries, english, strict=True)], k)

    def costs(self, queries: Mapping[str, Sequence[Query]], k: int) -> Costs:
        """Measure milliseconds a query by step: translated together, then encoded and searched one by one."""
        translated: list[Query] = []
        elapsed: list[float | None] = []
        for lang, some in _sample(queries).items():
            translator = self.translators[lang]
            translator.translate(some[:_WARM_UP])
            started = time.perf_counter()
            english = translator.translate(some)
            spent = (time.perf_counter() - started) * 1000 / len(some)
            elapsed += [None if translator.is_human else spent] * len(some)
            translated += [replace(query, text=text) for query, text in zip(some, english, strict=True)]
        measured = [one for one in elapsed if one is not None]
        translate = fmean(measured) if measured else None
        found = retrieval_costs(self.ranker, translated, k)
        return _summed({"translate": translate, **found})


def student_costs(ranker: SnapshotRanker, queries: Mapping[str, Sequence[Query]], k: int) -> Costs:
    """Measure the student's milliseconds a query by step, on the queries that the teacher is timed on."""
    return _summed(retrieval_costs(ranker, [query for some in _sample(queries).values() for query in some], k))


def retrieval_costs(ranker: SnapshotRanker, queries: Sequence[Query], k: int) -> Costs:
    """Measure encoding and searching, a query at a time, as they come to a service."""
    encode, search = [], []
    for query in (*queries[:_WARM_UP], *queries):
        started = time.perf_counter()
        encoded = ranker.encoder.encode([query.text], "query")
        between = time.perf_counter()
        ranker.snapshot.search(encoded, k)
        encode.append((between - started) * 1000)
        search.append((time.perf_counter() - between) * 1000)
    warm = min(_WARM_UP, len(queries))
    return {"encode": fmean(encode[warm:]), "search": fmean(search[warm:])}


def cost_table(rows: Mapping[str, Costs]) -> str:
    """Return an aligned text table of milliseconds a query: a row a system, a column a step."""
    steps = ("translate", "encode", "search", "total")
    width = max(len("ms a query"), *map(len, rows))
    lines = [f"{'ms a query':{width}}" + "".join(f"{step:>12}" for step in steps)]
    for name, costs in rows.items():
        shown = [costs.get(step) for step in steps]
        lines.append(f"{name:{width}}" + "".join(f"{'-':>12}" if one is None else f"{one:>12.1f}" for one in shown))
    return "\n".join(lines)


def _sample(queries: Mapping[str, Sequence[Query]]) -> dict[str, Sequence[Query]]:
    share = max(1, _TIMED_QUERIES // len(queries))
    return {lang: some[:share] for lang, some in queries.items()}


def _summed(costs: Costs) -> Costs:
    return {**costs, "total": sum(one for one in costs.values() if one is not None)}
