"""Ask for known vulnerabilities of what the serving image installs: the packages of requirements.lock.

pip-audit asks two services in turn, PyPI's and OSV's. Exit status 1: a package is vulnerable, and there is a version
that is not. Where neither has an answer (a closed network, a mirror without advisories), nothing is known, and the
last line says so; the lock file with its hashes then still decides what is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"
SERVICES = ("pypi", "osv")


def asked(service: str, lock: Path) -> list[dict[str, Any]]:
    """Return what a service says of each package: `vulns`, or `skip_reason`; nothing where it gave no answer."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--format", "json"]
    options = ["--vulnerability-service", service, "--progress-spinner", "off", "--timeout", "10"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (json.JSONDecodeError, KeyError):
        return []


def report(packages: list[dict[str, Any]]) -> int:
    """Print each vulnerability; 1 where one is mended by a newer version, which `make lock` takes."""
    status = 0
    for package in packages:
        for found in package.get("vulns", ()):
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
            status |= bool(found["fix_versions"])
    known = sum("vulns" in package for package in packages)
    print(f"audited {known} of {len(packages)} packages")
    return status


def main() -> int:
    for service in SERVICES:
        packages = asked(service, LOCK)
        if any("vulns" in package for package in packages):
            return report(packages)
    print(
        f"no vulnerability service answered ({', '.join(SERVICES)}): nothing is known of {LOCK.name}", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
