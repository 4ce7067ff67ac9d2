"""What the serving image installs, package by package, and what CI says of known vulnerabilities."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("cpu", "demo", "otel", "pool")


def test_lock_holds_every_package_that_the_project_names_within_its_bounds():
    locked = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, flags=re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    named = [
        *PROJECT["dependencies"],
        *(each for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra]),
    ]
    for requirement in map(Requirement, named):
        versions = locked[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_every_locked_package_has_the_hashes_of_its_files():
    for entry in re.split(r"\n(?=\w)", LOCK.strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.partition("\n")[0]


def test_the_serving_image_installs_nothing_but_the_lock():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stage = dockerfile[dockerfile.index("AS install-cpu") :]
    stage = stage[: stage.index("\nFROM")]
    installs = re.findall(r"pip install (.+?)(?: &&|$)", stage, flags=re.MULTILINE)
    assert installs == ["--require-hashes --requirement requirements.lock", "--no-deps ."]


@pytest.mark.parametrize(("fixes", "status"), [(["2.1"], 1), ([], 0)])
def test_a_vulnerable_package_fails_the_audit_where_a_version_mends_it(capsys, fixes, status):
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    vulnerable = {"name": "thing", "version": "2.0", "vulns": [{"id": "X-1", "fix_versions": fixes}]}
    assert audit.report([vulnerable, {"name": "other", "skip_reason": "not found"}]) == status
    shown = capsys.readouterr().out
    assert "thing 2.0: X-1" in shown and "audited 1 of 2 packages" in shown
