"""What a recipe asks of its data and of the processes that train: checked before anything is loaded or trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drdecr.errors import InputError
from training.fit import require_whole_parts
from training.plan import require_steps
from training.recipe import EMBEDDED, AnyStage, LiteralStage, RankingStage, Recipe, Stage
from training.rows import Row, choose, language_of
from training.run_directory import stage_folder

RowsBySource = Mapping[str, list[Row]]


def require_feasible(
    recipe: Recipe, out: Path, parallel: RowsBySource, labelled: RowsBySource, dictionaries: RowsBySource
) -> None:
    """Raise the error of the first stage that could not train; it would show only after the stages before it.

    Raises: InputError where a stage has no rows, or the embedded base no texts to be fitted to; UsageError where the
    batch of a stage has no parts for every process, or where several processes would have to time a step.
    """
    starts = [recipe.student, *(stage.start for stage in recipe.stages)]
    if EMBEDDED in starts and not any(parallel.values()):
        raise InputError("the embedded base is fitted to parallel text: name some under `data` or `parallel`")
    if recipe.switched is not None:
        # What they are made of is there, but they are not yet: any row stands for them.
        stands_in = [next(iter(rows)) for rows in parallel.values() if rows][:1]
        parallel = {**parallel, **{f"switched/{language_of(source)}": stands_in for source in dictionaries}}
    for number, stage in enumerate(recipe.stages):
        folder = stage_folder(out, recipe, number)
        if (folder / "done.json").is_file():
            continue
        require_whole_parts(stage)
        require_steps(stage, folder)
        if not _has_rows(stage, parallel, labelled, dictionaries):
            raise InputError(f"stage {stage.name}: no rows to learn from")


def rows_of(
    stage: Stage, parallel: RowsBySource, labelled: RowsBySource, dictionaries: RowsBySource
) -> tuple[RowsBySource, RowsBySource]:
    """Return the parallel and the labelled rows that a stage of distillation learns from, by source."""
    pairs = {} if stage.rows == "dictionaries" else parallel
    if stage.rows != "text":
        pairs = {**pairs, **dictionaries}
    return (
        choose(pairs, stage.sources, stage.longest),
        {} if stage.rows == "dictionaries" else choose(labelled, stage.sources),
    )


def _has_rows(stage: AnyStage, parallel: RowsBySource, labelled: RowsBySource, dictionaries: RowsBySource) -> bool:
    if isinstance(stage, Stage):
        return any(any(rows.values()) for rows in rows_of(stage, parallel, labelled, dictionaries))
    if isinstance(stage, LiteralStage):
        return any(parallel.values())
    assert isinstance(stage, RankingStage)
    kinds = {"lists": True, "labelled": any(labelled.values()), "parallel": any(parallel.values())}
    return kinds[stage.rows]
