"""Opening a student by path."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import fingerprint_student
from drdecr.errors import ModelError


@pytest.fixture
def copy(tiny_student: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_student, tmp_path / "copy"))


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: no such directory"):
        load_encoder(tmp_path / "nowhere")


def test_directory_that_is_no_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no student"):
        load_encoder(tmp_path)


def test_onnx_without_an_export_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="drdecr export"):
        load_encoder(tmp_path, backend="onnx")


def test_onnx_folder_serves_alone(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "onnx":
            path.unlink()
    assert load_encoder(copy, threads=1).encode(["hello"], "query").vectors.shape[1] == 16


def test_onnx_folder_alone_says_that_torch_runs_other_students(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "onnx":
            path.unlink()
    with pytest.raises(ModelError, match=r"holds no weights that torch runs, only onnx/"):
        load_encoder(copy, backend="torch")


def test_weights_that_changed_since_the_export_are_refused(copy: Path) -> None:
    (copy / "modules.json").write_text("[]")
    with pytest.raises(ModelError, match="changed since"):
        load_encoder(copy)


def test_torch_that_is_not_installed_names_the_extra(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "modules.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"drdecr\[train\]"):
        load_encoder(copy, backend="torch")


def test_fingerprint_follows_every_file_of_the_student(copy: Path) -> None:
    before = fingerprint_student(copy)
    (copy / "tokenizer.json").write_text("{}")
    changed = fingerprint_student(copy)
    (copy / "tokenizer.json").rename(copy / "renamed.json")
    assert len({before, changed, fingerprint_student(copy)}) == 3


def test_fingerprint_ignores_the_export_and_the_card(copy: Path) -> None:
    before = fingerprint_student(copy)
    shutil.rmtree(copy / "onnx")
    (copy / "README.md").write_text("# A card")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "file").write_text("x")
    assert fingerprint_student(copy) == before
