"""An empty index in a data directory, and the encoder of its builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_vectors import WordEncoder

from drdecr.collections.directory import DataDirectory


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    return directory


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(16, 8)
