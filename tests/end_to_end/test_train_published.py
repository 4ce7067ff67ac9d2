"""The shipped recipes of the paper, carried out from end to end on tiny models and files in the published formats."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_encoder import make_encoder
from published_files import write_published_files
from safetensors.torch import load_file

from drdecr.encoder.load import load_encoder
from drdecr.errors import UsageError
from training.recipe import RankingStage
from training.recipe_file import RECIPES, load_recipe
from training.run import run_recipe

STAGES = ("english-teacher", "student-start", "token-kd", "relevance-kd")
SMALL = [f"stages.{name}.{key}" for name in STAGES for key in ("steps=3", "batch_size=8", "accumulate=2")]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_published_files(tmp_path)


@pytest.mark.parametrize("name", ["xor-tydi-base", "xor-tydi-large", "paper-literal"])
def test_recipe_of_the_paper_trains_its_four_stages(name: str, published: Path, tmp_path: Path) -> None:
    literal = name == "paper-literal"
    encoder = make_encoder(tmp_path / "xlmr", pieces=9800 if literal else 2000)
    recipe = load_recipe(name, [*SMALL, f"student={encoder}", "dim=16", "threads=1"])
    student = run_recipe(recipe, tmp_path / "run")
    products = [tmp_path / "run" / "stages" / f"{at}-{stage}" for at, stage in enumerate(STAGES, start=1)]
    weights = [load_file(one / "student" / "model.safetensors") for one in products]
    for before, after in pairwise(weights):
        assert any(not torch.equal(before[key], after[key]) for key in before)
    for product in products:
        history = json.loads((product / "done.json").read_text())["history"]
        losses = [entry["loss"] for entry in history if "loss" in entry]
        assert len(losses) == 3 and np.isfinite(losses).all()
    served = load_encoder(student)
    assert served.spec.dim == 16
    encoded = served.encode(["music player"], "query")
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_file_that_a_recipe_lacks_is_named_before_anything_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no such file|is no fetched data set"):
        load_recipe(name)


def test_published_settings_are_the_papers(published: Path) -> None:
    for name in ("xor-tydi-base", "xor-tydi-large", "paper-literal"):
        stages = load_recipe(name).stages
        assert [stage.name for stage in stages] == list(STAGES)
        assert [stage.steps for stage in stages] == [91_287, 74_704, 84_897, 87_618]
        assert [stage.learning_rates.encoder for stage in stages] == [1.5e-6, 6e-6, 4.8e-5, 6e-6]
        assert {(stage.batch_size, stage.accumulate, stage.schedule) for stage in stages} == {(192, 6, "constant")}
        last = stages[-1]
        assert isinstance(last, RankingStage) and last.temperature == 2 and last.teacher == "english-teacher"
