"""Changes that are killed, lose power or fill the disk: all of a change is there, or nothing, and the next one works.

`tests/crash_lab.py` explains what is done; run by hand it kills at every step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).parents[1] / "crash_lab.py"
CHANGES = ("add", "delete", "rollback", "compact", "retrain", "merge", "replace")


@pytest.mark.parametrize("changes", [CHANGES[:3], CHANGES[3:]], ids=" ".join)
def test_killed_change_is_there_whole_or_not_at_all(changes: tuple[str, ...]) -> None:
    options = ("--kills", "10", "--power-loss", "--random", "5", "--full-disk", "5")
    # One thread: a child that is forked while others hold locks would wait for ever.
    done = subprocess.run(
        [sys.executable, str(LAB), *changes, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["change"] for report in reports] == list(changes)
    for report in reports:
        assert report["steps"]["kills"] == 20 and report["random"]["kills"] == 5
        assert report["full_disk"]["failed"] > 0
