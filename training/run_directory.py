"""Whose a run directory is: it belongs to one recipe, of which only what has not begun may still change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drdecr.errors import UsageError
from training.recipe import Recipe

RECIPE_FILE = "recipe.json"


def stage_folder(out: Path, recipe: Recipe, index: int) -> Path:
    """Return the folder of a stage, counted from 0."""
    return _folder(out, recipe.stages[index].name, index)


def forbid_others_run(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Raise UsageError where `out` holds a run that is not to be resumed, or that belongs to another recipe.

    A recipe still belongs to it where only stages differ that have not begun, as long as there is no product.
    """
    file = out / RECIPE_FILE
    if not file.is_file():
        return
    if not resume:
        raise UsageError(f"{out} holds a run already; continue it with --resume, or name another --out")
    before, now = json.loads(file.read_text()), json.loads(recipe.model_dump_json())
    if before == now or (not (out / "student").is_dir() and _begun(before, out) == _begun(now, out)):
        return
    raise UsageError(
        f"{out} belongs to a run with other settings (see {file}), and only stages that have not begun may change; "
        "name another directory"
    )


def claim(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make `out` the run directory of a recipe. Raises: UsageError."""
    forbid_others_run(recipe, out, resume=resume)
    file = out / RECIPE_FILE
    text = recipe.model_dump_json(indent=2) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    out.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(file)


def _begun(recipe: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the settings of a recipe without the stages that have no folder yet."""
    begun = [stage for at, stage in enumerate(recipe["stages"]) if _folder(out, stage["name"], at).is_dir()]
    return {**recipe, "stages": begun}


def _folder(out: Path, stage: str, index: int) -> Path:
    return out / "stages" / f"{index + 1}-{stage}"
