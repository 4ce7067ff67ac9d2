from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from drdecr.cli import cli
from drdecr.errors import ModelError, ResourceError


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_worker_needs_a_student_and_a_data_directory(tmp_path: Path):
    assert CliRunner().invoke(cli, ["worker", "--data", str(tmp_path)], env={}).exit_code == 2
    assert CliRunner().invoke(cli, ["worker", "--student", str(tmp_path)], env={}).exit_code == 2


def test_directory_that_is_no_student_is_named(tmp_path: Path):
    failed = CliRunner().invoke(cli, ["worker", "--student", str(tmp_path), "--data", str(tmp_path / "data")])
    assert isinstance(failed.exception, ModelError)
    assert str(tmp_path) in str(failed.exception)


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"])
def test_database_that_cannot_be_reached_is_named(tiny_student: Path, tmp_path: Path, url: str):
    options = ["--student", str(tiny_student), "--data", str(tmp_path / "data"), "--jobs-url", url]
    failed = CliRunner().invoke(cli, ["worker", *options])
    assert isinstance(failed.exception, ResourceError)
    assert "postgresql" in str(failed.exception)


def test_data_directory_that_cannot_be_is_named(tiny_student: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    options = ["--student", str(tiny_student), "--data", str(tmp_path / "file")]
    failed = CliRunner().invoke(cli, ["worker", *options])
    assert isinstance(failed.exception, ResourceError)
    assert "--data" in str(failed.exception)
