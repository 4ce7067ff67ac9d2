"""What a key must be allowed to do for a route."""

from __future__ import annotations

import re

from fastapi import Request

from service.keys import SCOPES, Scope
from service.problems import Problem

HELD = "drdecr.held_scope"
"""Where a request's ASGI scope says what its key may do; not there where no key is asked for."""

_ASKS = re.compile(r"/v1/(indexes/[^/]+/search|search/batch|encode|rerank)")
"""Routes that only ask, although by POST."""

_RULES = re.compile(r"/v1/(indexes(/[^/]+)?|aliases/[^/]+)")
"""Routes of which PUT, POST and DELETE decide what is served at all."""


def needed_scope(method: str, path: str) -> Scope:
    """Return read for what only asks, admin for indexes and aliases as a whole, write for the rest.

    `path` is what a client sent, or a route's own with its parameters in braces.
    """
    if method in {"GET", "HEAD", "OPTIONS"} or (method == "POST" and _ASKS.fullmatch(path)):
        return "read"
    return "admin" if _RULES.fullmatch(path) else "write"


def require(held: Scope, needed: Scope) -> None:
    """Let a key of one scope do what needs another. Raises: Problem 403 where it may not."""
    if SCOPES.index(held) < SCOPES.index(needed):
        raise Problem(403, "forbidden", f"This needs a key with the scope {needed}; yours has {held}.")


async def require_for_route(request: Request) -> None:
    """Judge once more, by the route that the router chose: the gate has only the path, and may read it otherwise.

    Raises: Problem 403.
    """
    held: Scope | None = request.scope.get(HELD)
    if held is not None:
        require(held, needed_scope(request.method, request.scope["route"].path))
