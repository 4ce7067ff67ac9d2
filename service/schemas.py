"""The bodies of requests and answers, as OpenAPI shows them. Character positions count Unicode code points."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from drdecr.index.filters import Filter, check_size
from service.cursors import MAX_CURSOR_CHARS
from service.problems import ProblemBody

MAX_K = 1_000
MAX_EXPLAINED_K = 100
MAX_BATCH = 1_000
MAX_BATCH_HITS = 100_000
MAX_ENCODE_TEXTS = 64
MAX_RERANK_TEXTS = 256
MAX_TIMEOUT_MS = 60_000


class Request(BaseModel):
    """Base of bodies: no field that we do not know, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _take_whole_numbers(cls, value: object) -> object:
        """Take 10.0 for 10, as JSON Schema does."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, Field(json_schema_extra={"minLength": 1, "pattern": r"[^\s\u0000-\u001f\u007f-\u009f]"})]
"""A text of which something is left without white space and control characters; see `service.texts`."""

Timeout = Annotated[
    int | None,
    Field(
        ge=1, le=MAX_TIMEOUT_MS, description="Answer 504 after this many milliseconds; null: the service's own limit."
    ),
]


class SearchParams(Request):
    """How hard to look; null leaves it to the index, and a number wins over `effort`."""

    effort: Literal["fast", "balanced", "thorough"] | None = Field(
        default=None, description="null: balanced, which `drdecr index tune` may have set for this index."
    )
    nprobe: int | None = Field(default=None, ge=1, le=1_000_000, description="Clusters visited for each query token.")
    candidates: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Passages that are scored by their codes."
    )


Wanted = Annotated[
    Filter | None,
    BeforeValidator(check_size),
    Field(
        description="Which passages may be hits, by their metadata.",
        examples=[
            {"must": [{"field": "component", "eq": "mesh"}]},
            {
                "must": [{"field": "released", "range": {"gte": "2024-01-01", "lt": "2025"}}],
                "should": [{"field": "tags", "in": ["audio", "video"]}, {"field": "author.name", "eq": "Ada"}],
                "must_not": [{"field": "draft", "eq": True}],
            },
        ],
    ),
]


Snippet = Annotated[
    int | None,
    Field(
        ge=20,
        le=5_000,
        description="Instead of the text, so many characters of it around what matched; k at most"
        f" {MAX_EXPLAINED_K}.",
    ),
]


Complete = Annotated[
    bool, Field(description="Answer 503 rather than without some shards of an index that is served by a cluster.")
]


class SearchRequest(Request):
    """A question to one index."""

    query: Text = Field(description="In any language that the student knows.", examples=["画像を編集するプログラム"])
    k: int = Field(default=10, ge=1, le=MAX_K, description="The most hits to return.")
    filter: Wanted = None
    cursor: str | None = Field(
        default=None,
        max_length=MAX_CURSOR_CHARS,
        description=f"`next_cursor` of the page before; all else as there. Pages reach {MAX_K:,} hits.",
    )
    snippet: Snippet = None
    highlight: bool = Field(default=False, description=f"Mark what matched; k at most {MAX_EXPLAINED_K}.")
    explain: bool = Field(
        False, description=f"Tell which query token met which passage token; k at most {MAX_EXPLAINED_K}."
    )
    params: SearchParams = SearchParams()
    complete: Complete = False
    timeout_ms: Timeout = None


class BatchQuery(Request):
    """One question of a batch; `index` may be left to the batch."""

    query: Text
    index: str | None = None
    k: int = Field(default=10, ge=1, le=MAX_K)
    filter: Wanted = None
    snippet: Snippet = None
    highlight: bool = False
    explain: bool = False
    params: SearchParams = SearchParams()
    complete: Complete = False


class BatchRequest(Request):
    """Many questions at once. A wrong one fails alone, so items are checked one by one."""

    queries: list[Any] = Field(
        min_length=1,
        max_length=MAX_BATCH,
        json_schema_extra={"items": {"$ref": "#/components/schemas/BatchQuery"}},
    )
    index: str | None = Field(default=None, description="For the questions that name no index.")
    timeout_ms: Timeout = None


class EncodeRequest(Request):
    """Texts to turn into vectors."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_ENCODE_TEXTS)
    kind: Literal["query", "passage"] = "query"
    format: Literal["float", "base64"] = Field(
        default="float", description="base64: little-endian float32, row by row."
    )
    timeout_ms: Timeout = None


class RerankRequest(Request):
    """Texts to order by their relevance to a query."""

    query: Text
    texts: list[Text] = Field(min_length=1, max_length=MAX_RERANK_TEXTS)
    k: int | None = Field(default=None, ge=1, le=MAX_RERANK_TEXTS, description="The most results; null: all.")
    timeout_ms: Timeout = None


class Warned(BaseModel):
    """Something the client should know about an answer that is still an answer."""

    code: Literal["query_truncated", "text_truncated", "query_unknown", "query_empty"]
    message: str


class Range(BaseModel):
    """Characters [start, end) of a hit's title or text."""

    field: Literal["title", "text"]
    start: int
    end: int


class QuerySpan(BaseModel):
    """Characters [start, end) of the query."""

    start: int
    end: int
    text: str


class PassageSpan(Range):
    """Characters of a hit's title or text, and what stands there."""

    text: str


class TokenMatch(BaseModel):
    """A query token, and the passage token whose dot product with it is greatest."""

    query: QuerySpan
    passage: PassageSpan | None
    also: list[PassageSpan] = Field(
        default=[], description="The other tokens that its vector stands for, in an index that pools tokens."
    )
    score: float


class Explanation(BaseModel):
    """Where a score comes from: score = maxsim + sentence."""

    maxsim: float = Field(description="Sum of the tokens' scores.")
    sentence: float = Field(
        description="What sentences add: their vectors and, with a student's closeness, the best sentence's tokens."
    )
    tokens: list[TokenMatch]


class SnippetBody(BaseModel):
    """Characters [start, end) of a hit's text. Marks and explanations still count from the text's beginning."""

    start: int
    end: int
    text: str


class HitBody(BaseModel):
    """A passage found."""

    id: str
    score: float
    title: str | None
    text: str | None = Field(description="null where a snippet was asked for.")
    snippet: SnippetBody | None = None
    metadata: dict[str, Any]
    window: Range | None = Field(
        default=None,
        description="What scored a passage that is longer than the student reads: its best window; "
        "where the student scores passages by their sentences, the best one of several.",
    )
    highlights: list[Range] | None = None
    explanation: Explanation | None = None


class TookMs(BaseModel):
    """Milliseconds by stage; `total` also holds what lies between them."""

    queue: float = 0.0
    tokenise: float = 0.0
    encode: float = 0.0
    search: float = 0.0
    fetch: float = 0.0
    explain: float = 0.0
    total: float = 0.0


class SearchResponse(BaseModel):
    """The best passages first."""

    hits: list[HitBody]
    took_ms: TookMs
    index: str
    index_version: str
    next_cursor: str | None = Field(default=None, description="For the next page; null where there is none.")
    partial: bool = Field(
        default=False,
        description="Time pressed: the last hits lack marks or explanations; or `missing_shards` names what is out.",
    )
    missing_shards: list[str] = Field(
        default=[],
        description="Shards that gave no answer: passages of theirs are not among the hits, or lack marks.",
    )
    warnings: list[Warned]


class BatchResult(BaseModel):
    """The answer to one question of a batch: hits, or a problem."""

    status: int
    hits: list[HitBody] | None = None
    index: str | None = None
    index_version: str | None = None
    partial: bool = False
    missing_shards: list[str] = []
    warnings: list[Warned] = []
    error: ProblemBody | None = None


class BatchResponse(BaseModel):
    """One result for each question, in their order."""

    results: list[BatchResult]
    took_ms: TookMs
    partial: bool = Field(default=False, description="The deadline passed before all questions were answered.")


class Embedding(BaseModel):
    """Vectors of one text. `vectors`: one row a token, L2-normalised; `spans`: the characters each row stands for.

    The rows of a query have lengths of mean 1 where the student weighs its tokens.
    """

    vectors: list[list[float]] | str
    sentence: list[float] | str | None
    spans: list[tuple[int, int]]
    warnings: list[Warned]


class EncodeResponse(BaseModel):
    """One embedding for each text, in their order."""

    student: str
    dim: int
    sentence_dim: int
    embeddings: list[Embedding]
    took_ms: TookMs


class RerankResult(BaseModel):
    """The text at `index` of the request and its relevance."""

    index: int
    score: float


class RerankResponse(BaseModel):
    """The most relevant text first."""

    results: list[RerankResult]
    took_ms: TookMs
    warnings: list[Warned]
