"""Running pip and apt-get as what they are: the user's own clients, with the user's own configuration."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drdecr.errors import FetchError, ResourceError

NETWORK_SIGNS = re.compile(
    r"resolv|name or service|connection|connect to|unreachable|timed? ?out|newconnectionerror|proxy|"
    r"could not find a version|no matching distribution|failed to fetch",
    re.IGNORECASE,
)
DISK_SIGNS = re.compile(r"no space left|disk quota exceeded|not enough (free )?(disk )?space", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a client ended, and all that it wrote to stderr (and stdout, unless that was shown)."""

    status: int
    output: str


def pip_command() -> list[str]:
    """Return how to call pip: this Python's own, or one on PATH. Raises: ResourceError when there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise ResourceError(f"pip is missing; add it with `{sys.executable} -m ensurepip` and run the same command again")


def apt_command(program: str = "apt-get") -> list[str]:
    """Return how to call a program of apt. Raises: ResourceError when there is none."""
    if found := shutil.which(program):
        return [found]
    raise ResourceError(
        f"{program} is missing: it comes with Debian and Ubuntu, whose package lists and packages these data are; "
        "elsewhere use `drdecr data fetch homeassistant`"
    )


def run_client(command: Sequence[str], *, show_stdout: bool = False, env: Mapping[str, str] | None = None) -> Outcome:
    """Run a client to its end; with `show_stdout` its own progress bar appears on our stderr.

    Raises: ResourceError when it cannot be started.
    """
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if show_stdout else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            check=False,
        )
    except OSError as problem:
        raise ResourceError(f"cannot start {command[0]} ({problem.strerror}); repair it and run again") from None
    output = (ended.stdout or b"") + ended.stderr
    return Outcome(ended.returncode, output.decode(errors="replace"))


def client_failure(what: str, command: Sequence[str], outcome: Outcome, place: Path) -> FetchError | ResourceError:
    """Say why a client failed, in its own last words, and which command shows more."""
    lines = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"E:|W:|Err:|ERROR|error", line)] or lines
    offline = [line for line in errors if NETWORK_SIGNS.search(line)]
    words = _without_secrets((offline or errors or [f"exit status {outcome.status}"])[-1])
    if DISK_SIGNS.search(outcome.output):
        return ResourceError(f"the disk is full ({place}, or the temporary folder): {words}")
    again = _without_secrets(shlex.join(command))
    if offline:
        return FetchError(
            f"{what} could not be downloaded: {words} -- is the network open, and the registry or mirror configured? "
            f"This command shows more: {again}"
        )
    return FetchError(f"{what} could not be downloaded: {words} -- this command shows more: {again}")


def _without_secrets(text: str) -> str:
    return re.sub(r"//[^/\s@]+@", "//***@", text)
