"""What both demos share, without torch: their directory, the data, the clock, the index, the service."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from drdecr.errors import DrDecrError, FetchError, ResourceError, UsageError
from drdecr.index import Snapshot
from training.data.fetch import fetch_debian, fetch_homeassistant

LANGUAGES = ("ja", "ko", "ru", "de", "fr", "es", "pt", "tr", "zh")
# The demo's queries (benchmarks/demo_bits.py): Recall@1 / Recall@10 .591 / .839, with 16 bits .594 / .839; the
# service then takes 155 MB less.
_BITS = 6
# A collection of up to 300 is searched exactly, without the kernels that narrow.
_COMPILING_PASSAGES = 320
RELEASED_MARK = "released.json"
"""In a working directory: it serves a released student, this one."""
TRAINING_MARK = "run"
"""In a working directory: the training run whose product it serves."""


@dataclass(frozen=True, slots=True)
class DemoDirectory:
    """The directory that a demo works in, and what it leaves there."""

    workdir: Path

    @property
    def student(self) -> Path:
        return self.workdir / "student"

    @property
    def snapshot(self) -> Path:
        return self.workdir / "snapshot"

    def fetch_homeassistant(self) -> Path:
        """Fetch the set that every machine can have. Raises: FetchError, ResourceError."""
        place = self.workdir / "data" / "homeassistant"
        fetch_homeassistant(place, LANGUAGES)
        return place

    def fetch_debian(self) -> Path | None:
        """Fetch the set that is served where there is one; None, with the reason printed, where it cannot be had."""
        place = self.workdir / "data" / "debian"
        if shutil.which("apt-get") is None:
            return None
        try:
            fetch_debian(place, LANGUAGES)
        except (FetchError, ResourceError, UsageError) as problem:
            click.echo(f"  without the debian set: {problem}", err=True)
            return None
        return place

    def fetched(self, name: str) -> Path:
        """Return a set that an earlier run began with, fetched again where it is gone.

        Raises: FetchError, ResourceError. Another set in its place would be searched under this one's name.
        """
        place = self.workdir / "data" / name
        if (place / "meta.json").is_file():
            return place
        again = self.fetch_debian() if name == "debian" else self.fetch_homeassistant()
        if again is None:
            raise FetchError(f"{self.workdir} was begun with the {name} set; name another --workdir to go on without")
        return again


def is_trained(workdir: Path) -> bool:
    """Tell whether a working directory was begun by training a student."""
    return (workdir / TRAINING_MARK).is_dir()


def is_released(workdir: Path) -> bool:
    """Tell whether a working directory was begun with a released student."""
    return (workdir / RELEASED_MARK).is_file()


def forbid_other_mode(workdir: Path, *, trains: bool) -> None:
    """Raise UsageError where a working directory was begun in the other way: one never continues the other."""
    if trains and is_released(workdir):
        raise UsageError(f"{workdir} serves a released student; train in another --workdir, or remove it")
    if not trains and is_trained(workdir):
        raise UsageError(f"{workdir} was begun by training; go on with --train, or name another --workdir")


def build_index(student: Path, passages: Path, snapshot: Path) -> None:
    """Run `drdecr index build`. Raises: DrDecrError where it fails; it has said why."""
    command = ["index", "build", f"--student={student}", f"--passages={passages}", f"--out={snapshot}", "--force"]
    command.append(f"--bits={_BITS}")
    status = subprocess.run([sys.executable, "-m", "drdecr", *command], check=False).returncode
    if status:
        raise DrDecrError(f"the index was not built (exit status {status}); the lines above say why")


def compile_meanwhile(student: Path) -> None:
    """Start a process that compiles what building and searching need: half a minute on slow cores, once a machine."""
    call = "import sys; from training.demo_steps import compile_kernels; compile_kernels(sys.argv[1])"
    # What goes wrong there is told where the index is built.
    subprocess.Popen([sys.executable, "-c", call, str(student)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compile_kernels(student: str) -> None:
    """Build a small index and warm it up: numba then has on disk the kernels that the demo's index needs."""
    with TemporaryDirectory(prefix="drdecr-") as place:
        passages, snapshot = Path(place) / "passages.jsonl", Path(place) / "snapshot"
        with passages.open("w", encoding="utf-8") as file:
            for number in range(_COMPILING_PASSAGES):
                text = f"Passage {number} has a sentence. Here is the one after it."
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")
        build_index(Path(student), passages, snapshot)
        with Snapshot.open(snapshot) as opened:
            opened.warm_up()


class Clock:
    """Says which step runs and about how long the rest takes."""

    def __init__(self, total_minutes: float, steps: int) -> None:
        self.total_minutes = total_minutes
        self.steps = steps
        self.started = time.monotonic()

    def step(self, number: int, what: str) -> None:
        elapsed = (time.monotonic() - self.started) / 60
        left = max(self.total_minutes - elapsed, 0.5)
        click.echo(f"[{number}/{self.steps}] {what} (at {elapsed:.1f} min, about {left:.0f} min left)", err=True)

    def note(self, what: str) -> None:
        click.echo(f"  {what} (at {(time.monotonic() - self.started) / 60:.1f} min)", err=True)

    def done(self) -> None:
        click.echo(f"done after {(time.monotonic() - self.started) / 60:.1f} min", err=True)


def serve_forever(student: Path, snapshot: Path, alias: str, port: int) -> None:
    """Become `drdecr serve`: this process is replaced. Prints what to try first."""
    url = f"http://127.0.0.1:{port}"
    click.echo(
        f"\nServing the {alias} passages at {url} (Ctrl-C stops it). Open it in a browser, or try:\n\n"
        f"  curl -s {url}/v1/indexes/{alias}/search -H 'content-type: application/json' "
        '-d \'{"query": "画像を編集するプログラム", "k": 3}\'\n'
        f"  curl -s {url}/v1/indexes/{alias}/search -H 'content-type: application/json' "
        '-d \'{"query": "программа для просмотра видео", "k": 3}\'\n'
        f"  curl -s {url}/health\n"
    )
    sys.stdout.flush()
    command = ["serve", f"--student={student}", f"--index={alias}={snapshot}", f"--port={port}"]
    os.execv(sys.executable, [sys.executable, "-m", "drdecr", *command])


def check_port(port: int) -> None:
    """Raise ResourceError now, not after a quarter of an hour, where the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise ResourceError(
                f"port {port} cannot be used ({problem.strerror}); name another with --port"
            ) from None
