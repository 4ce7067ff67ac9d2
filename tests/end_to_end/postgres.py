"""A PostgreSQL of the test's own, in a temporary directory; skips where none is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from free_port import free_port


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server and yield the URL of a database in it, which does not exist yet."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    # The server refuses to run as root, and must be able to reach its directory.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="drdecr-postgres-"))
    try:
        if user is not None:
            try:
                account = pwd.getpwnam(user)
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
            if shutil.which("setpriv") is None:
                pytest.skip("PostgreSQL does not run as root, and there is no setpriv (Debian: util-linux)")
            os.chown(home, account.pw_uid, account.pw_gid)
        data = home / "data"
        _run(user, programs / "initdb", "-D", data, "-A", "trust", "-U", "drdecr", "--no-sync")
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        _run(user, programs / "pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start")
        try:
            yield f"postgresql://drdecr@127.0.0.1:{port}/jobs"
        finally:
            _run(user, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _programs() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _run(user: str | None, *command: str | Path) -> None:
    # Popen's own `user` takes a real fork, which gRPC may abort in a process that has spoken to Ray.
    other = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    subprocess.run([*other, *(str(part) for part in command)], cwd="/", check=True, stdout=subprocess.DEVNULL)
