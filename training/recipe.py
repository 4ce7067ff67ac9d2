"""What a training run is made of: the recipe, a YAML file that names base, teacher, data and stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError, model_validator

from drdecr.errors import UsageError

EMBEDDED = "embedded"
RECIPES = Path(__file__).parent / "recipes"
Precision = Literal["auto", "float32", "bfloat16"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ObjectiveWeights(_Part):
    """How much each objective counts, and the constants of their formulas.

    token_query: token KD of the foreign text against its English. token_passage: of the English text against
    itself, which anchors the space of the passages. relevance: KL of the student's full relevance.
    context_relevance: KL of the contextual stream's tokens alone, for a student that has one. sentence: KL of the
    sentence vectors' dot product alone, for a student that has them. projection: KL of each query token's
    cosines to the batch's passage tokens, before to after the projection; trains the projection alone.
    temperature: of all softmaxes, over MaxSim divided by the number of query tokens.
    """

    token_query: NonNegativeFloat = 0.5
    token_passage: NonNegativeFloat = 0.5
    relevance: NonNegativeFloat = 0.0
    context_relevance: NonNegativeFloat = 0.0
    sentence: NonNegativeFloat = 0.0
    projection: NonNegativeFloat = 0.0
    temperature: float = Field(default=0.05, gt=0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not any(weight for name, weight in self if name != "temperature"):
            raise ValueError("every objective has the weight 0; give at least one a weight")
        return self


class LearningRates(_Part):
    """One rate for each part of the student; a part with rate 0 stays frozen.

    `context`, `embedding` and `sentence` are the embedded student's English layers, its English piece table and the
    head of its sentence vector; `encoder` is whatever else a student of another kind holds before its projection.
    """

    context: NonNegativeFloat = 5e-5
    embedding: NonNegativeFloat = 5e-4
    sentence: NonNegativeFloat = 1e-3
    encoder: NonNegativeFloat = 2e-5
    projection: NonNegativeFloat = 1e-3


class Stage(_Part):
    """One stage of distillation. Its length is `steps`, or what fits into `minutes` on this machine.

    A batch is made of groups of `alike` rows with similar passages, so that its candidates are hard to tell apart.
    `interpolate` takes that share of the way from the student before the stage to the one after it: less gained on
    the stage's data, less lost on other text (Wortsman et al. 2022, WiSE-FT).
    `refit_projection` fits an embedded student's projection anew at the end, so that token neighbours stay.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    objectives: ObjectiveWeights = ObjectiveWeights()
    steps: PositiveInt | None = None
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=2)
    alike: PositiveInt = 8
    labelled_share: float = Field(default=0.5, ge=0, le=1)
    learning_rates: LearningRates = LearningRates()
    interpolate: float = Field(default=1.0, gt=0, le=1)
    refit_projection: bool = False
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    query_tokens: PositiveInt = 48
    passage_tokens: PositiveInt = 96

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give a stage either `steps` or `minutes`")
        return self


class Recipe(_Part):
    """A whole training run. Paths are relative to the working directory.

    `longest_pair` and `longest_passage` are in characters: longer pairs are left out, longer passages cut.
    `precision` is what the models compute in; weights and losses always have 32 bits. `auto` takes bfloat16 where
    the hardware multiplies it faster.
    """

    format: Literal[1] = 1
    name: str
    # What the libraries' generators take, with room for a number a stage.
    seed: int = Field(default=12345, ge=0, lt=2**31)
    threads: PositiveInt | None = None
    precision: Precision = "auto"
    student: str = EMBEDDED
    teacher: str = EMBEDDED
    dim: PositiveInt = 128
    sentence_weight: NonNegativeFloat = 1.0
    data: list[Path] = Field(min_length=1)
    languages: list[str] = Field(min_length=1)
    longest_pair: PositiveInt = 1000
    longest_passage: PositiveInt = 1000
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_have_different_names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        return self


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file, or one of the shipped ones by name, and apply `KEY=VALUE` overrides.

    A key is a dotted path; a stage is addressed by its name: `stages.token-kd.minutes=2`.

    Raises: UsageError that names the unknown key, the missing file or the value that does not fit.
    """
    text, place = _read(recipe)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise UsageError(f"{place}: not YAML ({' '.join(str(problem).split())})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{place}: a recipe is a mapping of settings")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override}: expected KEY=VALUE")
        try:
            _set(content, key, yaml.safe_load(value))
        except yaml.YAMLError as problem:
            raise UsageError(f"--set {override}: the value is not YAML ({' '.join(str(problem).split())})") from None
    try:
        found = Recipe.model_validate(content)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise UsageError(f"{place}: {where}: {first['msg']}") from None
    for path in found.data:
        if not (path / "meta.json").is_file():
            raise UsageError(f"{place}: data: {path} is no fetched data set; run `drdecr data fetch` first")
    for role in (found.student, found.teacher):
        if role != EMBEDDED and not Path(role).is_dir():
            raise UsageError(f"{place}: {role} is no model directory, and not `{EMBEDDED}`")
    return found


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
