"""The examples do what they say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import COMMAND, THINGS, WAIT_S, RunningService, environment, running_service
from worker_process import running_worker

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / name, *arguments]
    return subprocess.run(
        list(map(str, command)), env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def test_a_folder_is_searched_and_indexed_again_only_when_it_changed(tiny_student: Path, tmp_path: Path):
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "animals.txt").write_text("all about cats\n\nall about dogs\n\n\n", encoding="utf-8")
    (folder / "deep" / "music.txt").write_text("all about violins", encoding="utf-8")
    search = ("search_folder.py", folder, "cats", "violins", "--student", tiny_student, "--work", tmp_path / "work")
    for _ in range(2):
        done = run_example(*search, "-k", "1")
        assert done.returncode == 0, done.stderr
        cats, cat_hit, violins, violin_hit = done.stdout.splitlines()
        assert (cats, violins) == ("cats", "violins")
        assert "animals.txt: all about cats" in cat_hit
        assert "deep/music.txt: all about violins" in violin_hit
        assert kept_snapshots(tmp_path) == 1


def test_a_folder_is_indexed_again_for_another_student(tiny_student: Path, another_student: Path, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "animals.txt").write_text("all about cats\n\nall about dogs", encoding="utf-8")
    for kept, student in enumerate((tiny_student, another_student), start=1):
        options = ("--student", student, "--work", tmp_path / "work", "-k", "1")
        done = run_example("search_folder.py", tmp_path / "notes", "cats", *options)
        assert done.returncode == 0, done.stderr
        assert "animals.txt: all about" in done.stdout
        assert kept_snapshots(tmp_path) == kept


def kept_snapshots(folder: Path) -> int:
    return len([path for path in (folder / "work").iterdir() if path.is_dir()])


@pytest.fixture
def service(tiny_student: Path, tmp_path: Path) -> Iterator[RunningService]:
    """A service of an index `mine`."""
    passages, snapshot = tmp_path / "passages.jsonl", tmp_path / "snapshot"
    write(passages, {f"{thing}-{number}": f"all about {thing} {number}" for thing in THINGS for number in range(9)})
    build = [*COMMAND, "index", "build", "--student", tiny_student, "--passages", passages, "--out", snapshot]
    subprocess.run(build, check=True, env=environment(), stdout=subprocess.DEVNULL)
    options = ("--student", tiny_student, "--index", f"mine={snapshot}")
    with running_service(tmp_path / "log", *options) as running:
        yield running


def write(path: Path, texts: dict[str, str]) -> None:
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()))


def nightly(service: RunningService, passages: Path, canary: str, expected: str) -> tuple[str | Path, ...]:
    names = ("--service", service.url, "--index", "manuals", "--alias", "live")
    return ("reindex_nightly.py", passages, *names, "--canary", canary, "--expect", expected)


def test_nights_bring_an_alias_up_to_date_and_a_bad_one_does_not(tiny_student: Path, tmp_path: Path):
    passages, data = tmp_path / "passages.jsonl", tmp_path / "data"
    texts = {f"{thing}-{number}": f"all about {thing} {number}" for thing in THINGS for number in range(9)}
    write(passages, texts)
    options = ("--student", tiny_student, "--data", data)
    with (
        running_service(tmp_path / "serve.log", *options, FOLLOW_S="0.1") as service,
        running_worker(tmp_path / "worker.log", tiny_student, data),
    ):
        first = run_example(*nightly(service, passages, "all about moons 1", "moons-1"))
        assert "version 1: 54 passages encoded, 0 deleted, 54 served" in first.stdout, first.stderr
        stored = service.client.get("/v1/indexes/live/passages/cats-1").json()
        assert stored["text"] == "all about cats 1"
        write(passages, {"odd": "all about nothing", "moons-0": "all about moons 0"})
        failed = run_example(*nightly(service, passages, "all about cats 3", "cats-3"))
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "does not find cats-3 in version 2; live stays as it is" in failed.stderr
        assert service.client.get("/v1/indexes/live").json()["passages"] == 54
        # What the bad night deleted comes back, and what it added goes.
        del texts["cats-0"], texts["dogs-1"]
        write(passages, {**texts, "cats-1": "a violin that sings", "new": "a kettle"})
        third = run_example(*nightly(service, passages, "all about moons 1", "moons-1"))
        assert "version 3:" in third.stdout and third.stdout.endswith(", 53 served\n"), third.stderr
        assert service.client.get("/v1/indexes/live/passages/cats-0").status_code == 404
        assert service.client.get("/v1/indexes/live/passages/odd").status_code == 404
        assert service.client.get("/v1/indexes/live/passages/cats-1").json()["text"] == "a violin that sings"
        assert [each["alias"] for each in service.client.get("/v1/aliases").json()["aliases"]] == ["live"]
        write(passages, {**texts, "cats-1": "a violin that sings", "new": "a kettle", "cats-2": "a second kettle"})
        fourth = run_example(*nightly(service, passages, "all about moons 1", "moons-1"))
        assert "version 4: 1 passages encoded, 0 deleted, 53 served" in fourth.stdout, fourth.stderr


def test_the_retriever_gives_documents(service: RunningService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from retriever import Retriever

    found = Retriever(service.url, "mine", wishes={"k": 2})
    one = found.invoke("all about moons")
    assert [document.page_content[:15] for document in one] == ["all about moons"] * 2
    assert one[0].metadata["score"] >= one[1].metadata["score"]
    assert asyncio.run(found.ainvoke("all about moons")) == one
    assert found.batch(["all about moons", "all about cats"])[0] == one
    printed = run_example("retriever.py", "all about moons", "--service", service.url, "--index", "mine")
    assert "all about moons" in printed.stdout, printed.stderr
