"""Fixtures that several packages' tests share."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket in an object store on this machine."""
    # Only tests of clusters pay for these imports.
    import fsspec
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="session")
def cluster(bucket: str) -> Iterator[Any]:
    """Two Ray nodes for all tests that need some; they began with the settings of the object store."""
    from ray_lab import ray_cluster

    with ray_cluster(2) as started:
        yield started
