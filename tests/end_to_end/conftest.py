"""Fixtures that several of the programs' tests share."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from service_process import COMMAND, THINGS, environment


@pytest.fixture(scope="session")
def snapshot(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("serve")
    passages = directory / "passages.jsonl"
    with passages.open("w", encoding="utf-8") as file:
        for number in range(60):
            thing = THINGS[number % len(THINGS)]
            record = {"id": f"{thing}-{number}", "title": thing.title(), "text": f"All about {thing}, part {number}."}
            file.write(json.dumps(record) + "\n")
    build = [*COMMAND, "index", "build", "--student", tiny_student, "--passages", passages]
    subprocess.run(
        [*build, "--out", directory / "snapshot"], check=True, env=environment(), stdout=subprocess.DEVNULL
    )
    return directory / "snapshot"
