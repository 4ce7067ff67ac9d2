"""`drdecr quickstart` with a released student, as a program on a machine without torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fabricated_data_set import make_data_set
from free_port import free_port
from service_process import WAIT_S, environment

from training.data.homeassistant import RELEASE
from training.demo_steps import LANGUAGES

HEAVY = ("torch", "transformers", "sentence_transformers", "onnx", "datasets", "safetensors")


@pytest.fixture
def without_torch(tmp_path: Path) -> Path:
    """A directory of packages that cannot be imported."""
    for name in HEAVY:
        (tmp_path / "absent" / name).mkdir(parents=True)
        (tmp_path / "absent" / name / "__init__.py").write_text("raise ImportError('not installed here')\n")
    return tmp_path / "absent"


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A working directory where both sets are fetched already: nothing goes over a network."""
    place, languages = tmp_path / "work", ("de", "ru")
    for name, more in (("debian", {}), ("homeassistant", {"version": RELEASE.version})):
        request = {"data": name, **more, "languages": list(LANGUAGES)}
        make_data_set(place / "data" / name, languages, times_asked=2, request=request)
    return place


def test_demo_answers_without_torch(workdir: Path, tiny_student: Path, without_torch: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = environment()
    settings["PYTHONPATH"] = f"{without_torch}:{settings.get('PYTHONPATH', '')}"
    options = [f"--workdir={workdir}", f"--student={tiny_student}", f"--port={port}"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", "from drdecr.cli import main; main()", "quickstart", *options],
            stdout=out,
            stderr=err,
            env=settings,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            wait_until_ready(client, process, tmp_path / "err")
            (name,) = (one["name"] for one in client.get("/v1/indexes").json()["indexes"])
            answer = client.post(f"/v1/indexes/{name}/search", json={"query": "music player", "k": 3}).json()
        # Another process evaluates meanwhile.
        until = time.monotonic() + WAIT_S
        while f"MRR@10, {name}" not in (tmp_path / "out").read_text():
            assert time.monotonic() < until, (tmp_path / "err").read_text()
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert len(answer["hits"]) == 3
    scores = json.loads((workdir / "report.json").read_text())["scores"]
    assert list(scores[name]) == ["BM25", "student"]
    assert f"Recall@10, {name}" in (tmp_path / "out").read_text()


def test_program_refuses_to_train_where_a_released_student_serves(
    workdir: Path, tiny_student: Path, tmp_path: Path
) -> None:
    (workdir / "released.json").write_text("{}")
    command = [sys.executable, "-c", "from drdecr.cli import main; main()", "quickstart", "--train", "--no-serve"]
    done = subprocess.run(
        [*command, f"--workdir={workdir}"], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 2
    assert "serves a released student; train in another --workdir" in done.stderr


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"never ready:\n{log.read_text()}")
