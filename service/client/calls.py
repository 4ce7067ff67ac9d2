"""The requests that ask and read, as both clients send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from service.client.call import Call, given, segment
from service.client.lines import Json
from service.schemas import BatchResponse, EncodeResponse, RerankResponse, SearchResponse
from service.schemas_state import HealthBody, IndexBody, IndexList, InfoBody, PassageBody

_Answer = TypeVar("_Answer", bound=BaseModel)
# Beside the deadline: the way there and back, and the reading of a batch, for which the service gives more time.
_WAY_S = 15.0


def search(index: str, query: str, **wishes: Any) -> Call[SearchResponse]:
    """`wishes` are the other fields of `service.schemas.SearchRequest`; one that is None is left out."""
    return _asking(SearchResponse, f"/v1/indexes/{segment(index)}/search", {"query": query}, wishes)


def search_batch(queries: Sequence[str | Json], **rest: Any) -> Call[BatchResponse]:
    """A query that is only a text has no wishes of its own."""
    items = [{"query": query} if isinstance(query, str) else given(query) for query in queries]
    return _asking(BatchResponse, "/v1/search/batch", {"queries": items}, rest)


def encode(texts: Sequence[str], **wishes: Any) -> Call[EncodeResponse]:
    return _asking(EncodeResponse, "/v1/encode", {"texts": list(texts)}, wishes)


def rerank(query: str, texts: Sequence[str], **wishes: Any) -> Call[RerankResponse]:
    return _asking(RerankResponse, "/v1/rerank", {"query": query, "texts": list(texts)}, wishes)


def passage(index: str, passage_id: str) -> Call[PassageBody]:
    rest = "/".join(map(segment, passage_id.split("/")))
    return Call(PassageBody, "GET", f"/v1/indexes/{segment(index)}/passages/{rest}")


def _asking(answer: type[_Answer], path: str, body: Json, wishes: Mapping[str, Any]) -> Call[_Answer]:
    """Return a call whose client waits for as long as the service may take, and for the way."""
    timeout_ms = wishes.get("timeout_ms")
    at_least_s = None if timeout_ms is None else timeout_ms / 1_000 + _WAY_S
    return Call(answer, "POST", path, {**body, **given(wishes)}, at_least_s=at_least_s)


def indexes() -> Call[IndexList]:
    return Call(IndexList, "GET", "/v1/indexes")


def index(name: str) -> Call[IndexBody]:
    return Call(IndexBody, "GET", f"/v1/indexes/{segment(name)}")


def info() -> Call[InfoBody]:
    return Call(InfoBody, "GET", "/v1/info")


def health() -> Call[HealthBody]:
    return Call(HealthBody, "GET", "/readyz", also=frozenset({503}))
