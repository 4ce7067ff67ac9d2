"""A request of the API, how httpx sends it, and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from drdecr import __version__
from drdecr.errors import ServiceError, UsageError
from service.client.lines import Json, Lines

_Answer = TypeVar("_Answer", bound=BaseModel)
UNSENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""What no network has seen, and no other attempt sends."""


@dataclass(frozen=True, slots=True)
class Call(Generic[_Answer]):
    """One request, and the model of its answer.

    `also` are statuses other than 2xx that carry that model too; `from_headers` are fields of it, each with the
    header that it comes from. `repeatable`: done twice is as done once, so what may have been done may be sent again.
    `timeout_s` is the longest wait in the place of the client's, `at_least_s` one that the client's may not be below.
    """

    answer: type[_Answer]
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    body: Json | None = None
    lines: Lines | None = None
    query: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    from_headers: Mapping[str, str] = field(default_factory=dict)
    also: frozenset[int] = field(default=frozenset())
    repeatable: bool = True
    timeout_s: float | None = None
    at_least_s: float | None = None


class Nothing(BaseModel):
    """The answer that has no body."""


def http_options(
    url: str, key: str | None, timeout_s: float, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what makes an httpx client of ours. Raises: UsageError for a key that no header holds."""
    key = key.strip() if key else None
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError("the API key holds characters that no key has; give it as `drdecr keys` printed it")
    sent = {"User-Agent": f"drdecr/{__version__}", **(headers or {})}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    return {"base_url": url, "headers": sent, "timeout": timeout_s}


def request_options(call: Call[Any], usual_s: float | None = None) -> dict[str, Any]:
    """Return what httpx sends for a call, all but its lines; `usual_s` is the longest wait of the client, if any."""
    timeout_s = call.timeout_s
    if call.at_least_s is not None and usual_s is not None and call.at_least_s > usual_s:
        timeout_s = call.at_least_s
    headers = {**call.headers, **({} if call.lines is None else {"Content-Type": "application/x-ndjson"})}
    given = {"json": call.body, "params": call.query or None, "headers": headers or None, "timeout": timeout_s}
    return {"method": call.method, "url": call.path} | {
        name: value for name, value in given.items() if value is not None
    }


def request_of(
    http: httpx.Client | httpx.AsyncClient, call: Call[Any], content: Iterable[bytes] | AsyncIterable[bytes] | None
) -> httpx.Request:
    """Return a call as httpx sends it. Raises: UsageError for what JSON or a header cannot hold."""
    try:
        return http.build_request(**request_options(call, http.timeout.read), content=content)
    except (TypeError, ValueError) as problem:
        raise UsageError(f"the request holds what cannot be sent: {problem}") from None


def read(call: Call[_Answer], answer: httpx.Response) -> _Answer:
    """Read an answer. Raises: ServiceError."""
    if not (answer.is_success or answer.status_code in call.also):
        raise _error(answer)
    try:
        found = call.answer.model_validate_json(answer.content or b"{}")
    except ValidationError as problem:
        raise ServiceError(
            f"{answer.request.url} did not answer as DR.DECR does ({problem.error_count()} differences);"
            " check the address",
            status=answer.status_code,
        ) from None
    sent = {name: answer.headers[header] for name, header in call.from_headers.items() if header in answer.headers}
    return found.model_copy(update=sent)


def unreachable(url: object, problem: httpx.TransportError, *, perhaps_done: bool) -> ServiceError:
    """Return the error of a service that gave no answer."""
    if perhaps_done:
        advice = "look whether it was done before you ask again"
    elif isinstance(problem, UNSENDABLE):
        advice = "it cannot be asked at all: check the address, which begins with http:// or https://"
    elif isinstance(problem, httpx.ReadTimeout):
        advice = "it takes longer than the client waits; give more `timeout_s`"
    else:
        advice = "is the service running?"
    return ServiceError(f"{url} gave no answer ({type(problem).__name__}: {problem}); {advice}")


def segment(name: str) -> str:
    """Return a name as one segment of a path; `.` and `..` are written so that nobody takes them for a step."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} is no text that can be sent: it holds half a character") from None


def given(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wishes that are not None, as JSON."""
    return {
        name: value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
        for name, value in wishes.items()
        if value is not None
    }


def _error(answer: httpx.Response) -> ServiceError:
    try:
        body = json.loads(answer.content)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    return ServiceError(
        f"{answer.status_code} {body.get('detail') or answer.reason_phrase}{_places(body.get('errors'))}",
        status=answer.status_code,
        code=body.get("code"),
        request_id=body.get("request_id") or answer.headers.get("X-Request-ID"),
    )


def _places(errors: object) -> str:
    """Return the first wrong place that a problem names, and how many others there are."""
    match errors:
        case [{"pointer": pointer, "message": message}, *others]:
            return f" ({pointer}: {message}{f'; and {len(others)} more' if others else ''})"
    return ""
