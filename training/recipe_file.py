"""Read a recipe's file, apply overrides, and refuse in one line what cannot be carried out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drdecr.errors import UsageError
from training.recipe import EMBEDDED, RankingStage, Recipe

RECIPES = Path(__file__).parent / "recipes"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file, or one of the shipped ones by name, and apply `KEY=VALUE` overrides.

    A key is a dotted path; a stage is addressed by its name: `stages.token-kd.minutes=2`.

    Raises: UsageError that names the unknown key, the missing file or the value that does not fit.
    """
    text, place = _read(recipe)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as problem:
        raise UsageError(f"{place}: not YAML ({' '.join(str(problem).split())})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{place}: a recipe is a mapping of settings")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override}: expected KEY=VALUE")
        try:
            _set(content, key, yaml.safe_load(value))
        except (yaml.YAMLError, ValueError) as problem:
            raise UsageError(f"--set {override}: the value is not YAML ({' '.join(str(problem).split())})") from None
    try:
        found = Recipe.model_validate(content)
    except ValidationError as problem:
        raise UsageError(f"{place}: {_first_problem(problem)}") from None
    for lacking in _what_is_missing(found):
        raise UsageError(f"{place}: {lacking}")
    return found


def _first_problem(problem: ValidationError) -> str:
    first = problem.errors()[0]
    kinds = {"distil", "ranking", "literal-token-kd"}
    # A stage's kind is no key of the recipe, though the validator names it among them.
    where = ".".join(str(part) for at, part in enumerate(first["loc"]) if not (at == 2 and part in kinds))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":
        message = f"kind: there is no {first['ctx']['tag']!r}; those are {', '.join(sorted(kinds))}"
    return f"{where}: {message}" if where else message


def hub_models(recipe: Recipe) -> list[str]:
    """Return the models that the recipe names on the hub, each once."""
    earlier = {stage.name for stage in recipe.stages}
    named = [role for role, _ in _models(recipe) if role not in earlier]
    return sorted({name for name in named if name != EMBEDDED and not Path(name).is_dir()})


def _models(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield every model that the recipe names, and where it does."""
    yield recipe.student, "student"
    yield recipe.teacher, "teacher"
    for stage in recipe.stages:
        for key in ("start", "teacher"):
            if (named := getattr(stage, key)) is not None:
                yield named, f"stages.{stage.name}.{key}"
        if isinstance(stage, RankingStage) and stage.cross_encoder is not None:
            yield stage.cross_encoder, f"stages.{stage.name}.cross_encoder"


def _what_is_missing(recipe: Recipe) -> Iterator[str]:
    for path in recipe.data:
        if not (path / "meta.json").is_file():
            yield f"data: {path} is no fetched data set; run `drdecr data fetch` first"
    for key in ("parallel", "dictionaries"):
        for path in getattr(recipe, key):
            if not path.is_file():
                yield f"{key}: {path}: no such file"
    stages = [stage.name for stage in recipe.stages]
    for role, place in _models(recipe):
        if place in ("student", "teacher"):
            earlier: list[str] = []
        else:
            earlier = stages[: stages.index(place.split(".")[1])]
        if role not in earlier and role != EMBEDDED and not Path(role).is_dir() and not _may_be_on_hub(role):
            or_stage = " and no earlier stage" if place.startswith("stages.") else ""
            yield f"{place}: {role} is no model directory, and not `{EMBEDDED}`{or_stage}"
        elif role == EMBEDDED and place.endswith("cross_encoder"):
            yield f"{place}: there is no embedded cross-encoder; name a directory or a model on the hub"
    for stage in recipe.stages:
        if not isinstance(stage, RankingStage):
            continue
        for key in ("file", "queries", "passages", "english"):
            file = getattr(stage.lists, key, None)
            if file is not None and not file.is_file():
                yield f"stages.{stage.name}.lists.{key}: {file}: no such file"
        if stage.mine is not None and not (stage.mine.snapshot / "manifest.json").is_file():
            yield f"stages.{stage.name}.mine.snapshot: {stage.mine.snapshot} is no snapshot; let the teacher build it"


def _may_be_on_hub(name: str) -> bool:
    """Tell a hub's `owner/name` from a local path with a slip in it: the owner is no directory here."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name.split("/", maxsplit=1)[0]).exists()


def _read(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError:
            raise UsageError(f"{path}: not UTF-8; save the recipe as UTF-8") from None
    shipped = RECIPES / f"{recipe}.yaml"
    if not shipped.is_file():
        known = sorted(one.stem for one in RECIPES.glob("*.yaml"))
        raise UsageError(f"{recipe}: no such file, and no shipped recipe; those are {', '.join(known)}")
    return shipped.read_text(encoding="utf-8"), f"recipe {recipe}"


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    at: Any = content
    *path, last = key.split(".")
    for part in path:
        if isinstance(at, list):
            at = next((one for one in at if isinstance(one, dict) and one.get("name") == part), None)
        else:
            at = at.setdefault(part, {}) if isinstance(at, dict) else None
        if at is None:
            raise UsageError(f"--set {key}: there is no {part!r}")
    if not isinstance(at, dict):
        raise UsageError(f"--set {key}: {'.'.join(path)} is no group of settings")
    at[last] = value
