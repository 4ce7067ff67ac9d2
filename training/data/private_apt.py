"""apt-get with the machine's own mirrors and a private directory.

The system's lists, caches and update hooks stay untouched, and no root is needed: every directory that apt writes is
ours. Signatures are checked as always.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from drdecr.errors import ResourceError
from training.data.clients import Outcome, apt_command, client_failure, run_client

SETTINGS = """\
#clear Acquire::Languages;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::AllowReleaseInfoChange "true";
"""


def private_options(state: Path) -> list[str]:
    """Return the options that make a program of apt write into `state` alone."""
    places = {"Dir::State": state, "Dir::State::Lists": state / "lists", "Dir::Cache": state / "cache"}
    settings = ["-c", str(state / "apt.conf")]
    return [*settings, *(word for name, place in places.items() for word in ("-o", f"{name}={place}"))]


def write_settings(state: Path, codes: Sequence[str], targets_off: Sequence[str]) -> None:
    """Write the configuration that the options name: languages, as apt calls them, and the targets not fetched."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    languages = " ".join(f'"{code}";' for code in ("en", *codes))
    off = "".join(f'{target}::DefaultEnabled "false";\n' for target in targets_off)
    (state / "apt.conf").write_text(f"{SETTINGS}Acquire::Languages {{ {languages} }};\n{off}")


def other_targets(options: Sequence[str], target: str) -> list[str]:
    """Return the configuration names of all index targets but one (`Translations`): other packages may add some."""
    command = [*apt_command("apt-config"), *options, "dump", "Acquire::IndexTargets"]
    outcome = run_client(command, env=plain_messages())
    found = re.findall(r"^(Acquire::IndexTargets::deb(?:-src)?::[^:\s]+)", outcome.output, re.MULTILINE)
    if outcome.status != 0 or not found:
        raise client_failure("apt's configuration", command, outcome, Path(options[1]).parent)
    return sorted({name for name in found if name != f"Acquire::IndexTargets::deb::{target}"})


def run_apt(command: Sequence[str], *, cwd: Path | None = None) -> Outcome:
    """Run `apt-get … update` or `… download`, showing the percentage that it reports. Raises: ResourceError."""
    verb = next(word for word in command if word in ("update", "download"))
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, encoding="utf-8", errors="replace") as status,
        tempfile.TemporaryFile() as words,
        tqdm(total=100, desc=f"apt-get {verb}", unit="%", disable=not sys.stderr.isatty(), leave=False) as bar,
    ):
        try:
            process = subprocess.Popen(
                [*command, "-q", "-o", f"APT::Status-Fd={writer}"],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=(writer,),
                env=plain_messages(),
                cwd=cwd,
            )
        except OSError as problem:
            raise ResourceError(f"cannot start {command[0]} ({problem.strerror}); repair it and run again") from None
        finally:
            os.close(writer)
        try:
            for line in status:
                if found := re.match(r"dlstatus:\d+:([\d.]+):", line):
                    bar.update(max(0.0, round(float(found[1]) - bar.n, 1)))
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        words.seek(0)
        return Outcome(process.returncode, words.read().decode(errors="replace"))


def plain_messages() -> dict[str, str]:
    """Return an environment in which apt speaks English."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
