"""The file that holds the hashes of API keys, changed by `drdecr keys` while services read it."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
        """Tell whether it is another file than the one that was read."""
        return self._look() != self._stamp

    def read(self) -> dict[str, KeyHash]:
        """Return the keys by their ids; none where there is no file yet. Raises: UsageError, names the line."""
        self._stamp = self._look()
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
        """Write the file anew, readable by its owner only; a reader sees the old one or the new."""
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as problem:
            part.unlink(missing_ok=True)
            raise UsageError(f"{self.path}: cannot be written ({problem.strerror})") from None

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
