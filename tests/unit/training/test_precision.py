"""In how many bits a run computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_torch_student import make_two_stream_student

from drdecr.encoder.torch_runtime import TorchEncoder
from training.precision import in_bfloat16, mixed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without a GPU whose processor multiplies float32 only."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return monkeypatch


@pytest.mark.parametrize("feature", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_auto_takes_bfloat16_only_where_the_processor_multiplies_it(
    machine: pytest.MonkeyPatch, feature: str
) -> None:
    assert not in_bfloat16("auto")
    machine.setattr(torch.cpu, feature, lambda: True)
    assert in_bfloat16("auto")


@pytest.mark.parametrize("emulated", [False, True])
def test_auto_asks_the_gpu_where_there_is_one(machine: pytest.MonkeyPatch, emulated: bool) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or not emulated)
    assert in_bfloat16("auto") == (not emulated)


def test_a_named_precision_is_taken_on_any_machine(machine: pytest.MonkeyPatch) -> None:
    assert in_bfloat16("bfloat16")
    machine.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not in_bfloat16("float32")


def test_matrix_products_are_in_16_bits_within_mixed_precision_only() -> None:
    ones = torch.ones(4, 4)
    with mixed(bfloat16=True):
        assert (ones @ ones).dtype == torch.bfloat16
    with mixed(bfloat16=False):
        assert (ones @ ones).dtype == torch.float32


def test_a_student_within_mixed_precision_computes_in_16_bits(tmp_path: Path) -> None:
    encoder = TorchEncoder.load(make_two_stream_student(tmp_path / "student"))
    texts = ["which package plays music", "the sound player"]
    whole = encoder.encode(texts, "passage").vectors
    with mixed(bfloat16=False):
        np.testing.assert_array_equal(encoder.encode(texts, "passage").vectors, whole)
    with mixed(bfloat16=True):
        half = encoder.encode(texts, "passage").vectors
    assert not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, atol=0.05)
