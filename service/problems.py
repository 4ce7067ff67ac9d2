"""Errors as clients see them: `application/problem+json` (RFC 9457) with a stable `code`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 20
_MAX_POINTER_CHARS = 200


class FieldError(BaseModel):
    """One wrong place of a request; `pointer` is a JSON pointer into the body, or the parameter's name."""

    pointer: str
    message: str


class ProblemBody(BaseModel):
    """What every error answers (RFC 9457). `code` is stable: programs may rely on it."""

    type: str = Field(description="`urn:drdecr:problem:` and the code.")
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = Field(None, description="Also in the header X-Request-ID and in the service's log.")
    errors: list[FieldError] | None = Field(None, description="Where a 422 names the wrong places.")


class Problem(HTTPException):
    """An answer other than 2xx, raised anywhere below a route.

    A subclass of Starlette's HTTPException, because FastAPI hands only those on while it reads a body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.code = code
        self.errors = list(errors)

    def body(self, request_id: str | None = None) -> ProblemBody:
        """Return what the client reads."""
        return ProblemBody(
            type=f"urn:drdecr:problem:{self.code}",
            title=HTTPStatus(self.status_code).phrase,
            status=self.status_code,
            detail=self.detail,
            code=self.code,
            request_id=request_id,
            errors=self.errors or None,
        )

    def to_bytes(self, request_id: str | None) -> bytes:
        """Return JSON in ASCII, so that no text of the request can break its encoding."""
        return json.dumps(self.body(request_id).model_dump(exclude_none=True)).encode("ascii")


def shards_missing(names: Iterable[str]) -> Problem:
    """Return the answer where shards are gone that the request needs."""
    detail = f"No answer from {', '.join(sorted(names))}; retry, or ask without `complete`."
    return Problem(503, "shards_unavailable", detail, headers={"Retry-After": "1"})


_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    410: "gone",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def from_http_exception(error: HTTPException) -> Problem:
    """Dress an error that Starlette or FastAPI raised."""
    if isinstance(error, Problem):
        return error
    code = _CODES.get(error.status_code, "internal_error" if error.status_code >= 500 else "bad_request")
    return Problem(error.status_code, code, str(error.detail), headers=error.headers)


def from_validation(errors: Iterable[Any]) -> Problem:
    """Turn pydantic's errors into a 422, or a 400 where the body is no JSON at all. Never echoes the input."""
    listed = list(errors)
    for error in listed:
        if error["type"] == "json_invalid":
            reason = error.get("ctx", {}).get("error", "")
            return Problem(400, "invalid_json", f"The body is not JSON: {reason} (character {error['loc'][-1]}).")
    places = [FieldError(pointer=_pointer(error["loc"]), message=_message(error)) for error in listed[:_MAX_ERRORS]]
    first = f"{places[0].pointer}: {places[0].message}" if places else "The request is not valid."
    more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
    return Problem(422, "invalid_request", first + more, errors=places)


def _message(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _pointer(location: Sequence[object]) -> str:
    """Return `/k` for ("body", "k"), and the bare name for a parameter of the path or query."""
    if location and location[0] in ("path", "query", "header"):
        return str(location[-1])[:_MAX_POINTER_CHARS]
    parts = location[1:] if location and location[0] == "body" else location
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return ("".join(f"/{part}" for part in escaped) or "/")[:_MAX_POINTER_CHARS]


_MEANINGS = {
    400: "The body is not JSON.",
    401: "The API key is missing or unknown.",
    403: "The API key may not do this.",
    404: "No such index, passage or route.",
    405: "The route has other methods; see Allow.",
    409: "The state of the data directory forbids it; `code` says what is in the way.",
    410: "The version of the index that the cursor was made from is gone.",
    412: "If-Match or If-None-Match does not fit the alias as it is now.",
    413: "The body is larger than the service accepts.",
    415: "The body has another type than the route reads.",
    422: "The request is understood but not valid; `errors` names the places.",
    429: "The queue is full or the key's rate is reached; retry after Retry-After seconds.",
    500: "A defect of the service, whose log has the request id; or `data_damaged`: `detail` names the file.",
    503: "Not ready: loading, stopping, or without shards it needs; retry after Retry-After seconds.",
    504: "The deadline passed before the answer was ready.",
    507: "The disk is full, or cannot be written.",
}


_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these statuses, for `responses=`; what asks for a key may also refuse the key."""
    if 401 in statuses:
        statuses = (*statuses, 403, 429)
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
            **({"headers": _RETRY_AFTER} if status in {429, 503} else {}),
        }
        for status in sorted(set(statuses))
    }
