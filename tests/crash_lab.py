"""Kills changes of a snapshot at chosen steps, and at random moments, and looks at what is left.

A process of its own (one thread, so that it may fork) makes a snapshot; for each kill it forks a child on a copy,
which ends at once, or is killed, in the middle of a change. Then the snapshot must verify, hold all of the change or
nothing, and take the next change, which leaves no remains.

A step is a line of the programs' own code: between two of them lies at most one request to the system. In a power
loss, in addition, everything is lost that was not made durable: files whose bytes were not synced are cut to nothing,
and the names that a directory got since it was last synced go; a renamed manifest counts both as kept and as lost.

Example: python tests/crash_lab.py add delete compact --kills 100000 --power-loss --random 1000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from changing import ENCODER, passage_file

from drdecr.errors import ResourceError, SnapshotError
from drdecr.index import EXACT, Snapshot
from drdecr.index.manifest import MANIFEST, read_manifest
from indexer.build import build
from indexer.change import add, delete, rollback
from indexer.compact import compact
from indexer.damage import damaged_files
from indexer.generations import earlier_generations, generation_path
from indexer.merge import merge

TEXTS = {f"p{i}": f"word{i} word{i + 1} all things" for i in range(8)}
MORE = {"p3": "word3 replaced", "x": "a kettle", "y": "a pot of all things"}
IDS = [*TEXTS, *MORE, "z"]
QUERIES = ENCODER.encode(["all things", "word3 kettle"], "query")
_PROGRAMS = ("indexer/", "drdecr/index/")

Stamp = tuple[int, int, int]
State = tuple[dict[str, str], list[list[tuple[str, float]]]]


class Lab:
    """A directory with a snapshot, and a change that is done to copies of it."""

    def __init__(self, home: Path, change: str) -> None:
        self.home = home
        self.copy = home / "copy"
        self.more = passage_file(home / "more.jsonl", MORE)
        self.base = home / "base"
        build(ENCODER, passage_file(home / "passages.jsonl", TEXTS), self.base)
        delete(self.base, ["p6"])
        # A small segment, which the next addition merges with its own.
        add(self.base, ENCODER, passage_file(home / "small.jsonl", {"z": "a tiny pot"}))
        self.other = home / "other"
        build(ENCODER, self.more, self.other)
        self.change = lambda: CHANGES[change](self)
        self.restore()
        self.before = state_of(self.copy)
        self.change()
        self.after = state_of(self.copy)
        began = time.perf_counter()
        self.change()
        self.seconds = time.perf_counter() - began
        self.twice = state_of(self.copy)

    def restore(self) -> None:
        """Make the copy what the snapshot was."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.base, self.copy)

    def run(self, prepare: Callable[[], None], kill_after_s: float | None = None) -> bool:
        """Do the change in a child that `prepare` readies; return whether it died before its end."""
        child = os.fork()
        if child == 0:
            try:
                prepare()
                self.change()
            except (ResourceError, SnapshotError) as problem:
                os._exit(FULL if "cannot be written" in str(problem) else 1)
            except BaseException as problem:
                sys.settrace(None)
                os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
                os._exit(1)
            sys.settrace(None)
            os._exit(0)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, DIED, FULL, -signal.SIGKILL), f"the change failed with {code}"
        return code != 0

    def judge(self, outcomes: Counter[str]) -> bool:
        """Check what a crash left, and that the next change leaves no remains; return whether it held the change."""
        assert damaged_files(self.copy) == []
        found = state_of(self.copy)
        assert found in (self.before, self.after), f"neither before nor after: {found}"
        outcomes["nothing" if found == self.before else "all"] += 1
        self.change()
        assert damaged_files(self.copy) == []
        assert state_of(self.copy) == (self.after if found == self.before else self.twice)
        assert remains(self.copy) == set()
        assert not list(self.home.glob(".*"))
        return found == self.after


DIED, FULL = 77, 78


def state_of(snapshot: Path) -> State:
    """Return what a snapshot holds and answers."""
    with Snapshot.open(snapshot) as opened:
        texts = {each: passage.text for each, passage in opened.passages(IDS).items()}
        return texts, [
            sorted((hit.id, round(hit.score, 4)) for hit in hits) for hits in opened.search(QUERIES, 100, EXACT)
        ]


def remains(snapshot: Path) -> set[str]:
    """Return the files that no generation needs."""
    current = read_manifest(snapshot)
    kept = earlier_generations(snapshot, current)
    needed = {path for manifest in (current, *kept) for path in manifest.paths()}
    needed |= {generation_path(manifest.generation) for manifest in kept} | {MANIFEST, "writer.lock"}
    return {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()} - needed


def stamp_of(path: Path) -> Stamp:
    """Return what shows that a file was replaced or written to."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def die_at(step: int) -> Callable[[], None]:
    """Make what ends this process at its n-th step, without any cleaning up."""

    def prepare() -> None:
        left = step

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not any(part in frame.f_code.co_filename for part in _PROGRAMS):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(DIED)
            return trace

        sys.settrace(trace)

    return prepare


def count_steps(lab: Lab) -> int:
    """Return how many steps the change has."""
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        if not any(part in frame.f_code.co_filename for part in _PROGRAMS):
            return None
        steps += event == "line"
        return trace

    lab.restore()
    sys.settrace(trace)
    lab.change()
    sys.settrace(None)
    return steps


class Journal:
    """What a child made durable: the synced size of each file, and the names in each directory when it was synced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self) -> None:
        """Note every sync of this process, instead of waiting for a disk."""
        log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

        def fsync(descriptor: int) -> None:
            found = os.fstat(descriptor)
            place = Path(f"/proc/self/fd/{descriptor}").readlink()
            names = {each.name: each.stat().st_ino for each in place.iterdir()} if place.is_dir() else None
            line = {"inode": found.st_ino, "size": found.st_size, "names": names}
            os.write(log, (json.dumps(line) + "\n").encode())

        os.fsync = fsync

    def lose(self, root: Path, before: dict[Path, Stamp], manifest: bytes | None) -> None:
        """Take from `root` all that was not durable; `before` are the stamps of what was there already.

        `manifest` is what a manifest holds whose renaming was lost; None where it was kept.
        """
        entries = [json.loads(line) for line in self.path.read_text().splitlines()]
        sizes = {entry["inode"]: entry["size"] for entry in entries}
        names = {entry["inode"]: entry["names"] for entry in entries if entry["names"] is not None}
        for path in sorted(root.rglob("*"), reverse=True):
            inode = path.stat().st_ino
            if path.name == "writer.lock" or (path.is_file() and before.get(path) == stamp_of(path)):
                continue
            if path.is_file() and path.stat().st_size != sizes.get(inode):
                os.truncate(path, 0)
            if inode in (names.get(path.parent.stat().st_ino, {}).get(path.name), before.get(path, (None,))[0]):
                continue
            if path.name == MANIFEST:
                if manifest is not None:
                    path.write_bytes(manifest)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def kill_at_steps(lab: Lab, kills: int, *, power_loss: bool) -> dict[str, Any]:
    """Kill at steps spread over the change."""
    steps = count_steps(lab)
    manifest = (lab.base / MANIFEST).read_bytes()
    # The last step is never reached: the power fails after a change that was acknowledged.
    chosen = sorted({round(i * steps / max(kills - 1, 1)) for i in range(min(kills, steps + 1))})
    outcomes: Counter[str] = Counter()
    for step in chosen:
        for manifest_kept in (True, False) if power_loss else (True,):
            lab.restore()
            before = {path: stamp_of(path) for path in lab.copy.rglob("*")}
            journal = Journal(lab.home / "journal")
            journal.path.write_text("")

            def prepare(journal: Journal = journal, step: int = step) -> None:
                journal.record()
                die_at(step)()

            assert lab.run(prepare) == (step < steps), f"step {step} of {steps} was not reached"
            if power_loss:
                journal.lose(lab.copy, before, None if manifest_kept else manifest)
            try:
                assert lab.judge(outcomes) or step < steps, "an acknowledged change was lost"
            except BaseException as problem:
                problem.add_note(f"at step {step} of {steps}, manifest kept: {manifest_kept}")
                raise
    return {"steps": steps, "kills": outcomes.total(), **outcomes}


def fill_the_disk(lab: Lab, kills: int) -> dict[str, Any]:
    """Let no file grow beyond so many bytes: the change fails, cleans up and leaves everything as it was."""
    outcomes: Counter[str] = Counter()
    for number in range(kills):
        lab.restore()
        size = 64 << (2 * number)
        if lab.run(lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))):
            outcomes["failed"] += 1
            assert remains(lab.copy) == set()
            assert not list(lab.home.glob(".*"))
            assert state_of(lab.copy) == lab.before
            lab.judge(Counter())
    return {"kills": outcomes.total(), **outcomes}


def kill_at_random(lab: Lab, kills: int) -> dict[str, Any]:
    """Kill at random moments, also in the middle of a call into compiled code."""
    chance = random.Random(20_261_123)
    outcomes: Counter[str] = Counter()
    while outcomes.total() < kills:
        lab.restore()
        if lab.run(lambda: None, chance.uniform(0, lab.seconds)):
            lab.judge(outcomes)
    return {"kills": outcomes.total(), **outcomes}


CHANGES: dict[str, Callable[[Lab], object]] = {
    "add": lambda lab: add(lab.copy, ENCODER, lab.more),
    "delete": lambda lab: delete(lab.copy, ["p1", "p2"], missing_ok=True),
    "rollback": lambda lab: rollback(lab.copy),
    "compact": lambda lab: compact(lab.copy),
    "retrain": lambda lab: compact(lab.copy, retrain=True),
    "merge": lambda lab: merge(lab.copy, [lab.base, lab.other], on_duplicate="last", force=True),
    "replace": lambda lab: build(ENCODER, lab.more, lab.copy, force=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="+", choices=CHANGES)
    parser.add_argument("--kills", type=int, default=0, help="steps to end at")
    parser.add_argument("--power-loss", action="store_true", help="lose what was not synced, at each step")
    parser.add_argument("--random", type=int, default=0, help="kills at random moments")
    parser.add_argument("--full-disk", type=int, default=0, help="sizes of a disk that is too small")
    options = parser.parse_args()
    # No disk is worn out, nor waited for: a killed process loses nothing that it wrote, synced or not.
    memory = Path("/dev/shm")
    os.fsync = lambda _: None
    for change in options.changes:
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as home:
            lab = Lab(Path(home), change)
            report = {
                "change": change,
                "steps": kill_at_steps(lab, options.kills, power_loss=options.power_loss),
                "random": kill_at_random(lab, options.random),
                "full_disk": fill_the_disk(lab, options.full_disk),
            }
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
