"""Packages of the machine's own mirror, downloaded to be read; nothing is installed."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from drdecr.errors import FetchError
from training.data.clients import apt_command, client_failure, run_client
from training.data.files import naming_full_disk
from training.data.private_apt import other_targets, plain_messages, private_options, run_apt, write_settings


def download_packages(state: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return those of the packages that the mirror has, by name, downloaded into `state`/packages.

    apt checks what it downloads, and does not download again what is there. Raises: FetchError; ResourceError without
    apt-get or disk space.
    """
    state = state.resolve()
    place = state / "packages"
    options = private_options(state)
    with naming_full_disk(state):
        place.mkdir(parents=True, exist_ok=True)
        write_settings(state, (), ())
        write_settings(state, (), other_targets(options, "Packages"))
        command = [*apt_command(), *options, "update"]
        outcome = run_apt(command)
        offered = sorted(set(names).intersection(_known(options)))
        if not offered:
            if outcome.status != 0 or "Failed to fetch" in outcome.output:
                raise client_failure("the list of packages", command, outcome, state)
            raise FetchError(f"this machine's mirror has none of the packages {', '.join(names)}")
        command = [*apt_command(), *options, "download", *offered]
        outcome = run_apt(command, cwd=place)
        if outcome.status != 0:
            raise client_failure(f"{len(offered)} packages", command, outcome, state)
        found = _downloaded(options, state, offered)
    if missing := [name for name in offered if name not in found or not found[name].is_file()]:
        raise FetchError(
            f"apt-get ended well but left no {missing[0]} in {place}; this command shows more: {shlex.join(command)}"
        )
    return {name: found[name] for name in offered}


def read_package(package: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the contents of those files of a package that are wanted, by path (`usr/share/…`).

    A link is read as the file that it names, where that is in the package. Raises: FetchError for a broken package,
    ResourceError without dpkg-deb.
    """
    [command] = apt_command("dpkg-deb")
    unpacked = subprocess.run([command, "--fsys-tarfile", str(package)], capture_output=True, check=False)
    if unpacked.returncode != 0:
        raise FetchError(f"{package} is broken; delete it and run the same command again")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if not wanted(path):
                continue
            # A link may name a file of another package.
            with suppress(KeyError):
                if (file := archive.extractfile(member)) is not None:
                    found[path] = file.read()
    return found


def _downloaded(options: Sequence[str], state: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of the packages in the mirror's version: other versions may lie beside them.

    apt prints the addresses of those files alone that are not where it is asked, so it is asked elsewhere.
    """
    command = [*apt_command(), *options, "download", "--print-uris", *names]
    with TemporaryDirectory(dir=state) as elsewhere:
        outcome = run_apt(command, cwd=Path(elsewhere))
    if outcome.status != 0:
        raise client_failure("the names of the packages' files", command, outcome, state)
    # 'URI' FILE BYTES ALGORITHM:SUM
    files = [line.split()[1] for line in outcome.output.splitlines() if line.startswith("'")]
    return {file.split("_", maxsplit=1)[0]: state / "packages" / file for file in files}


def _known(options: Sequence[str]) -> list[str]:
    listing = run_client([*apt_command("apt-cache"), *options, "pkgnames"], env=plain_messages())
    return listing.output.split()
