"""Finds a Chromium for the tests of pages, and opens pages that tell on themselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """Return the browser that CHROMIUM names, or one on PATH; skips the module where there is none."""
    pytest.importorskip("playwright.sync_api", reason="no browser tests: Playwright is not installed")
    for name in filter(None, (os.environ.get("CHROMIUM"), *NAMES)):
        if found := shutil.which(name):
            return found
    pytest.skip("no browser tests: no chromium on PATH, and CHROMIUM names none", allow_module_level=True)


@contextmanager
def running_browser(executable: str) -> Iterator[Browser]:
    """Run the browser without a window until the block ends."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses its sandbox to root, which containers of CI run as.
    sandbox = os.geteuid() != 0
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=executable, chromium_sandbox=sandbox) as browser,
    ):
        yield browser


@contextmanager
def opened_page(browser: Browser, url: str) -> Iterator[Page]:
    """Give a page; it must have thrown nothing, broken no policy and asked no other host when the block ends."""
    wrong: list[str] = []
    with browser.new_context(base_url=url, viewport={"width": 1000, "height": 900}) as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
        page.on("console", lambda message: wrong.append(message.text) if "Policy" in message.text else None)
        page.on("request", lambda request: None if request.url.startswith(url) else wrong.append(request.url))
        yield page
    assert wrong == []
