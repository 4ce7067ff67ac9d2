"""A retriever as LangChain knows it (`invoke`, `ainvoke`, `batch`), without depending on LangChain.

`Document` has the same fields, so a chain that takes documents takes these.

Example: python examples/retriever.py "画像を編集するプログラム" --index debian
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from service.client import AsyncClient, Client
from service.schemas import HitBody


@dataclass(frozen=True)
class Document:
    """A passage that was found."""

    page_content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Retriever:
    """Finds documents by a query in any language; `wishes` are the other fields of `service.schemas.BatchQuery`."""

    url: str
    index: str
    key: str | None = None
    wishes: dict[str, Any] = field(default_factory=lambda: {"k": 4})

    def invoke(self, query: str) -> list[Document]:
        """Return the documents of one query."""
        with Client(self.url, key=self.key) as client:
            return documents(client.search(self.index, query, **self.wishes).hits)

    async def ainvoke(self, query: str) -> list[Document]:
        """Return the documents of one query, without blocking."""
        async with AsyncClient(self.url, key=self.key) as client:
            return documents((await client.search(self.index, query, **self.wishes)).hits)

    def batch(self, queries: Sequence[str]) -> list[list[Document]]:
        """Return the documents of many queries, by one request. Raises: RuntimeError where one of them failed."""
        with Client(self.url, key=self.key) as client:
            results = client.search_batch([{"query": query, **self.wishes} for query in queries], index=self.index)
        for query, result in zip(queries, results.results, strict=True):
            if result.error is not None:
                raise RuntimeError(f"{query!r}: {result.error.detail}")
        return [documents(result.hits or []) for result in results.results]


def documents(hits: Sequence[HitBody]) -> list[Document]:
    """Turn hits into documents; score and title go into the metadata."""
    return [
        Document(
            page_content=hit.text or (hit.snippet.text if hit.snippet else ""),
            metadata={**hit.metadata, "score": hit.score, "title": hit.title},
            id=hit.id,
        )
        for hit in hits
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", nargs="+")
    parser.add_argument("--service", default="http://127.0.0.1:8080")
    parser.add_argument("--key", help="an API key of the service")
    parser.add_argument("--index", required=True)
    options = parser.parse_args()
    for found in Retriever(options.service, options.index, options.key).batch(options.query):
        for document in found:
            print(f"{document.metadata['score']:6.2f}  {document.id}  {document.page_content[:80]!r}")


if __name__ == "__main__":
    main()
