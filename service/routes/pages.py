"""The pages for people: the playground at `/`, and the list of routes at `/docs`. No external asset."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_PAGES = Path(__file__).parent.parent / "pages"
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@router.get("/")
async def playground() -> HTMLResponse:
    return _page(_read("playground.html"))


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    return _page(_read("docs.html").replace("<!-- routes -->", _list_routes(request.app.openapi())))


def _page(html: str) -> HTMLResponse:
    return HTMLResponse(html, headers={"Content-Security-Policy": content_policy(html), **_HEADERS})


def content_policy(html: str) -> str:
    """Allow the page's own inline script and style, by their hashes, and requests to this service."""
    scripts, styles = (" ".join(_hashes(html, tag)) or "'none'" for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
        " trusted-types 'none'"
    )


def _hashes(html: str, tag: str) -> list[str]:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'" for block in blocks]


@cache
def _read(name: str) -> str:
    """Return a page with the files that its comments name, such as `<!-- hits.js -->`, put in their place."""
    html = (_PAGES / name).read_text(encoding="utf-8")
    return re.sub(r"<!-- (\w+\.(?:css|js)) -->", lambda part: (_PAGES / part[1]).read_text(encoding="utf-8"), html)


def _list_routes(document: dict[str, Any]) -> str:
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(operation["responses"])
            cells = (f"<code>{method.upper()}</code>", f"<code>{escape(path)}</code>")
            rows.append(f"<tr><td>{cells[0]}<td>{cells[1]}<td>{escape(operation['summary'])}<td>{statuses}")
    return "\n".join(rows)
