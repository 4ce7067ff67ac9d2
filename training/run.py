"""Carry out a recipe: a run directory with everything that it produced.

run/
├── recipe.json          the recipe as it was validated; a run directory belongs to it (training/run_directory.py)
├── models/              the unpacked English encoder, the teacher, the untrained base
├── stages/1-NAME/       plan, loss history, TensorBoard files, validation.json, the student after this stage
├── scores/              teachers' scores of candidate lists, for other runs too
├── report.html          curves, bars by source, examples of aligned tokens
└── student/             the product: the student after the last stage
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.errors import InputError, ModelError
from training.allocator import keep_freed_memory
from training.feasible import require_feasible, rows_of
from training.fit import StageRun, first_alone, is_first_process
from training.literal_stage import run_literal
from training.models import Models, Say, asks_recipes_teacher
from training.precision import in_bfloat16
from training.ranking import RankingInputs, run_ranking
from training.recipe import AnyStage, LiteralStage, RankingStage, Recipe
from training.rows import Row, choose, leave_out_held_out, read_labelled, read_parallel, read_parallel_files
from training.run_directory import claim, forbid_others_run, stage_folder
from training.run_report import FILE as REPORT_FILE
from training.run_report import SCORES_FILE, heat_maps, keep_scores, write_report
from training.stage import run_stage
from training.stage_rows import StageInputs
from training.switching import switched_rows
from training.validation import hold_back, score_validation, without


@dataclass(frozen=True, slots=True)
class Rows:
    """What the recipe's data hold, by set and language, or by file."""

    parallel: Mapping[str, list[Row]]
    labelled: Mapping[str, list[Row]]
    dictionaries: Mapping[str, list[Row]]
    validation: Mapping[str, list[Row]]


def run_recipe(recipe: Recipe, out: Path, *, resume: bool = False, say: Say = lambda line: None) -> Path:
    """Train all stages of a recipe and return the product, `out`/student.

    With `resume`, finished parts are kept and an interrupted stage goes on from its last checkpoint; without, `out`
    must not hold a run yet. Raises: UsageError otherwise, or where `out` belongs to another recipe.
    """
    keep_freed_memory()
    # The processes of a parallel training share the directory: the first one judges and claims it.
    first_alone(lambda: forbid_others_run(recipe, out, resume=resume))
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    rows = _read_rows(recipe, say)
    require_feasible(recipe, out, rows.parallel, rows.labelled, rows.dictionaries)
    texts = _texts_to_switch(recipe, rows)
    first_alone(lambda: claim(recipe, out, resume=resume))
    models = Models(recipe, out / "models", rows.parallel, say)
    # Whatever is missing shows before the first step.
    products = {"": models.student(recipe.student)}
    rows = _with_switched(recipe, rows, texts, products[""], say)
    recipes_teacher = models.teacher(recipe.teacher) if asks_recipes_teacher(recipe) else None
    stages = {stage.name for stage in recipe.stages}
    for stage in recipe.stages:
        if stage.start is not None and stage.start not in stages:
            models.student(stage.start)
        if stage.teacher is not None and stage.teacher not in stages:
            models.teacher(stage.teacher)
        if isinstance(stage, RankingStage) and stage.cross_encoder is not None:
            models.directory(stage.cross_encoder)
    last = ""
    for number, stage in enumerate(recipe.stages, start=1):
        say(f"stage {stage.name}")
        if stage.start is not None:
            start = products[stage.start] if stage.start in products else models.student(stage.start)
        else:
            start = products[last]
        teacher = recipes_teacher
        if stage.teacher is not None:
            teacher = products[stage.teacher] if stage.teacher in products else models.teacher(stage.teacher)
        run = StageRun(
            stage,
            student=start,
            folder=stage_folder(out, recipe, number - 1),
            seed=recipe.seed + number,
            dropout=recipe.dropout,
            bfloat16=in_bfloat16(recipe.precision),
        )
        products[stage.name] = _train(run, stage, rows, models, teacher, recipe.cache or out / "scores")
        last = stage.name
        if rows.validation and is_first_process() and not (run.folder / SCORES_FILE).is_file():
            try:
                keep_scores(run.folder, score_validation(products[last], rows.validation))
            except ModelError as problem:
                # Not every published model runs outside of training; its training goes on.
                say(f"{stage.name} has no validation.json: {problem}")
    product = out / "student"

    def publish() -> None:
        if not product.is_dir():
            partial = out / "student.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(products[last], partial)
            partial.rename(product)
        if not (out / REPORT_FILE).is_file():
            _report(recipe, out, product, teacher, rows, say)

    first_alone(publish)
    return product


def _report(recipe: Recipe, out: Path, student: Path, teacher: Path | None, rows: Rows, say: Say) -> None:
    """Write the run's report.html, with some of the held-back (or else first) texts as examples of alignment."""
    examples: list[str] = []
    if teacher is not None:
        shown = [some[0] for some in (rows.validation or rows.parallel).values() if some]
        try:
            examples = heat_maps(TorchEncoder.load(student), TorchEncoder.load(teacher), shown)
        except ModelError as problem:
            # Not every published model runs outside of training; a finished run does not fail for its pictures.
            say(f"report.html has no aligned tokens: {problem}")
    write_report(out, [stage_folder(out, recipe, at).name for at in range(len(recipe.stages))], examples)


def _train(run: StageRun, stage: AnyStage, rows: Rows, models: Models, teacher: Path | None, cache: Path) -> Path:
    if run.is_done:
        return run.product
    if isinstance(stage, RankingStage):
        judge = None if stage.cross_encoder is None else models.directory(stage.cross_encoder)
        longest = models.recipe.longest_passage
        return run_ranking(run, RankingInputs(rows.labelled, rows.parallel, cache, teacher, judge, longest))
    assert teacher is not None
    if isinstance(stage, LiteralStage):
        return run_literal(run, rows.parallel, teacher)
    parallel, labelled = rows_of(stage, rows.parallel, rows.labelled, rows.dictionaries)
    return run_stage(
        stage,
        StageInputs(
            student=run.student,
            teacher=TorchEncoder.load(teacher),
            parallel=parallel,
            labelled=labelled,
            seed=run.seed,
            dropout=run.dropout,
            bfloat16=run.bfloat16,
            validation=rows.validation,
            maps=models.place,
        ),
        run.folder,
    )


def _read_rows(recipe: Recipe, say: Say) -> Rows:
    parallel = read_parallel(recipe.data, recipe.languages, recipe.longest_pair, say) if recipe.data else {}
    files, dictionaries = (
        leave_out_held_out(read_parallel_files(paths, recipe.longest_pair), recipe.data)
        for paths in (recipe.parallel, recipe.dictionaries)
    )
    parallel |= files
    labelled = read_labelled(recipe.data, recipe.languages, recipe.longest_passage)
    if not recipe.validation_texts:
        return Rows(parallel, labelled, dictionaries, {})
    parallel, labelled, validation = hold_back(parallel, labelled, recipe.validation_texts)
    return Rows(parallel, labelled, without(dictionaries, validation), validation)


def _texts_to_switch(recipe: Recipe, rows: Rows) -> list[str]:
    """Return the English texts that `switched` asks for. Raises: InputError where it means no file of `parallel`."""
    wanted = recipe.switched
    if wanted is None:
        return []
    files = {source: some for source, some in rows.parallel.items() if source in map(str, recipe.parallel)}
    chosen = choose(files, wanted.texts)
    if not chosen:
        raise InputError(f"switched.texts: no file of `parallel` fits {', '.join(wanted.texts)}")
    return list(dict.fromkeys(row.english for some in chosen.values() for row in some))


def _with_switched(recipe: Recipe, rows: Rows, english: Sequence[str], student: Path, say: Say) -> Rows:
    """Add the rows that `switched` asks for."""
    wanted = recipe.switched
    if wanted is None:
        return rows
    say("switching words")
    switched = switched_rows(english, rows.dictionaries, wanted.rows, student / "tokenizer.json", recipe.seed)
    return replace(rows, parallel={**rows.parallel, **switched})
