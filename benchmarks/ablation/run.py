"""The paper's comparison, carried out on this machine: what each objective is worth, and how far the teacher is.

    python benchmarks/ablation/run.py benchmarks/ablation/small.yaml --work runs/ablation

Every row but the untrained one and the teachers trains the same untrained student for the same number of steps, once
a seed. `rows` names the paper's rows, and `variants` of one stage, each with what it changes of the `common` stage
(`stage`) and of the recipe (`recipe`), and which English `layers` are left of the untrained student. All rows answer
the same held-out queries; the results file holds each row's mean over languages, its spread over seeds, and for each
expectation a paired randomisation test over queries (each query's mean over seeds). What is done is kept in --work
and not done again. Exit status 1 where an expectation fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from torch import nn

from drdecr.corpus import Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import encode_windows
from training.data.fetch import fetch_debian, fetch_homeassistant
from training.evaluation.held_out import HeldOut, load_held_out
from training.evaluation.measures import score_queries
from training.evaluation.ranking import rank_encoded
from training.evaluation.significance import randomisation_test
from training.fit import save_student
from training.json_file import write_json
from training.models import Models
from training.recipe import EMBEDDED, Recipe
from training.rows import read_parallel
from training.run import run_recipe
from training.translators.apertium import Apertium

FETCH = {"homeassistant": fetch_homeassistant, "debian": fetch_debian}
MEASURES = ("success@1", "success@10")
APERTIUM = {"es": "spa-eng"}

Values = dict[str, dict[str, list[float]]]
"""measure -> "set/language" -> a value a query, in the order of the held-out queries"""


@dataclass(frozen=True)
class Ablation:
    """The settings of a YAML file, the data and the two models that all rows share."""

    settings: dict[str, Any]
    work: Path
    data: dict[str, Path]
    held_out: dict[str, HeldOut]
    base: Path
    teacher: Path

    def recipe(self, row: str, seed: int) -> Recipe:
        variant = self.settings.get("variants", {}).get(row)
        layers = (variant or {}).get("layers")
        stages = self._paper(row) if variant is None else [merged(self._shared(), variant.get("stage", {}))]
        return Recipe.model_validate(
            {
                "name": row.replace(" ", "-"),
                "seed": seed,
                "threads": self.settings.get("threads"),
                "student": str(self.base if layers is None else with_layers(self.base, layers)),
                "teacher": str(self.teacher),
                "data": [str(path) for path in self.data.values()],
                "languages": self.settings["languages"],
                "longest_pair": 120,
                "longest_passage": 220,
                "stages": [{"name": f"stage-{at}", **stage} for at, stage in enumerate(stages, start=1)],
                **((variant or {}).get("recipe", {})),
            }
        )

    def _shared(self) -> dict[str, Any]:
        """Return what the stages of all rows have."""
        sizes = {"query_tokens": 40, "passage_tokens": 40}
        return {**sizes, **self.settings["training"], **self.settings.get("common", {})}

    def _paper(self, row: str) -> list[dict[str, Any]]:
        shared = self._shared()
        steps = shared["steps"]
        tokens, relevance = self.settings["objectives"]["token"], self.settings["objectives"]["relevance"]
        off = {"token_query": 0, "token_passage": 0}
        stages: dict[str, list[dict[str, Any]]] = {
            "fine-tuning": [
                {
                    **shared,
                    "kind": "ranking",
                    "objective": "cross-entropy",
                    "in_batch": True,
                    "mean_maxsim": True,
                    "temperature": relevance["temperature"],
                }
            ],
            "relevance KD": [{**shared, "objectives": off | relevance}],
            "token KD": [{**shared, "objectives": off | tokens}],
            "both": [
                {**shared, "objectives": off | tokens, "steps": steps // 2},
                {**shared, "objectives": off | relevance, "steps": steps - steps // 2},
            ],
        }
        return stages[row]

    def trained(self, row: str, seed: int) -> Values:
        place = self.work / row.replace(" ", "-") / str(seed)
        student = run_recipe(self.recipe(row, seed), place, resume=True, say=lambda line: say(f"    {line}"))
        return self.scored(TorchEncoder.load(student), lambda lang, queries: queries)

    def scored(self, encoder: Encoder, asked: Callable[[str, Sequence[Query]], Sequence[Query]]) -> Values:
        values: Values = {measure: {} for measure in MEASURES}
        for name, held_out in self.held_out.items():
            passages = encode_windows(encoder, [passage.content for passage in held_out.passages])
            ids = [passage.id for passage in held_out.passages]
            for lang, queries in held_out.queries.items():
                run = rank_encoded(encoder, asked(lang, queries), passages, ids)
                scores = score_queries(run, held_out.qrels, {query.id for query in queries})
                for measure in MEASURES:
                    values[measure][f"{name}/{lang}"] = [
                        scores[query.id][measure] for query in queries if query.id in scores
                    ]
        return values

    def in_english(self, lang: str, queries: Sequence[Query]) -> Sequence[Query]:
        english = {query.id: query for held_out in self.held_out.values() for query in held_out.english}
        return [english[query.id] for query in queries]

    def by_apertium(self) -> Values:
        """Score the teacher with machine translations, of the languages that Apertium is used for."""
        translators = {lang: Apertium(APERTIUM[lang]) for lang in self.settings["languages"] if lang in APERTIUM}
        narrowed = {
            name: HeldOut(
                held_out.passages,
                {lang: some for lang, some in held_out.queries.items() if lang in translators},
                held_out.english,
                held_out.qrels,
            )
            for name, held_out in self.held_out.items()
        }

        def translated(lang: str, queries: Sequence[Query]) -> Sequence[Query]:
            texts = translators[lang].translate(queries)
            return [replace(query, text=text or query.text) for query, text in zip(queries, texts, strict=True)]

        return replace(self, held_out=narrowed).scored(TorchEncoder.load(self.teacher), translated)


def with_layers(student: Path, layers: Sequence[int]) -> Path:
    """Return an embedded student with these of its English layers only, made beside it unless it is there."""
    place = student.with_name(f"{student.name}-layers-{'-'.join(map(str, layers))}")
    if not place.is_dir():
        model = load_model(student, device="cpu")
        encoder = model[0]
        bert = encoder.context.bert
        bert.encoder.layer = nn.ModuleList(bert.encoder.layer[at] for at in layers)
        encoder.context_config = encoder.context_config | {"num_hidden_layers": len(layers)}
        save_student(model, student, place)
    return place


def merged(common: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `common` with `changes`; where both hold a mapping, the mapping with its own changes."""
    return {
        **common,
        **{
            key: common[key] | change if isinstance(change, dict) and key in common else change
            for key, change in changes.items()
        },
    }


def prepare(settings: dict[str, Any], work: Path) -> Ablation:
    data = {}
    for name in settings["data"]:
        data[name] = work / "data" / name
        FETCH[name](data[name], settings["languages"])
    held_out = {
        name: cut(load_held_out(path, settings["languages"], limit=settings["queries"]), settings["passages"])
        for name, path in data.items()
    }
    recipe = Recipe.model_validate(
        {
            "name": "base",
            "seed": settings["seeds"][0],
            "dim": settings["dim"],
            "sentence_weight": settings["sentence_weight"],
            "data": [str(path) for path in data.values()],
            "languages": settings["languages"],
            "stages": [{"name": "none", "steps": 1}],
        }
    )
    parallel = read_parallel(data.values(), settings["languages"], recipe.longest_pair)
    models = Models(recipe, work / "models", parallel, say)
    return Ablation(settings, work, data, held_out, models.student(EMBEDDED), models.teacher(EMBEDDED))


def cut(whole: HeldOut, passages: int) -> HeldOut:
    """Keep the answers of the queries, and other passages up to so many."""
    asked = {query.id for some in whole.queries.values() for query in some}
    answers = {answer for query in asked for answer in whole.qrels.get(query, {})}
    ranked = sorted(whole.passages, key=lambda passage: passage.id not in answers)
    return replace(whole, passages=ranked[: max(passages, sum(one.id in answers for one in ranked))])


def measure(ablation: Ablation, results: Path) -> dict[str, dict[str, Values]]:
    """Measure every row, row -> seed -> values, keeping each as soon as it is there."""
    kept: dict[str, dict[str, Values]] = json.loads(results.read_text()) if results.is_file() else {}

    def row(name: str, seed: str, score: Callable[[], Values]) -> None:
        if seed not in kept.get(name, {}):
            say(f"{name}, seed {seed}")
            kept.setdefault(name, {})[seed] = score()
            write_json(results, kept)

    row("raw transfer", "-", lambda: ablation.scored(load_encoder(ablation.base), lambda lang, queries: queries))
    for seed in ablation.settings["seeds"]:
        for name in ablation.settings["rows"]:
            row(name, str(seed), lambda name=name, seed=seed: ablation.trained(name, seed))
    teacher = "two-stage teacher"
    row(
        f"{teacher}, human",
        "-",
        lambda: ablation.scored(TorchEncoder.load(ablation.teacher), ablation.in_english),
    )
    if APERTIUM.keys() & set(ablation.settings["languages"]):
        if shutil.which("apertium") is None:
            say(f"{teacher}, Apertium: left out, apertium is not installed")
        else:
            row(f"{teacher}, Apertium", "-", ablation.by_apertium)
    return kept


def summarise(kept: Mapping[str, Mapping[str, Values]], settings: Mapping[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, seeds in kept.items():
        rows[name] = {}
        for one in MEASURES:
            means = [fmean(fmean(values) for values in of[one].values()) for of in seeds.values()]
            rows[name][one] = {
                "mean": round(fmean(means), 4),
                "spread": round(stdev(means), 4) if len(means) > 1 else None,
                "by_language": {
                    lang: round(fmean(fmean(of[one][lang]) for of in seeds.values()), 4)
                    for lang in next(iter(seeds.values()))[one]
                },
            }
    tests = []
    for expected in settings["expect"]:
        better, than, by = expected["better"], expected["than"], expected["measure"]
        if better not in kept or than not in kept:
            continue
        languages = [lang for lang in over_seeds(kept[better], by) if lang in over_seeds(kept[than], by)]
        sides = [[one for lang in languages for one in over_seeds(kept[row], by)[lang]] for row in (better, than)]
        gain = fmean(sides[0]) - fmean(sides[1])
        p = randomisation_test(*sides)
        tests.append({**expected, "gain": round(gain, 4), "p": round(p, 4), "holds": gain > 0})
    return {"settings": dict(settings), "rows": rows, "tests": tests}


def over_seeds(seeds: Mapping[str, Values], by: str) -> dict[str, list[float]]:
    """Return each query's mean over the seeds, by language."""
    every = [of[by] for of in seeds.values()]
    return {lang: [fmean(some) for some in zip(*(one[lang] for one in every), strict=True)] for lang in every[0]}


def show(summary: Mapping[str, Any]) -> None:
    print(f"{'mean over sets and languages':30}" + "".join(f"{one:>22}" for one in MEASURES))
    for name, row in summary["rows"].items():
        cells = ""
        for one in MEASURES:
            spread = "" if row[one]["spread"] is None else f" ± {row[one]['spread']:.3f}"
            cells += f"{row[one]['mean']:.3f}{spread}".rjust(22)
        print(f"{name:30}{cells}")
    for test in summary["tests"]:
        verdict = "OK  " if test["holds"] else "FAIL"
        print(f"{verdict} {test['better']} > {test['than']} ({test['measure']}): {test['gain']:+.3f}, p {test['p']}")


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Return a table a measure: rows, and columns of languages, each the mean over the sets."""
    lines = []
    for one in MEASURES:
        languages = summary["settings"]["languages"]
        lines += [f"| {one} | {' | '.join(languages)} | mean |", "| --- |" + " --- |" * (len(languages) + 1)]
        for name, row in summary["rows"].items():
            cells = []
            for lang in languages:
                of_sets = [value for source, value in row[one]["by_language"].items() if source.split("/")[1] == lang]
                cells.append(f"{fmean(of_sets):.3f}" if of_sets else "")
            spread = "" if row[one]["spread"] is None else f" ± {row[one]['spread']:.3f}"
            lines.append(f"| {name} | {' | '.join(cells)} | {row[one]['mean']:.3f}{spread} |")
        lines.append("")
    return "\n".join(lines)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument(
        "--out",
        type=Path,
        help="The results file, with a table beside it (.md); results.json in --work unless given.",
    )
    options = parser.parse_args()
    settings = yaml.safe_load(options.settings.read_text(encoding="utf-8"))
    options.work.mkdir(parents=True, exist_ok=True)
    # What is kept there belongs to its settings; what is expected of it may change.
    begun = options.work / "settings.json"
    measured = {key: value for key, value in settings.items() if key != "expect"}
    if not begun.is_file():
        write_json(begun, measured)
    elif json.loads(begun.read_text()) != json.loads(json.dumps(measured)):
        parser.error(f"{options.work} was begun with other settings (see {begun}); name another --work")
    kept = measure(prepare(settings, options.work), options.work / "values.json")
    summary = summarise(kept, settings)
    out = options.out or options.work / "results.json"
    write_json(out, summary)
    out.with_suffix(".md").write_text(as_markdown(summary), encoding="utf-8")
    show(summary)
    return int(not all(test["holds"] for test in summary["tests"]))


if __name__ == "__main__":
    sys.exit(main())
