"""Fixtures that several packages' tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fabricated_student import make_student
from xdist.scheduler import LoadScopeScheduling


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs under test hear it, where the shell that began the tests had it ignored.

    A shell does that to what it runs in the background, and what ignores a signal bequeaths that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_CLUSTER = pytest.StashKey[ExitStack]()


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a file's tests to one of the processes that run the tests, and all on the Ray cluster to one."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.split("::", maxsplit=1)[0])
        return "ray" if _on_ray(path) else str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests on the Ray cluster, the longest of what one process does alone."""
    items.sort(key=lambda item: not _on_ray(item.path))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the Ray cluster after the last test that needs it: idle, it still takes a quarter of two cores."""
    if _on_ray(item.path) and not (nextitem and _on_ray(nextitem.path)) and _CLUSTER in item.config.stash:
        item.config.stash[_CLUSTER].close()


def _on_ray(path: Path) -> bool:
    return path.name.startswith("test_cluster_") or path.parent.name == "congruence"


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

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
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
def cluster(bucket: str, pytestconfig: pytest.Config) -> Iterator[Any]:
    """Two Ray nodes for all tests that need some; they began with the settings of the object store."""
    from ray_lab import ray_cluster

    with ExitStack() as stack:
        pytestconfig.stash[_CLUSTER] = stack
        yield stack.enter_context(ray_cluster(2))
