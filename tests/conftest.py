"""Fixtures that several packages' tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fabricated_student import make_student


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs under test hear it, where the shell that began the tests had it ignored.

    A shell does that to what it runs in the background, and what ignores a signal bequeaths that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student directory with 16-dimensional token vectors and 8-dimensional sentence vectors."""
    return make_student(tmp_path_factory.mktemp("students") / "tiny", dim=16, sentence_dim=8)


@pytest.fixture(scope="session")
def another_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student directory with 24-dimensional token vectors and no sentence vector."""
    return make_student(tmp_path_factory.mktemp("students") / "another", dim=24, sentence_dim=0, seed=1)


@pytest.fixture(scope="session")
def two_stream_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch student of the embedded kind, not exported: 16-dimensional tokens, 24-dimensional sentences."""
    # Loading torch takes seconds, which most tests need not pay.
    from fabricated_torch_student import make_two_stream_student

    return make_two_stream_student(tmp_path_factory.mktemp("students") / "two-stream")


@pytest.fixture(scope="session")
def plain_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch student as sentence-transformers writes it, without settings of ours."""
    from fabricated_torch_student import make_plain_student

    return make_plain_student(tmp_path_factory.mktemp("students") / "plain")
