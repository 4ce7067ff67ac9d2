"""An engine in memory: words are tokens, equal words have equal vectors, search is brute force."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from drdecr.encoder.windows import Windowed
from drdecr.index.backend import Hit, Reach, SearchParams, StageTimes
from drdecr.index.filters import Filter
from service.engine import Engine, ServedIndex
from service.searching import relevance

DIM = 16
DEFAULT_PARAMS = SearchParams()
SPEC = EncoderSpec("fake", "f" * 64, DIM, DIM, 0.5, query_length=8, passage_length=16)
PASSAGES = (
    Passage("cat", "A cat sleeps on the mat.", "The cat"),
    Passage("dog", "A dog barks at the moon."),
    Passage("a/b?c", "Nobody reads slashes in ids.", None, {"section": "odd", "tags": ["x", "y"]}),
    Passage("image", "An editor for pictures and drawings", "Image editor", {"popular": True}),
)


def _vector(word: str) -> np.ndarray:
    row = np.random.default_rng(zlib.crc32(word.lower().encode("utf-8"))).standard_normal(DIM).astype(np.float32)
    return row / np.linalg.norm(row)


@dataclass(frozen=True)
class FakeTokens:
    """A text as if it were tokenised."""

    text: str
    kind: Kind

    @property
    def ids(self) -> list[str]:
        return self.text.split()


class FakeEncoder:
    """Encodes words; `gate`, when set to a closed event, holds the encoding back."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.texts: list[str] = []
        self.batches: list[list[str]] = []
        self.error: Exception | None = None

    @property
    def spec(self) -> EncoderSpec:
        return SPEC

    def forget(self) -> None:
        """Forget the texts of the warm-up."""
        self.texts.clear()
        self.batches.clear()
        self.entered = threading.Semaphore(0)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[FakeTokens]:
        return [FakeTokens(text, kind) for text in texts]

    def encode_tokens(self, tokens: Sequence[FakeTokens], *, progress: Progress | None = None) -> Encoded:
        encoded = self.encode([each.text for each in tokens], tokens[0].kind)
        if progress is not None:
            progress(len(tokens))
        return encoded

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        self.entered.release()
        self.batches.append(list(texts))
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.texts.extend(texts)
        limit = SPEC.query_length if kind == "query" else SPEC.passage_length
        words = [list(re.finditer(r"\w+", text)) for text in texts]
        kept = [found[:limit] for found in words]
        flat = [match for found in kept for match in found]
        return Encoded(
            vectors=np.stack([_vector(match.group()) for match in flat]) if flat else np.empty((0, DIM), np.float32),
            offsets=np.cumsum([0, *map(len, kept)]),
            sentences=np.stack([_vector(text.strip()) for text in texts]),
            spans=np.array([match.span() for match in flat], np.int32).reshape(-1, 2),
            truncated=np.array([len(found) > limit for found in words]),
            unknown=np.array([1.0 if "ʘ" in text else 0.0 for text in texts], np.float32),
        )

    def encode_sentences(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        return np.stack([_vector(text.strip()) for text in texts])


@dataclass(frozen=True)
class FakeMatch:
    score: float
    span: tuple[int, int] | None
    also: tuple[tuple[int, int], ...] = ()


class FakeSnapshot:
    """Scores every passage for every query."""

    def __init__(self, passages: Sequence[Passage] = PASSAGES, version: str = "v1") -> None:
        self._passages = {passage.id: passage for passage in passages}
        self._ids = list(self._passages)
        self._encoded = Windowed.whole(FakeEncoder().encode([passage.content for passage in passages], "passage"))
        self._version = version
        self.params: list[SearchParams] = []
        self.filters: list[Filter | None] = []
        self.missing: set[str] = set()

    @property
    def version(self) -> str:
        return self._version

    def __len__(self) -> int:
        return len(self._passages)

    def search(
        self,
        queries: Encoded,
        k: int,
        params: SearchParams = DEFAULT_PARAMS,
        *,
        filter: Filter | None = None,
        times: StageTimes | None = None,
        reach: Reach | None = None,
    ) -> list[list[Hit]]:
        if reach is not None:
            reach.missing |= self.missing
        self.params.append(params)
        self.filters.append(filter)
        found = []
        for number in range(len(queries)):
            query = queries.select(number, number + 1)
            if not len(query.vectors):
                found.append([])
                continue
            scores = relevance(query, self._encoded, SPEC)
            best = np.argsort(-scores, kind="stable")[:k]
            found.append([Hit(self._ids[position], float(scores[position]), int(position)) for position in best])
        return found

    def passage(self, passage_id: str) -> Passage | None:
        return self._passages.get(passage_id)

    def passages_of(self, hits: Sequence[Hit], *, reach: Reach | None = None) -> Mapping[str, Passage]:
        return {hit.id: self._passages[hit.id] for hit in hits}

    def explain(self, query: Encoded, position: int, *, reach: Reach | None = None) -> list[FakeMatch]:
        passage = self._encoded.windows.select(position, position + 1)
        products = query.vectors @ passage.vectors.T
        return [
            FakeMatch(float(products[token, best]), tuple(passage.spans[best].tolist()))
            for token, best in enumerate(products.argmax(axis=1))
        ]

    def warm_up(self) -> None:
        pass


def fake_engine(encoder: FakeEncoder | None = None, **snapshots: FakeSnapshot) -> Engine:
    """Make an engine; one index `demo` over PASSAGES unless others are given."""
    indexes = snapshots or {"demo": FakeSnapshot()}
    served = {name: ServedIndex(name, snapshot) for name, snapshot in indexes.items()}
    return Engine(encoder or FakeEncoder(), served)
