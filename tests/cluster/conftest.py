"""Passages to build on a cluster."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def passages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 passages; the text of one holds what Unicode takes for the end of a line."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(300)]
    path = tmp_path_factory.mktemp("passages") / "passages.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(500):
            text = " ".join(draw.choices(words, k=draw.randint(3, 30)))
            record = {"id": f"p{number}", "text": text, "metadata": {"group": number % 7}}
            if number == 3:
                record |= {"title": "Two", "text": "lines\u2028of text"}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path
