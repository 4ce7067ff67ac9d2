"""Where files lie that several machines share: a directory that all of them see, or a URL that fsspec reads."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from drdecr.errors import ResourceError, SnapshotError, UsageError
from drdecr.index.manifest import sync_path


class Place(Protocol):
    """A tree of files below `location`. Names are relative, with slashes; a file appears whole or not at all."""

    @property
    def location(self) -> str: ...

    def exists(self, name: str) -> bool: ...

    def names(self, under: str) -> set[str]:
        """Return the files below a directory by their names in it; nothing where there is no directory."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises: SnapshotError where it is missing or cannot be read."""
        ...

    def write(self, name: str, content: bytes) -> None: ...

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to this machine. Raises: SnapshotError where it is missing or cannot be read."""
        ...

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine there."""
        ...

    def put_directory(self, path: Path, name: str) -> None:
        """Copy a directory of files, without directories, of this machine there; it must not be there in part."""
        ...

    def remove(self, under: str) -> None:
        """Remove a directory and all below it; nothing where there is none."""
        ...


def is_url(location: str) -> bool:
    """Tell whether a location is a URL, such as s3://bucket/prefix, and not a path."""
    return "://" in location


def open_place(location: str) -> Place:
    """Return the place at a path or a URL. Raises: ResourceError without fsspec or the URL's own package."""
    return UrlPlace(location) if is_url(location) else DirectoryPlace(Path(location))


class DirectoryPlace:
    """A directory that every machine sees under the same path."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def location(self) -> str:
        return str(self.root)

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def names(self, under: str) -> set[str]:
        top = self.root / under
        files = (path for path in top.rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix() for path in files if not path.name.startswith(".")}

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as problem:
            raise SnapshotError(f"{self.root / name} cannot be read: {problem.strerror}") from None

    def write(self, name: str, content: bytes) -> None:
        with Arriving(self.root / name) as partial:
            partial.write_bytes(content)

    def fetch(self, name: str, path: Path) -> None:
        try:
            shutil.copyfile(self.root / name, path)
        except OSError as problem:
            raise SnapshotError(f"{self.root / name} cannot be read: {problem.strerror}") from None

    def put(self, path: Path, name: str) -> None:
        with Arriving(self.root / name) as partial:
            shutil.copyfile(path, partial)

    def put_directory(self, path: Path, name: str) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        try:
            shutil.copytree(path, partial)
            for file in partial.iterdir():
                sync_path(file)
            partial.rename(target)
            sync_path(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def remove(self, under: str) -> None:
        shutil.rmtree(self.root / under, ignore_errors=True)


class Arriving:
    """Gives the path of a partial file, which is renamed to the wanted one when the block ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            sync_path(self._partial)
            self._partial.rename(self._path)
            sync_path(self._path.parent)
        else:
            self._partial.unlink(missing_ok=True)


class UrlPlace:
    """What fsspec reads and writes: an object store, whose objects appear whole."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            import fsspec

            # Listings are never kept: other machines write here too.
            self._files: Any = fsspec.filesystem(self._url.partition("://")[0], use_listings_cache=False)
        except ImportError as problem:
            raise ResourceError(f"{url} needs a package that is not installed: {problem}") from None
        except ValueError as problem:
            raise UsageError(f"{url} cannot be used: {problem}") from None
        self._root = str(self._files._strip_protocol(self._url))

    @property
    def location(self) -> str:
        return self._url

    def exists(self, name: str) -> bool:
        with self._told(name):
            return bool(self._files.exists(self._path(name)))

    def names(self, under: str) -> set[str]:
        top = self._path(under)
        with self._told(under):
            try:
                found = self._files.find(top)
            except FileNotFoundError:
                return set()
        return {PurePosixPath(path).relative_to(top).as_posix() for path in found}

    def read(self, name: str) -> bytes:
        with self._told(name):
            return bytes(self._files.cat_file(self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        with self._told(name):
            self._files.pipe_file(self._path(name), content)

    def fetch(self, name: str, path: Path) -> None:
        with self._told(name):
            self._files.get_file(self._path(name), str(path))

    def put(self, path: Path, name: str) -> None:
        with self._told(name):
            self._files.put_file(str(path), self._path(name))

    def put_directory(self, path: Path, name: str) -> None:
        for file in sorted(path.iterdir()):
            self.put(file, f"{name}/{file.name}")

    def remove(self, under: str) -> None:
        with self._told(under):
            if self._files.exists(self._path(under)):
                self._files.rm(self._path(under), recursive=True)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn whatever a store's client raises into one line."""
        try:
            yield
        except Exception as problem:
            what = "is missing" if isinstance(problem, FileNotFoundError) else f"cannot be used: {problem}"
            raise SnapshotError(f"{self._url}/{name} {what}") from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def fetch_tree(place: Place, under: str, path: Path) -> None:
    """Copy a directory of a place to this machine, where `path` appears whole or not at all.

    It is left as it is where it is there. Raises: SnapshotError.
    """
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        for name in sorted(place.names(under)):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            place.fetch(f"{under}/{name}", partial / name)
        if not partial.is_dir():
            raise SnapshotError(f"{place.location}/{under} holds no files; can this machine see it?")
        try:
            partial.rename(path)
        except OSError:
            # Another process of this machine was faster.
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
