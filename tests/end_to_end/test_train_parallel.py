"""Two processes that train together reach what one reaches alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fabricated_data_set import make_data_set
from fabricated_torch_student import make_two_stream_student
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def recipe(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recipe")
    rates = {"context": 1e-3, "embedding": 1e-3, "projection": 1e-3}
    common = {"batch_size": 8, "learning_rates": rates, "schedule": "constant"}
    content = {
        "name": "parallel",
        "threads": 1,
        "precision": "float32",
        "student": str(two_stream_student),
        "teacher": str(make_two_stream_student(root / "teacher", dim=32)),
        "data": [str(make_data_set(root / "data", ("de", "ru")))],
        "languages": ["de", "ru"],
        "stages": [
            {
                **common,
                "name": "both",
                "steps": 10,
                "objectives": {
                    "token_query": 0.5,
                    "relevance": 1.0,
                    "labelled": 0.5,
                    "projection": 2.0,
                    "temperature": 0.2,
                },
            },
            {
                **common,
                "name": "lists",
                "kind": "ranking",
                "steps": 10,
                "ways": 3,
                "objective": "cross-entropy",
                "in_batch": True,
                "mean_maxsim": True,
            },
        ],
    }
    path = root / "parallel.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def weights_of(student: Path) -> torch.Tensor:
    parts = ("model.safetensors", "1_Dense/model.safetensors")
    return torch.cat([one.float().flatten() for part in parts for one in load_file(student / part).values()])


def test_two_processes_reach_what_one_reaches(recipe: Path, two_stream_student: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    alone = [sys.executable, "-m", "drdecr"]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "drdecr"]
    for name, program in (("one", alone), ("two", together)):
        command = [*program, "train", str(recipe), "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("1-both", "2-lists"):
        before = weights_of(two_stream_student)
        one, two = (weights_of(tmp_path / run / "stages" / stage / "student") for run in ("one", "two"))
        moved, apart = float((one - before).norm()), float((one - two).norm())
        assert moved > 0
        # The same batches, candidates and means: what is left is rounding, which Adam's first steps enlarge.
        assert apart < 0.03 * moved
    assert len(list((tmp_path / "two" / "stages" / "1-both" / "tensorboard").iterdir())) == 1
