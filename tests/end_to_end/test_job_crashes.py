"""Builds that are killed at lines of their code; see tests/job_crash_lab.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from service_process import environment

LAB = Path(__file__).parent.parent / "job_crash_lab.py"


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_job_killed_at_any_line_is_finished_by_another(mode: str):
    command = [sys.executable, str(LAB), mode, "--kills", "25"]
    lab = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280, check=False)
    assert lab.returncode == 0, lab.stderr
    assert json.loads(lab.stdout)["died"] >= 20
