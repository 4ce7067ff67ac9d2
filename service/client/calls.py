"""The requests that ask and read, as both clients send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from service.client.call import Call, given, segment
from service.client.lines import Json
from service.schemas import BatchResponse, EncodeResponse, RerankResponse, SearchResponse
from service.schemas_state import HealthBody, IndexBody, IndexList, InfoBody, PassageBody


def search(index: str, query: str, **wishes: Any) -> Call[SearchResponse]:
    """`wishes` are the other fields of `service.schemas.SearchRequest`; one that is None is left out."""
    return Call(SearchResponse, "POST", f"/v1/indexes/{segment(index)}/search", {"query": query, **given(wishes)})


def search_batch(queries: Sequence[str | Json], **rest: Any) -> Call[BatchResponse]:
    """A query that is only a text has no wishes of its own."""
    items = [{"query": query} if isinstance(query, str) else dict(query) for query in queries]
    return Call(BatchResponse, "POST", "/v1/search/batch", {"queries": items, **given(rest)})


def encode(texts: Sequence[str], **wishes: Any) -> Call[EncodeResponse]:
    return Call(EncodeResponse, "POST", "/v1/encode", {"texts": list(texts), **given(wishes)})


def rerank(query: str, texts: Sequence[str], **wishes: Any) -> Call[RerankResponse]:
    return Call(RerankResponse, "POST", "/v1/rerank", {"query": query, "texts": list(texts), **given(wishes)})


def passage(index: str, passage_id: str) -> Call[PassageBody]:
    return Call(PassageBody, "GET", f"/v1/indexes/{segment(index)}/passages/{quote(passage_id)}")


def indexes() -> Call[IndexList]:
    return Call(IndexList, "GET", "/v1/indexes")


def index(name: str) -> Call[IndexBody]:
    return Call(IndexBody, "GET", f"/v1/indexes/{segment(name)}")


def info() -> Call[InfoBody]:
    return Call(InfoBody, "GET", "/v1/info")


def health() -> Call[HealthBody]:
    return Call(HealthBody, "GET", "/readyz", also=frozenset({503}))
