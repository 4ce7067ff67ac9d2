"""The order of rows in which batches hold similar candidates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers.base.sampler import ProportionalBatchSampler
from torch.utils.data import ConcatDataset

from training.batches import InOrder, InSteps, one_kind_a_batch, order_alike
from training.teacher import TeacherVectors

TOPICS, TEXTS_A_TOPIC = 8, 32


@pytest.fixture
def teacher() -> TeacherVectors:
    """Texts of one token each, in topics that lie far apart; the last text has no token."""
    chance = np.random.default_rng(0)
    centres = np.eye(TOPICS, dtype=np.float32)
    topics = np.repeat(np.arange(TOPICS), TEXTS_A_TOPIC)
    vectors = centres[topics] + 0.01 * chance.standard_normal((len(topics), TOPICS))
    offsets = np.concatenate([np.arange(len(topics) + 1), [len(topics)]])
    return TeacherVectors(vectors.astype(np.float16), offsets)


def test_neighbours_share_a_topic(teacher: TeacherVectors) -> None:
    passages = list(np.random.default_rng(1).permutation(TOPICS * TEXTS_A_TOPIC))
    order = order_alike(passages, teacher, group=8, seed=3)
    groups = np.array([passages[row] // TEXTS_A_TOPIC for row in order]).reshape(-1, 8)
    assert sorted(order) == list(range(len(passages)))
    assert np.mean(groups == groups[:, :1]) > 0.9
    assert len({tuple(group) for group in groups[:4]}) > 1


def test_many_clusters_are_found_within_coarser_ones(
    teacher: TeacherVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.batches._AT_ONCE", 4)
    passages = [*np.random.default_rng(1).permutation(TOPICS * TEXTS_A_TOPIC).tolist(), TOPICS * TEXTS_A_TOPIC]
    told: list[int] = []
    order = order_alike(passages, teacher, 4, 3, told.append)
    groups = np.array([passages[row] // TEXTS_A_TOPIC for row in order][:-1]).reshape(-1, 4)
    assert sorted(order) == list(range(len(passages)))
    assert np.mean(groups == groups[:, :1]) > 0.8
    assert sum(told) == len(passages)
    assert len(told) > 1


def test_order_depends_on_the_seed_alone(teacher: TeacherVectors) -> None:
    passages = list(range(TOPICS * TEXTS_A_TOPIC)) * 2
    assert order_alike(passages, teacher, 8, seed=3) == order_alike(passages, teacher, 8, seed=3)
    assert order_alike(passages, teacher, 8, seed=3) != order_alike(passages, teacher, 8, seed=4)


@pytest.mark.parametrize("passages", [[], [0], list(range(TOPICS * TEXTS_A_TOPIC + 1))])
def test_every_row_comes_once_also_where_there_is_nothing_to_cluster(
    passages: list[int], teacher: TeacherVectors
) -> None:
    for group in (1, 8):
        assert sorted(order_alike(passages, teacher, group, seed=0)) == list(range(len(passages)))


def test_batches_are_of_one_kind_in_its_order_and_what_is_over_comes_last() -> None:
    orders = [[3, 1, 4, 15, 9], [20, 26, 25, 23, 28, 27], [30]]
    found = one_kind_a_batch(orders, 2, seed=1)
    assert sorted(found) == sorted(row for order in orders for row in order)
    batches = [found[start : start + 2] for start in range(0, 10, 2)]
    assert sorted(batches) == [[3, 1], [4, 15], [20, 26], [25, 23], [28, 27]]
    assert batches != sorted(batches)
    assert found[10:] == [9, 30]


def test_sampler_keeps_the_order_of_the_rows() -> None:
    assert list(InOrder(list(range(7)), batch_size=3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]


def test_steps_of_several_parts_hold_the_rows_of_whole_steps() -> None:
    datasets = [Dataset.from_dict({"row": list(range(48))}), Dataset.from_dict({"row": list(range(96))})]
    together = ConcatDataset(datasets)

    def batches(size: int, kind: Any) -> list[list[int]]:
        samplers = [InOrder(one, batch_size=size, drop_last=True) for one in datasets]
        sampler = kind(together, batch_samplers=samplers, generator=torch.Generator(), seed=3)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    whole = batches(8, InSteps)
    assert whole == batches(8, ProportionalBatchSampler)
    parts = batches(4, partial(InSteps, parts=2))
    assert [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)] == whole
