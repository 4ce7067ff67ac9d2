"""The playground as a browser has it, over `drdecr serve` with a tiny student."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import find_chromium, opened_page, running_browser
from playground_passages import PASSAGES
from service_process import COMMAND, RunningService, environment, running_service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def snapshot(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("playground")
    passages = directory / "passages.jsonl"
    passages.write_text("".join(json.dumps(passage) + "\n" for passage in PASSAGES), encoding="utf-8")
    build = [*COMMAND, "index", "build", "--student", tiny_student, "--passages", passages]
    subprocess.run(
        [*build, "--out", directory / "snapshot"], check=True, env=environment(), stdout=subprocess.DEVNULL
    )
    return directory / "snapshot"


@pytest.fixture(scope="module")
def service(tiny_student: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with running_service(log, *options, MAX_QUERY_CHARS="60") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser(find_chromium()) as running:
        yield running


@pytest.fixture
def page(browser: Browser, service: RunningService) -> Iterator[Page]:
    with opened_page(browser, service.url) as opened:
        from playwright.sync_api import expect

        opened.goto("/")
        expect(opened.locator("#status")).to_contain_text("6 passages are ready")
        yield opened
