"""What a key must be allowed to do for a route."""

from __future__ import annotations

import re

from service.keys import SCOPES, Scope

_ASKS = re.compile(r"/v1/(indexes/[^/]+/search|search/batch|encode|rerank)")
"""Routes that only ask, although by POST."""

_RULES = re.compile(r"/v1/(indexes(/[^/]+)?|aliases/[^/]+)")
"""Routes of which PUT, POST and DELETE decide what is served at all."""


def needed_scope(method: str, path: str) -> Scope:
    """Return read for what only asks, admin for indexes and aliases as a whole, write for the rest."""
    if method in {"GET", "HEAD", "OPTIONS"} or (method == "POST" and _ASKS.fullmatch(path)):
        return "read"
    return "admin" if _RULES.fullmatch(path) else "write"


def allows(held: Scope, needed: Scope) -> bool:
    """Tell whether a key of one scope may do what needs another."""
    return SCOPES.index(held) >= SCOPES.index(needed)
