"""What every request passes: its id, its key, the size of its body, its log line and its metrics."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.deadline import ClientGoneError
from service.key_ring import KeyRing, TooManyAttemptsError
from service.metrics import Metrics
from service.problems import MEDIA_TYPE, Problem, from_http_exception
from service.rate_limit import RateLimits
from service.readiness import Readiness
from service.scopes import HELD, needed_scope, require
from service.stopwatch import WATCH_KEY, Stopwatch
from service.tracing import SPAN_KEY, Tracing

log = structlog.get_logger("service.request")

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"})
"""Answered without a key: they hold no passage and no figure of use."""

CLIENT_GONE = 499
"""What logs and metrics show, as other servers do, where nobody was left to answer."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_UPLOAD_PATH = re.compile(r"/v1/indexes/[^/]+/(passages|deletions)")
"""What is streamed to disk, and may be longer than what is held in memory."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""In no name and no id; patterns disagree on what a line feed at the end of a path matches."""

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(slots=True)
class _Exchange:
    """One request and how far its answer is."""

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    finished: bool = False


class Gate:
    """ASGI middleware around the whole app; also the last resort that turns a defect into a 500."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        key_rate: float,
        max_body_bytes: int,
        max_upload_bytes: int,
        slow_ms: int,
        metrics: Metrics,
        readiness: Readiness,
        tracing: Tracing,
    ) -> None:
        self._app = app
        self._keys = keys
        self._key_rate = key_rate
        self._limits = RateLimits()
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._slow_ms = slow_ms
        self._metrics = metrics
        self._readiness = readiness
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(_request_id(scope))
        scope["request_id"] = exchange.request_id
        span = scope[SPAN_KEY] = self._tracing.begin(scope["method"], headers)
        answer = self._sender(exchange, send)
        with (
            structlog.contextvars.bound_contextvars(request_id=exchange.request_id),
            self._metrics.in_flight.track_inprogress(),
        ):
            try:
                await self._authorize(scope, headers.get("authorization", ""))
                await self._app(scope, self._bounded(scope["path"], headers, receive), answer)
            except ClientGoneError:
                exchange.status = CLIENT_GONE
                self._metrics.refused.labels("client_gone").inc()
            except HTTPException as error:
                await self._refuse(from_http_exception(error), exchange, answer)
            except Exception:
                log.exception("defect", method=scope["method"], path=scope["path"])
                if exchange.status:
                    raise
                detail = "The service failed; its log names the cause under this request id."
                await self._refuse(Problem(500, "internal_error", detail), exchange, answer)
            finally:
                route = self._record(scope, exchange)
                if WATCH_KEY in scope:
                    self._tracing.stages(span, scope[WATCH_KEY])
                attributes = {
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": exchange.status,
                    "drdecr.request_id": exchange.request_id,
                }
                self._tracing.end(span, attributes)

    async def _authorize(self, scope: Scope, header: str) -> None:
        """Let a request in, and note what its key may do. Raises: Problem 401, 403, 404, 429."""
        path = scope["path"]
        if _CONTROL.search(path):
            raise Problem(404, "not_found", "No path holds a control character.")
        if not self._keys.required or path in OPEN_PATHS:
            return
        scheme, _, key = header.partition(" ")
        try:
            stored = await self._keys.identify(key.strip()) if scheme.lower() == "bearer" else None
        except TooManyAttemptsError:
            self._metrics.refused.labels("key_attempts").inc()
            raise Problem(
                429, "too_many_attempts", "Too many unknown keys are tried.", headers={"Retry-After": "1"}
            ) from None
        if stored is None:
            self._metrics.refused.labels("unauthorized").inc()
            raise Problem(
                401,
                "unauthorized",
                "Send a valid API key: Authorization: Bearer KEY.",
                headers={"WWW-Authenticate": 'Bearer realm="drdecr"'},
            )
        structlog.contextvars.bind_contextvars(key=stored.id)
        try:
            require(stored.scope, needed_scope(scope["method"], path))
        except Problem:
            self._metrics.refused.labels("forbidden").inc()
            raise
        scope[HELD] = stored.scope
        rate = stored.rate or self._key_rate
        if rate and (wait_s := self._limits.wait_s(stored.id, rate)):
            self._metrics.refused.labels("rate_limited").inc()
            raise Problem(
                429,
                "rate_limited",
                f"This key may send {rate:g} requests a second.",
                headers={"Retry-After": str(wait_s)},
            )

    def _bounded(self, path: str, headers: Headers, receive: Receive) -> Receive:
        limit = self._max_upload_bytes if _UPLOAD_PATH.fullmatch(path) else self._max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise self._too_large(limit)
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise self._too_large(limit)
            return message

        return bounded

    def _too_large(self, limit: int) -> Problem:
        self._metrics.refused.labels("body_too_large").inc()
        return Problem(413, "body_too_large", f"The body is larger than {limit} bytes; split it.")

    def _sender(self, exchange: _Exchange, send: Send) -> Send:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = exchange.request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self._readiness.draining:
                    headers["Connection"] = "close"
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                exchange.finished = True

        return answer

    async def _refuse(self, problem: Problem, exchange: _Exchange, answer: Send) -> None:
        body = problem.to_bytes(exchange.request_id)
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **(problem.headers or {})}
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await answer({"type": "http.response.start", "status": problem.status_code, "headers": raw})
        await answer({"type": "http.response.body", "body": body})

    def _record(self, scope: Scope, exchange: _Exchange) -> str:
        """Count and log a request; returns its route."""
        took_s = time.perf_counter() - exchange.began
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = str(getattr(scope.get("route"), "path", "unmatched"))
        self._metrics.requests.labels(method, route, exchange.status).inc()
        self._metrics.request_seconds.labels(method, route).observe(took_s)
        took_ms = round(took_s * 1_000, 3)
        watch: Stopwatch | None = scope.get(WATCH_KEY)
        slow = watch is not None and 0 < self._slow_ms < took_ms
        quiet = scope["path"] in OPEN_PATHS or route == "/metrics"
        write = log.warning if slow else log.debug if quiet else log.info
        write(
            "request",
            method=method,
            path=scope["path"][:512],
            status=exchange.status,
            took_ms=took_ms,
            **({"slow": watch.shown()} if watch is not None and slow else {}),
            **({} if exchange.finished else {"unfinished": True}),
        )
        return route


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return secrets.token_hex(16)
