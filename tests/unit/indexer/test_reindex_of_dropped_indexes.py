"""Indexes that are dropped during a build: their names are free, and nothing is built under another's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fabricated_vectors import WordEncoder
from reindexing import TEXTS, stage

from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import Operation, read_upload, staged_uploads
from drdecr.errors import SnapshotError, UnknownNameError
from indexer import quantizer_training, reindex
from indexer.reindex import Task, build_next, publish, unfinished


def test_index_dropped_meanwhile(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    task = Task("one", "docs", "incremental")
    assert build_next(directory, task, encoder)
    directory.delete_index("docs")
    with pytest.raises(UnknownNameError):
        publish(directory, task)


def test_index_dropped_while_its_uploads_are_read_leaves_its_name_free(
    directory: DataDirectory, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
):
    stage(directory, TEXTS)

    def dropping(*of: object) -> Iterator[Operation]:
        yield from read_upload(directory, "docs", 1)
        directory.delete_index("docs")

    monkeypatch.setattr(reindex, "read_upload", dropping)
    with pytest.raises(OSError, match="docs"):
        build_next(directory, Task("one", "docs", "incremental"), encoder)
    with pytest.raises(UnknownNameError):
        build_next(directory, Task("one", "docs", "incremental"), encoder)
    assert directory.create_index("docs").bits == 16


def test_index_dropped_while_its_centroids_are_trained_leaves_its_name_free(
    directory: DataDirectory, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
):
    stage(directory, TEXTS)
    train = quantizer_training.train_centroids

    def dropping(*given: Any) -> Any:
        directory.delete_index("docs")
        return train(*given)

    monkeypatch.setattr(quantizer_training, "train_centroids", dropping)
    with pytest.raises((OSError, SnapshotError)):
        build_next(directory, Task("one", "docs", "full"), encoder)
    assert list(unfinished(directory)) == []
    assert directory.create_index("docs").bits == 16


@pytest.mark.parametrize("built", [False, True])
def test_build_of_an_index_that_was_dropped_does_not_build_the_next_of_its_name(
    built: bool, directory: DataDirectory, encoder: WordEncoder
):
    stage(directory, TEXTS)
    task = Task("one", "docs", "incremental", directory.index("docs").id)
    if built:
        assert build_next(directory, task, encoder)
    directory.delete_index("docs")
    directory.create_index("docs")
    stage(directory, {"half": "of what the next one gets"})
    with pytest.raises(UnknownNameError, match="made again: this build was of the one before"):
        (publish(directory, task) if built else build_next(directory, task, encoder))
    assert directory.versions("docs") == []
    assert staged_uploads(directory, "docs") == [1]
