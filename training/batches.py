"""Which rows meet in a batch: some that are alike, so that the candidates of relevance KD are hard to tell apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from sentence_transformers.base.sampler import DefaultBatchSampler, MultiDatasetDefaultBatchSampler
from sklearn.cluster import MiniBatchKMeans
from torch.utils.data import SequentialSampler, SubsetRandomSampler

from training.teacher import TeacherVectors

# Clusters hold several groups, so that a group's rows are alike but not always the same ones.
_GROUPS_A_CLUSTER = 4
# More clusters than these are found in two steps: the work of one grows with the square of the rows.
_AT_ONCE = 512


class InOrder(DefaultBatchSampler):  # type: ignore[misc]
    """Take a data set's rows as they lie: their order was chosen with its batches in mind."""

    def __init__(self, dataset: object, **settings: object) -> None:
        super().__init__(SequentialSampler(dataset), **settings)  # type: ignore[arg-type]


class InSteps(MultiDatasetDefaultBatchSampler):  # type: ignore[misc]
    """Take the batches of a step, `parts` of them, from one data set; the sets come in proportion to their sizes.

    With a step in several parts, of processes or of accumulation, it is the order that one whole batch a step has.
    """

    def __init__(self, dataset: object, *, parts: int = 1, **settings: object) -> None:
        super().__init__(dataset, **settings)
        self.parts = parts

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        steps = [len(sampler) // self.parts for sampler in self.batch_samplers]
        starts = [0, *accumulate(len(dataset) for dataset in self.dataset.datasets)]
        sets = [at for at, count in enumerate(steps) for _ in range(count)]
        batches = [iter(sampler) for sampler in self.batch_samplers]
        for at in SubsetRandomSampler(sets, generator=self.generator):
            for _ in range(self.parts):
                yield [row + starts[at] for row in next(batches[at])]

    def __len__(self) -> int:
        return sum(len(sampler) // self.parts * self.parts for sampler in self.batch_samplers)


def order_alike(
    passages: list[int],
    teacher: TeacherVectors,
    group: int,
    seed: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[int]:
    """Return an order of rows in which each `group` neighbours have similar passages; groups come at random.

    `passages` are the rows' numbers among the teacher's texts; similar is near by the mean of the teacher's token
    vectors. With a group of 1 the order is random.
    """
    chance = random.Random(seed)
    rows = list(range(len(passages)))
    chance.shuffle(rows)
    clusters = len(passages) // (group * _GROUPS_A_CLUSTER)
    if group == 1 or clusters < 2:
        return rows
    found = _clusters(_means(passages, teacher), clusters, seed, progress)
    rows.sort(key=lambda row: found[row])
    groups = [rows[start : start + group] for start in range(0, len(rows), group)]
    chance.shuffle(groups)
    return [row for some in groups for row in some]


def one_kind_a_batch(orders: Sequence[Sequence[int]], size: int, seed: int) -> list[int]:
    """Return an order of rows in which each batch of `size` holds rows of one kind; the batches come at random.

    `orders` has the rows of each kind, in the order that they keep. What each has over makes batches of several
    kinds, the last ones.
    """
    whole, over = [], []
    for order in orders:
        batches = [list(order[start : start + size]) for start in range(0, len(order), size)]
        if batches and len(batches[-1]) < size:
            over += batches.pop()
        whole += batches
    random.Random(seed).shuffle(whole)
    return [row for batch in whole for row in batch] + over


def _clusters(
    means: NDArray[np.float32], count: int, seed: int, progress: Callable[[int], None]
) -> NDArray[np.int64]:
    """Number each row's cluster, of about `count`: above `_AT_ONCE` within those of a coarser clustering."""
    coarser = count > _AT_ONCE
    first = round(count**0.5) if coarser else count
    found = MiniBatchKMeans(first, random_state=seed, n_init=1, max_iter=20, batch_size=4096).fit_predict(means)
    numbers: NDArray[np.int64] = found.astype(np.int64)
    if not coarser:
        progress(len(means))
        return numbers
    known = 0
    for cluster in range(first):
        members = np.flatnonzero(found == cluster)
        share = max(1, round(count * len(members) / len(means)))
        if share == 1:
            numbers[members] = known
            progress(len(members))
        else:
            numbers[members] = known + _clusters(means[members], share, seed, progress)
        known += share
    return numbers


def _means(texts: list[int], teacher: TeacherVectors) -> NDArray[np.float32]:
    means = np.zeros((len(texts), teacher.vectors.shape[1]), np.float32)
    known: dict[int, int] = {}
    for row, text in enumerate(texts):
        if (first := known.setdefault(text, row)) != row:
            means[row] = means[first]
            continue
        vectors = teacher.vectors[teacher.offsets[text] : teacher.offsets[text + 1]]
        if len(vectors):
            means[row] = vectors.astype(np.float32).mean(axis=0)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    return means
