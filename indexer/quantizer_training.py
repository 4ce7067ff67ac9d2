"""Trains what segments share: the centroids of the inverted lists, and the codec of what they leave over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.index.codec import BITS, make_index, record_of, stored_dim, train_codec
from drdecr.index.faiss_install import load_faiss
from drdecr.index.manifest import QuantizerRecord
from drdecr.index.quantizer import QUANTIZER
from indexer.centroids import Assigner, centroid_sample, token_lists, train_centroids

_CODEC_SAMPLE = 65_536
_SEED = 20_220_712
# Float16 moves the length of a vector by less.
_UNIT_MARGIN = 2e-3


def train_quantizer(root: Path, directory: str, vectors: NDArray[Any], bits: int) -> QuantizerRecord:
    """Train centroids and codec on vectors (n, dim) of any float type and write them to `root / directory`.

    Only a sample of the vectors is read. The record has no files yet; `Quantizer(root, record, dim)` opens it.
    """
    lists = token_lists(len(vectors))
    return train_on_sample(root, directory, centroid_sample(vectors, lists), lists, bits)


def train_on_sample(
    root: Path, directory: str, sample: NDArray[np.float32], lists: int, bits: int
) -> QuantizerRecord:
    """Train at most `lists` centroids, and the codec, on a sample that was drawn; else as `train_quantizer`."""
    # Without `root`, and before the training: an index that is dropped meanwhile must not come back as a folder.
    (root / directory).parent.mkdir(exist_ok=True)
    (root / directory).mkdir(exist_ok=True)
    faiss = load_faiss()
    dim = sample.shape[1]
    unit = len(sample) > 0 and bool((np.abs(np.linalg.norm(sample, axis=1) - 1) < _UNIT_MARGIN).all())
    record = record_of(bits, dim, unit=unit)
    if bits == BITS[-1]:
        centroids = train_centroids(sample, lists)
        index = make_index(centroids, bits)
    else:
        rotation = faiss.RandomRotationMatrix(dim, stored_dim(bits, dim))
        rotation.init(_SEED)
        turned = rotation.apply(sample) if len(sample) else np.zeros((0, rotation.d_out), np.float32)
        centroids = train_centroids(turned, lists)
        ivf = make_index(centroids, bits)
        train_codec(ivf, _left_over(turned, centroids), bits)
        index = faiss.IndexPreTransform(rotation, ivf)
    # FAISS's own writer passes over a full disk where the file is small.
    (root / directory / QUANTIZER).write_bytes(faiss.serialize_index(index).tobytes())
    return QuantizerRecord(directory=directory, lists=len(centroids), codec=record, files={})


def _left_over(sample: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the centroids leave over of some vectors of the sample; zeros where it is empty."""
    if len(sample) == 0:
        return np.zeros_like(centroids[:1])
    if len(sample) > _CODEC_SAMPLE:
        rows = np.random.default_rng(_SEED).choice(len(sample), _CODEC_SAMPLE, replace=False)
        sample = sample[np.sort(rows)]
    return np.ascontiguousarray(sample - centroids[Assigner(centroids)(sample)])
