"""The file that holds the hashes of API keys, changed by `drdecr keys` while services read it."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drdecr.errors import UsageError
from service.keys import KeyHash


class KeyFile:
    """A file of key hashes, one a line; lines that begin with # are comments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] | None = None

    @property
    def changed(self) -> bool:
        """Tell whether it is another file than the one that was read last; so is one that could not be read."""
        return self.look() != self._stamp

    def read(self) -> dict[str, KeyHash]:
        """Return the keys by their ids; none where there is no file yet. Raises: UsageError, names the line."""
        # Looked at before it is read: what changes meanwhile is read again. Kept only once all of it was understood.
        stamp = self.look()
        found = self._parsed()
        self._stamp = stamp
        return found

    def look(self) -> tuple[int, ...] | None:
        """Return what tells one state of the file from the next, its mode and owner too; None where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _parsed(self) -> dict[str, KeyHash]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageError(f"{self.path}: cannot be read ({problem})") from None
        found = {}
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                try:
                    stored = KeyHash.parse(line.strip())
                except ValueError as problem:
                    raise UsageError(f"{self.path}:{number}: {problem}") from None
                found[stored.id] = stored
        return found

    def add(self, stored: KeyHash) -> None:
        """Append a key. Raises: UsageError."""
        with self._locked():
            self._replace([*self._lines(), str(stored)])

    def remove(self, identity: str) -> bool:
        """Take a key out; False where there is none with this id. Raises: UsageError."""
        with self._locked():
            lines = self._lines()
            kept = [line for line in lines if not line.startswith(f"{identity}:")]
            if len(kept) < len(lines):
                self._replace(kept)
        return len(kept) < len(lines)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out other commands that change the file. Raises: UsageError."""
        try:
            held = os.open(self.path.absolute().parent, os.O_RDONLY)
        except OSError as problem:
            raise UsageError(f"{self.path}: cannot be written ({problem.strerror})") from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _lines(self) -> list[str]:
        self.read()
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    def _replace(self, lines: Iterable[str]) -> None:
        """Write the file anew; a reader sees the old one or the new.

        A first one is its owner's only; later ones keep owner and mode, so that a service that runs as another user
        can still read it.
        """
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                self._keep_owner_and_mode(file.fileno())
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as problem:
            raise UsageError(f"{self.path}: cannot be written ({problem.strerror})") from None
        finally:
            # Gone already where it replaced the file; on a read-only disk even that is an error of its own.
            with suppress(OSError):
                part.unlink()

    def _keep_owner_and_mode(self, descriptor: int) -> None:
        """Give what replaces the file its owner and mode. Raises: UsageError where that cuts off who reads it."""
        try:
            old = self.path.stat()
        except FileNotFoundError:
            return
        mode = stat.S_IMODE(old.st_mode)
        # Only root gives files away; a member of the group may at least keep that.
        for owner in (old.st_uid, -1):
            with suppress(OSError):
                os.fchown(descriptor, owner, old.st_gid)
                break
        new = os.fstat(descriptor)
        owner_lost = old.st_uid not in {new.st_uid, 0}
        group_lost = new.st_gid != old.st_gid
        if not mode & stat.S_IROTH and (owner_lost or (group_lost and mode & stat.S_IRGRP)):
            raise UsageError(
                f"{self.path}: user {old.st_uid} and group {old.st_gid} could not read it any more; run this as root"
            )
        os.fchmod(descriptor, mode & ~stat.S_IWGRP if group_lost else mode)
