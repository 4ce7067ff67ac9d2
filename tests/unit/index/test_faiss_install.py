"""Exactly one FAISS."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator

import pytest

from drdecr.errors import ResourceError
from drdecr.index.faiss_install import load_faiss


@pytest.fixture(autouse=True)
def forget_the_import() -> Iterator[None]:
    load_faiss.cache_clear()
    yield
    load_faiss.cache_clear()


def test_installed_faiss_is_imported() -> None:
    assert load_faiss().IndexFlatIP(4).d == 4


def test_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ResourceError, match=r"drdecr\[cpu\]"):
        load_faiss()


def test_two_builds_of_faiss_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    with pytest.raises(ResourceError, match=r"faiss-cpu and faiss-gpu.*overwrite each other"):
        load_faiss()
