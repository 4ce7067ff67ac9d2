"""`AsyncClient`: the client of a program on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar, cast

import httpx
from pydantic import BaseModel

from drdecr.collections.records import Mode
from service.client import calls, data_calls
from service.client.call import Call, http_options, request_of
from service.client.data_calls import Alias
from service.client.lines import Json, PathLike
from service.client.retries import Retries, exchanged
from service.client.waiting import OnProgress, waited
from service.schemas import BatchResponse, EncodeResponse, HitBody, RerankResponse, SearchParams, SearchResponse
from service.schemas_data import AliasBody, ArchiveBody, JobBody, TargetBody, UploadBody
from service.schemas_state import HealthBody, IndexBody, InfoBody, PassageBody

_Answer = TypeVar("_Answer", bound=BaseModel)


class AsyncClient:
    """Talks to one service from one event loop; close it, or use it in an `async with` block.

    `key` is an API key of the service, `timeout_s` the longest wait for one answer. `transport` replaces the network
    in tests. Every method raises `ServiceError`; what the service asks to send again is sent again (see `Retries`).
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**http_options(url, key, timeout_s), transport=transport)
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(
        self,
        index: str,
        query: str,
        *,
        k: int = 10,
        filter: Json | None = None,
        cursor: str | None = None,
        snippet: int | None = None,
        highlight: bool = False,
        explain: bool = False,
        params: SearchParams | Json | None = None,
        complete: bool = False,
        timeout_ms: int | None = None,
    ) -> SearchResponse:
        """Find passages by a query in any language; the arguments are those of `service.schemas.SearchRequest`."""
        wishes = {"k": k, "filter": filter, "cursor": cursor, "snippet": snippet, "highlight": highlight}
        # An older service knows nothing of `complete`.
        rest = {"explain": explain, "params": params, "complete": complete or None, "timeout_ms": timeout_ms}
        return await self._send(calls.search(index, query, **wishes, **rest))

    async def search_all(self, index: str, query: str, *, page: int = 100, **wishes: Any) -> AsyncIterator[HitBody]:
        """Yield hits page by page, all of one version of the index; `wishes` are those of `search`."""
        cursor = None
        while True:
            found = await self.search(index, query, k=page, cursor=cursor, **wishes)
            for hit in found.hits:
                yield hit
            if (cursor := found.next_cursor) is None:
                return

    async def search_batch(
        self, queries: Sequence[str | Json], *, index: str | None = None, timeout_ms: int | None = None
    ) -> BatchResponse:
        """Answer up to 1,000 queries, each a text or the fields of `service.schemas.BatchQuery`; see each `error`."""
        return await self._send(calls.search_batch(queries, index=index, timeout_ms=timeout_ms))

    async def encode(
        self,
        texts: Sequence[str],
        kind: Literal["query", "passage"] = "query",
        *,
        format: Literal["float", "base64"] = "float",
        timeout_ms: int | None = None,
    ) -> EncodeResponse:
        """Return the token vectors of texts."""
        return await self._send(calls.encode(texts, kind=kind, format=format, timeout_ms=timeout_ms))

    async def rerank(
        self, query: str, texts: Sequence[str], *, k: int | None = None, timeout_ms: int | None = None
    ) -> RerankResponse:
        """Order texts by their relevance to a query."""
        return await self._send(calls.rerank(query, texts, k=k, timeout_ms=timeout_ms))

    async def passage(self, index: str, passage_id: str) -> PassageBody:
        """Return a stored passage."""
        return await self._send(calls.passage(index, passage_id))

    async def indexes(self) -> list[IndexBody]:
        """List what can be searched."""
        return (await self._send(calls.indexes())).indexes

    async def index(self, name: str) -> IndexBody:
        """Describe an index: its version, its size."""
        return await self._send(calls.index(name))

    async def info(self) -> InfoBody:
        """Return which model, indexes and build the service runs."""
        return await self._send(calls.info())

    async def health(self) -> HealthBody:
        """Return the checks of readiness, also where one fails."""
        return await self._send(calls.health())

    async def create_index(
        self, name: str, *, bits: data_calls.Bits = 16, dims: int | None = None, pool: float = 1.0
    ) -> IndexBody:
        """Make an index without versions; `bits` is what a dimension of a token vector takes.

        `dims` keeps the first dimensions of each, `pool` about one of so many token vectors of a passage.
        """
        return await self._send(data_calls.create_index(name, bits=bits, dims=dims, pool=pool))

    async def drop_index(self, name: str) -> None:
        """Drop an index and all its versions; its archives stay."""
        await self._send(data_calls.drop_index(name))

    async def aliases(self) -> list[AliasBody]:
        """List the aliases and what they point at."""
        return (await self._send(data_calls.aliases())).aliases

    async def alias(self, name: str) -> Alias:
        """Tell what an alias points at, and its `etag`."""
        return await self._send(data_calls.alias(name))

    async def switch_alias(
        self,
        name: str,
        index: str,
        number: int | None = None,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout_s: float | None = None,
    ) -> Alias:
        """Point an alias at a version, the newest unless a number is given; who asks afterwards gets it.

        `if_match` is the `etag` that the alias must have, `if_none_match="*"` only makes a new alias; else the error
        has status 412. The version is opened and verified first: a large one may take more `timeout_s` than others.
        """
        conditions = {"if_match": if_match, "if_none_match": if_none_match}
        return await self._send(data_calls.switch_alias(name, index, number, **conditions, timeout_s=timeout_s))

    async def rollback_alias(self, name: str, *, timeout_s: float | None = None) -> Alias:
        """Point an alias at what it pointed at before, unless somebody switches it meanwhile (status 412)."""
        return await self._send(data_calls.back(await self.alias(name), timeout_s=timeout_s))

    async def drop_alias(self, name: str, *, if_match: str | None = None) -> None:
        """Drop an alias; the version that it pointed at stays."""
        await self._send(data_calls.drop_alias(name, if_match=if_match))

    async def upload_passages(
        self, index: str, passages: Iterable[Json] | PathLike, *, timeout_s: float | None = None
    ) -> UploadBody:
        """Stage passages for the next build: dicts of `id`, `text`, `title`, `metadata`, or a JSONL file (gzip too).

        They are drawn while they are sent. What an iterator has given away cannot be sent again: a list, a file or an
        object that can be iterated anew can. See `rejected` and `errors` of the answer for lines that are not staged.
        Raises: InputError for a file that cannot be read; nothing of it is staged then.
        """
        return await self._send(data_calls.upload_passages(index, passages, timeout_s=timeout_s))

    async def upload_deletions(
        self, index: str, ids: Iterable[str] | PathLike, *, timeout_s: float | None = None
    ) -> UploadBody:
        """Stage deletions for the next build: ids, or a file of `{"id"}` a line (a `str` is its path)."""
        return await self._send(data_calls.upload_deletions(index, ids, timeout_s=timeout_s))

    async def start_build(self, index: str, mode: Mode = "incremental", *, key: str | None = None) -> JobBody:
        """Queue a build of what is staged; wait for it with `wait`.

        The same `key` for the same index is the same job, also from another process. Without one, each call is a job.
        """
        return await self._send(data_calls.start_build(index, mode, key=key))

    async def jobs(self, *, index: str | None = None, limit: int = 100, offset: int = 0) -> list[JobBody]:
        """List jobs, the newest first."""
        return (await self._send(data_calls.jobs(index=index, limit=limit, offset=offset))).jobs

    async def job(self, job: JobBody | str) -> JobBody:
        """Tell how far a job, or the one with this id, is."""
        return await self._send(data_calls.job(job))

    async def cancel_job(self, job: JobBody | str) -> JobBody:
        """Cancel a job; status 409 where it has ended otherwise."""
        return await self._send(data_calls.cancel_job(job))

    async def wait(
        self,
        job: JobBody | str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 0.5,
        on_progress: OnProgress | None = None,
    ) -> JobBody:
        """Look at a job every `poll_s` seconds until it has succeeded; return it, with the `number` of its version.

        `on_progress` is called with the job whenever it has changed. The error has the code `job_failed`,
        `job_cancelled`, or `job_not_ended` after `timeout_s` seconds: the job goes on, and may be waited for again.
        """
        waiting = waited(timeout_s, poll_s, on_progress)
        pause_s = next(waiting)
        while True:
            await asyncio.sleep(pause_s)
            try:
                pause_s = waiting.send(await self.job(job))
            except StopIteration as end:
                return cast(JobBody, end.value)

    async def archives(self, index: str) -> list[ArchiveBody]:
        """List the archives of an index, also of one that was dropped."""
        return (await self._send(data_calls.archives(index))).snapshots

    async def archive(self, index: str, number: int | None = None, *, timeout_s: float | None = None) -> ArchiveBody:
        """Archive a version, the newest unless a number is given.

        All of it is written before the answer: a large one may take more `timeout_s` than others.
        """
        return await self._send(data_calls.archive(index, number, timeout_s=timeout_s))

    async def drop_archive(self, index: str, archive_id: str) -> None:
        """Delete an archive."""
        await self._send(data_calls.drop_archive(index, archive_id))

    async def restore(
        self, index: str, archive_id: str, *, of: str | None = None, timeout_s: float | None = None
    ) -> TargetBody:
        """Make an archive, of this index or `of` another, the newest version of it; `timeout_s` as for `archive`."""
        return await self._send(data_calls.restore(index, archive_id, of=of, timeout_s=timeout_s))

    async def _send(self, call: Call[_Answer]) -> _Answer:
        exchange = exchanged(call, self._retries, str(self._http.base_url))
        pause_s = next(exchange)
        while True:
            await asyncio.sleep(pause_s)
            answer: httpx.Response | httpx.TransportError
            try:
                content = None if call.lines is None else call.lines.sent_async()
                answer = await self._http.send(request_of(self._http, call, content))
            except httpx.TransportError as problem:
                answer = problem
            try:
                pause_s = exchange.send(answer)
            except StopIteration as end:
                return cast(_Answer, end.value)
