"""`drdecr index` and `drdecr search` as programs: exit statuses, signals, one clear line for each failure."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fabricated_vectors import encoded, save_vectors
from service_process import WAIT_S

DRDECR = [sys.executable, "-c", "from drdecr.cli import main; main()"]


def drdecr(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DRDECR, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def assert_fails_with_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("drdecr: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    lines = (json.dumps({"id": f"p{i}", "text": f"passage number {i} about subject {i % 9}"}) for i in range(60))
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    (tmp_path / "queries.tsv").write_text("q1\tsubject 4\nq2\tnumber 17\n")
    return path


def test_student_builds_verifies_and_searches(passages: Path, tiny_student: Path, another_student: Path) -> None:
    home = passages.parent
    built = drdecr("index", "build", "--student", tiny_student, "--passages", passages, "--out", "snap", cwd=home)
    assert built.returncode == 0, built.stderr
    assert "60 passages" in built.stdout
    # No progress bar where stderr is no terminal.
    assert built.stderr == ""
    assert drdecr("index", "verify", "snap", cwd=home).returncode == 0
    searched = drdecr(
        "search", "snap", "--student", tiny_student, "--queries", "queries.tsv", "--run", "run.trec", cwd=home
    )
    assert searched.returncode == 0, searched.stderr
    assert len((home / "run.trec").read_text().splitlines()) == 120

    again = drdecr("index", "build", "--student", tiny_student, "--passages", passages, "--out", "snap", cwd=home)
    assert_fails_with_one_line(again, 2, "snap exists already", "--force")
    wrong = drdecr("search", "snap", "--student", another_student, "--queries", "queries.tsv", cwd=home)
    assert_fails_with_one_line(wrong, 1, "24 token", "16 token")


def test_flipped_byte_is_named_with_status_1(tmp_path: Path) -> None:
    save_vectors(tmp_path / "v.npz", encoded([3, 9, 4], 16))
    assert drdecr("index", "build", "--vectors", "v.npz", "--out", "snap", cwd=tmp_path).returncode == 0
    file = tmp_path / "snap/segments/000001/cells.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert_fails_with_one_line(drdecr("index", "verify", "snap", cwd=tmp_path), 1, "cells.npy", "SHA-256")


def test_directory_that_is_no_snapshot_is_named(tmp_path: Path) -> None:
    for command in (["index", "verify"], ["index", "info"]):
        assert_fails_with_one_line(drdecr(*command, ".", cwd=tmp_path), 1, "is not a snapshot")


def start_slow_build(home: Path) -> subprocess.Popen[bytes]:
    """Start a build that is still encoding when the test goes on."""
    program = (
        "import time\n"
        "from pathlib import Path\n"
        "import fabricated_vectors\n"
        "class Slow(fabricated_vectors.WordEncoder):\n"
        "    def encode(self, *args, **options):\n"
        "        Path('started').touch()\n"
        "        time.sleep(60)\n"
        "import sys, types\n"
        "loader = types.ModuleType('drdecr.encoder.load')\n"
        "loader.load_encoder = lambda path, *, threads=None: Slow()\n"
        "sys.modules['drdecr.encoder.load'] = loader\n"
        "from drdecr.cli import main\n"
        "main()\n"
    )
    tests = str(Path(__file__).parents[1])
    command = "index build --student s --passages passages.jsonl --out snap --force"
    started = subprocess.Popen(
        [sys.executable, "-c", program, *command.split()],
        cwd=home,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
    )
    deadline = time.monotonic() + 60
    while not (home / "started").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (home / "started").unlink()
    return started


def names_in(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()} - {"queries.tsv", "passages.jsonl", "v.npz"}


def test_ctrl_c_leaves_nothing_behind(passages: Path) -> None:
    with start_slow_build(passages.parent) as started:
        assert len(names_in(passages.parent)) == 1
        started.send_signal(signal.SIGINT)
        _, printed = started.communicate(timeout=WAIT_S)
    assert started.returncode == 130
    assert printed.decode().strip() == "drdecr: interrupted"
    assert names_in(passages.parent) == set()


def test_killed_build_keeps_the_old_snapshot_and_the_next_one_cleans_up(passages: Path) -> None:
    home = passages.parent
    save_vectors(home / "v.npz", encoded([3, 9, 4], 16))
    assert drdecr("index", "build", "--vectors", "v.npz", "--out", "snap", cwd=home).returncode == 0
    with start_slow_build(home) as started:
        started.kill()
        started.communicate(timeout=WAIT_S)
    assert drdecr("index", "verify", "snap", cwd=home).returncode == 0
    assert len(names_in(home)) == 2
    assert drdecr("index", "build", "--vectors", "v.npz", "--out", "snap", "--force", cwd=home).returncode == 0
    assert names_in(home) == {"snap"}


@pytest.mark.parametrize("limit_bytes", [4_000, 60_000, 300_000])
def test_build_that_cannot_write_on_fails_and_cleans_up(tmp_path: Path, limit_bytes: int) -> None:
    save_vectors(tmp_path / "v.npz", encoded([40] * 100, 64, 32))
    done = subprocess.run(
        [*DRDECR, "index", "build", "--vectors", "v.npz", "--out", "snap"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )
    assert_fails_with_one_line(done, 1, "snap", "cannot be written")
    assert names_in(tmp_path) == set()
