"""`drdecr index add | delete | compact | merge` as programs: two writers, killed writers, exit statuses."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from changing import passage_file
from service_process import WAIT_S

DRDECR = [sys.executable, "-c", "from drdecr.cli import main; main()"]


def drdecr(*arguments: str | Path, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*DRDECR, "index", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def assert_fails_with_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("drdecr: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def files_in(snapshot: Path) -> dict[Path, bytes]:
    files = (path for path in snapshot.rglob("*") if path.is_file() and path.name != "writer.lock")
    return {path: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Path:
    home = tmp_path_factory.mktemp("built")
    passages = passage_file(home / "passages.jsonl", {f"p{i}": f"passage number {i}" for i in range(20)})
    passage_file(home / "more.jsonl", {"p3": "another text", "x": "one more"})
    done = drdecr("build", "--student", tiny_student, "--passages", passages, "--out", "snap", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "student").symlink_to(tiny_student)
    return home


@pytest.fixture
def home(tmp_path: Path, built: Path) -> Path:
    """A directory with a student, a snapshot `snap`, and a file of passages to add."""
    shutil.copytree(built, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def test_snapshot_is_changed_by_programs(home: Path, another_student: Path) -> None:
    add = ("add", "snap", "--passages", "more.jsonl", "--json", "--student")
    assert_fails_with_one_line(drdecr(*add, another_student, cwd=home), 1, "24 token", "16 token")
    done = drdecr(*add, "student", cwd=home)
    # No progress bar where stderr is no terminal.
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["added"], report["replaced"], report["passages"]) == (2, 1, 21)
    assert_fails_with_one_line(drdecr("delete", "snap", "--ids", "nobody", cwd=home), 1, "'nobody'", "--missing-ok")
    assert_fails_with_one_line(drdecr("delete", "snap", cwd=home), 2, "--ids")
    assert_fails_with_one_line(drdecr("merge", "all", "snap", cwd=home), 2, "two snapshots")


def start_slow_add(home: Path) -> subprocess.Popen[bytes]:
    """Start an add that is still encoding when the test goes on."""
    program = (
        "import sys, time, types\n"
        "from pathlib import Path\n"
        "from drdecr.encoder.load import load_encoder\n"
        "class Slow:\n"
        "    def __init__(self, path): self.spec = load_encoder(path).spec\n"
        "    def encode(self, *args, **options):\n"
        "        Path('started').touch()\n"
        "        time.sleep(60)\n"
        "loader = types.ModuleType('drdecr.encoder.load')\n"
        "loader.load_encoder = lambda path, *, threads=None: Slow(path)\n"
        "sys.modules['drdecr.encoder.load'] = loader\n"
        "from drdecr.cli import main\n"
        "main()\n"
    )
    command = "index add snap --student student --passages more.jsonl"
    started = subprocess.Popen([sys.executable, "-c", program, *command.split()], cwd=home, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (home / "started").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return started


def test_second_writer_is_refused_until_the_first_is_killed(home: Path) -> None:
    before = files_in(home / "snap")
    with start_slow_add(home) as first:
        for second in (
            drdecr("delete", "snap", "--ids", "p1", cwd=home),
            drdecr("build", "--student", "student", "--passages", "more.jsonl", "--out", "snap", "--force", cwd=home),
        ):
            assert_fails_with_one_line(second, 1, f"process {first.pid} on {os.uname().nodename}", "(add, since")
        first.kill()
        first.communicate(timeout=WAIT_S)
    assert files_in(home / "snap").keys() > before.keys()
    assert drdecr("delete", "snap", "--ids", "p1", cwd=home).returncode == 0
    assert [path.name for path in (home / "snap/segments").iterdir()] == ["000001"]


def test_add_that_cannot_write_on_leaves_the_old_generation(home: Path) -> None:
    before = files_in(home / "snap")
    failed = drdecr(
        "add",
        "snap",
        "--student",
        "student",
        "--passages",
        "more.jsonl",
        cwd=home,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert_fails_with_one_line(failed, 1, "snap", "cannot be written")
    assert files_in(home / "snap") == before
