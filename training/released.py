"""The demo with a released student: fetch what is searched, index, serve, evaluate. Nothing here needs torch.

workdir/
├── data/                the fetched set
├── student/             a copy of the released student
├── snapshot/            the demo index
├── released.json        which student this directory serves
├── served.json          which set the index holds
└── report.json          every metric by collection, system and language
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from drdecr.encoder.settings import MANIFEST_FILE, ONNX_FOLDER, read_manifest
from drdecr.errors import DrDecrError, UsageError
from training.demo_evaluation import evaluate_meanwhile
from training.demo_steps import (
    RELEASED_MARK,
    Clock,
    DemoDirectory,
    build_index,
    compile_meanwhile,
    forbid_other_mode,
    is_released,
    is_trained,
)
from training.evaluation.held_out import HeldOut, load_held_out, score_languages
from training.evaluation.snapshot_run import open_snapshot_ranker
from training.json_file import write_json
from training.report import Report, Table, score_bm25

NAME = "drdecr-16"
# What the steps took on two cores: only for the clock that the user sees.
_MINUTES = 2.0
_QUERIES_A_LANGUAGE = 60
# More would keep a newcomer waiting for over two minutes on slow cores, two of which read 27 passages a second.
_PASSAGES = 1_000
_SERVED = "served.json"


def find_released() -> Path | None:
    """Return the checkout's released student, of the package's own checkout or of the working directory."""
    for root in (Path(__file__).resolve().parents[1], Path.cwd()):
        place = root / "models" / NAME
        if _serves(place):
            return place
    return None


def choose_student(workdir: Path, named: Path | None, *, train: bool) -> Path | None:
    """Return the released student that the demo uses, or None where it trains one.

    What is asked for comes first, then how the working directory was begun, then whether there is a released student.
    Raises: UsageError for a named directory that holds no serving student, and where both are asked for.
    """
    if named is not None:
        if train:
            raise UsageError("--student uses a student as it is, --train and --minutes make one; give one of them")
        if not _serves(named):
            raise UsageError(f"--student: {named} has no {ONNX_FOLDER}/{MANIFEST_FILE}")
        return named
    if train or is_trained(workdir):
        return None
    found = find_released()
    if found is None and is_released(workdir):
        return workdir / "student"
    return found


@dataclass(frozen=True, slots=True)
class ReleasedDemo(DemoDirectory):
    """Where the demo works, and the student that it serves."""

    released: Path

    def run(self, *, port: int | None = None) -> str:
        """Do all steps but serving. Returns the collection that is served.

        What an earlier run made with another student is made again. Where it will be served, at `port`, a process of
        its own evaluates once the service is ready, and prints the tables: a newcomer searches half a minute earlier.
        Raises: UsageError for a working directory that was begun by training; FetchError, ModelError.
        """
        forbid_other_mode(self.workdir, trains=False)
        self.workdir.mkdir(parents=True, exist_ok=True)
        clock = Clock(total_minutes=_MINUTES, steps=3)
        self._claim()
        clock.step(1, "fetch: translated texts from the package registry")
        indexed = self._is_indexed()
        if not indexed:
            compile_meanwhile(self.student)
        served, data = self._fetch()
        if not indexed:
            clock.step(2, f"index: the {served} passages")
            passages = self._write_passages(data)
            write_json(self.workdir / _SERVED, {"set": served})
            build_index(self.student, passages, self.snapshot)
        report = Report(self.workdir / "report.json")
        if port is not None and not {"BM25", "student"} <= report.content.get(served, {}).keys():
            clock.step(3, "evaluate: held-out queries in every language, while it serves")
            evaluate_meanwhile(__name__, f"http://127.0.0.1:{port}", str(self.workdir), served)
        else:
            clock.step(3, "evaluate: held-out queries in every language")
            self.evaluate(served)
        clock.done()
        return served

    def evaluate(self, served: str) -> None:
        """Score what is served, unless the report has it, and print the tables. Raises: DrDecrError."""
        report = Report(self.workdir / "report.json")
        held_out = _held_out(self.workdir / "data" / served)

        def score() -> Table:
            with open_snapshot_ranker(self.snapshot, self.student) as ranker:
                return score_languages(held_out, ranker.rank)

        report.measure(served, "BM25", partial(score_bm25, held_out))
        report.measure(served, "student", score)
        click.echo("\n" + report.tables())

    def _claim(self) -> None:
        """Copy the student, and drop what was made with another one."""
        mark = self.workdir / RELEASED_MARK
        fingerprint = read_manifest(self.released).fingerprint
        made = (self.student, self.snapshot)
        if mark.is_file():
            same = json.loads(mark.read_text())["fingerprint"] == fingerprint
            if same and _serves(self.student):
                return
        elif any(one.exists() for one in made):
            raise UsageError(
                f"{self.workdir} holds a student or snapshot that is not this demo's; name another --workdir"
            )
        for one in made:
            shutil.rmtree(one, ignore_errors=True)
        (self.workdir / "report.json").unlink(missing_ok=True)
        # Before the copy: a student without the mark is somebody else's.
        write_json(mark, {"fingerprint": fingerprint})
        copy = self.workdir / "student.partial"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.released, copy)
        copy.rename(self.student)

    def _fetch(self) -> tuple[str, Path]:
        """Fetch the set that is served: the one that is indexed, else Debian where there is one."""
        mark = self.workdir / _SERVED
        if self._is_indexed() and mark.is_file():
            data = self.fetched(json.loads(mark.read_text())["set"])
        else:
            data = self.fetch_debian() or self.fetch_homeassistant()
        return data.name, data

    def _is_indexed(self) -> bool:
        return (self.snapshot / "manifest.json").is_file()

    def _write_passages(self, data: Path) -> Path:
        """Write the passages that are indexed, in the order of the data set."""
        kept = {passage.id for passage in _held_out(data).passages}
        path = self.workdir / "passages.jsonl"
        with (data / "demo.passages.jsonl").open(encoding="utf-8", newline="\n") as lines:
            path.write_text("".join(line for line in lines if json.loads(line)["id"] in kept), "utf-8")
        return path


def evaluate_apart(workdir: str, served: str) -> None:
    """Evaluate in a process of its own, once the service at `url` is ready; it gives way to that."""
    try:
        ReleasedDemo(Path(workdir), Path(workdir) / "student").evaluate(served)
    except DrDecrError as problem:
        click.echo(f"not evaluated: {problem}", err=True)


def _held_out(data: Path) -> HeldOut:
    """Read the queries that are evaluated, with every passage that answers one and others until there are enough."""
    held_out = load_held_out(data, limit=_QUERIES_A_LANGUAGE)
    asked = {query.id for queries in held_out.queries.values() for query in queries}
    answers = {passage for query in asked for passage in held_out.qrels.get(query, {})}
    room = _PASSAGES - sum(passage.id in answers for passage in held_out.passages)
    kept = []
    for passage in held_out.passages:
        room -= passage.id not in answers
        if passage.id in answers or room >= 0:
            kept.append(passage)
    return replace(held_out, passages=kept)


def _serves(place: Path) -> bool:
    return (place / ONNX_FOLDER / MANIFEST_FILE).is_file()
