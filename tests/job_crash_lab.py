"""Kills a build of a data directory's index at chosen lines of its code, and lets another attempt finish it.

A process of its own (one thread, so that it may fork). For each kill a child runs the job on a copy of the data
directory and dies at the n-th line that it executes in the programs' own code; then the same job is run to its end.
The index must hold exactly what it should, each passage once, in one new version, with nothing staged or left over.

Example: python tests/job_crash_lab.py incremental --kills 50
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from changing import ENCODER

from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import UploadWriter, parse_delete, parse_put, staged_uploads
from drdecr.index import Snapshot
from indexer.reindex import Task, build_next, publish

TEXTS = {f"p{i}": f"word{i} word{i + 1} all things" for i in range(30)}
MORE = {"p3": "another word", "new": "a kettle", "p4": TEXTS["p4"]}
GONE = ["p5", "p6", "nobody"]
EXPECTED = {each: text for each, text in {**TEXTS, **MORE}.items() if each not in GONE}
_PROGRAMS = ("indexer/", "drdecr/index/", "drdecr/collections/")
_DIED = 77
_LAST_LINES = 300


def stage(directory: DataDirectory, parse: Any, records: list[dict[str, str]]) -> None:
    with UploadWriter(directory, "docs", parse) as writer:
        writer.feed("".join(json.dumps(record) + "\n" for record in records).encode())
        writer.finish()


def run(directory: DataDirectory, task: Task) -> None:
    build_next(directory, task, ENCODER)
    publish(directory, task)


def prepare(home: Path) -> Path:
    """Make a data directory with a version of TEXTS and with changes staged."""
    directory = DataDirectory(home / "base")
    directory.create_index("docs")
    stage(directory, parse_put, [{"id": each, "text": text} for each, text in TEXTS.items()])
    run(directory, Task("first", "docs", "incremental"))
    stage(directory, parse_put, [{"id": each, "text": text} for each, text in MORE.items()])
    stage(directory, parse_delete, [{"id": each} for each in GONE])
    return directory.root


def count_lines(base: Path, copy: Path, task: Task) -> int:
    """Return how many lines of the programs the job executes."""
    restore(base, copy)
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not _is_ours(frame):
            return None
        lines += event == "line"
        return trace

    sys.settrace(trace)
    run(DataDirectory(copy), task)
    sys.settrace(None)
    return lines


def die_at(line: int, copy: Path, task: Task) -> bool:
    """Run the job in a child that dies at a line; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if not _is_ours(frame):
                return None
            left -= event == "line"
            if left <= 0:
                os._exit(_DIED)
            return trace

        sys.settrace(trace)
        run(DataDirectory(copy), task)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _DIED), f"the job failed with {code}"
    return code == _DIED


def judge(copy: Path) -> None:
    """Check what the finished job left."""
    directory = DataDirectory(copy)
    assert directory.versions("docs") == [1, 2]
    found: Counter[str] = Counter()
    texts: dict[str, str] = {}
    with Snapshot.open(directory.version_path("docs", 2), verify=True) as snapshot:
        for segment in snapshot.segments:
            for passage in segment.store.read([at for at in range(len(segment)) if segment.holds(at)]):
                found[passage.id] += 1
                texts[passage.id] = passage.text
    assert texts == EXPECTED
    assert set(found.values()) == {1}
    assert staged_uploads(directory, "docs") == []
    assert list((directory.path("docs") / "work").iterdir()) == []
    with Snapshot.open(directory.version_path("docs", 1), verify=True) as snapshot:
        assert len(snapshot) == len(TEXTS)


def restore(base: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy)


def _is_ours(frame: FrameType) -> bool:
    return any(part in frame.f_code.co_filename for part in _PROGRAMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("mode", choices=["incremental", "full"])
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    task = Task("second", "docs", arguments.mode)
    chance = random.Random(5)
    # A killed process loses nothing that it wrote, synced or not.
    os.fsync = lambda _: None
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        base, copy = prepare(home), home / "copy"
        lines = count_lines(base, copy, task)
        judge(copy)
        died = published = 0
        # Half of them among the last lines, where the version is published.
        late = chance.sample(range(lines - _LAST_LINES, lines + 1), min(arguments.kills // 2, _LAST_LINES))
        anywhere = chance.sample(
            range(1, lines - _LAST_LINES), min(arguments.kills - len(late), lines - _LAST_LINES - 1)
        )
        for line in sorted(anywhere + late):
            restore(base, copy)
            died += die_at(line, copy, task)
            published += DataDirectory(copy).versions("docs") == [1, 2]
            run(DataDirectory(copy), task)
            judge(copy)
    sys.stdout.write(json.dumps({"lines": lines, "died": died, "published_before_death": published}) + "\n")


if __name__ == "__main__":
    main()
