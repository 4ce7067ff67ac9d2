"""Bodies of newline-delimited JSON, drawn while they are sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from drdecr.corpus import open_bytes
from drdecr.errors import InputError

Json = Mapping[str, Any]
PathLike = str | os.PathLike[str]
_Item = TypeVar("_Item")
_CHUNK_BYTES = 2**16


class Lines:
    """A body of one JSON object a line, in memory for some 64 KiB of it at a time.

    `source` is a file of such lines, plain or gzip, or an iterable whose items `as_record` turns into objects.
    Raises, while it is sent: InputError for a file that cannot be read, and what the iterable raises.
    """

    def __init__(self, source: Iterable[_Item] | PathLike, as_record: Callable[[_Item], Json]) -> None:
        self._chunks: Callable[[], Iterator[bytes]]
        self._is_file = isinstance(source, str | os.PathLike)
        if isinstance(source, str | os.PathLike):
            self._chunks = partial(_read, Path(source))
        else:
            self._chunks = lambda: _written(map(as_record, source))
        self._once = isinstance(source, Iterator)
        self._begun = False
        self.ended = False
        """Whether all of it was handed over the last time."""

    @property
    def again(self) -> bool:
        """Whether it can be sent from its beginning: not when an iterator has given items away."""
        return not (self._once and self._begun)

    def sent(self) -> Iterator[bytes]:
        """Yield the body."""
        self._begun, self.ended = True, False
        yield from self._chunks()
        self.ended = True

    async def sent_async(self) -> AsyncIterator[bytes]:
        """Yield the body; a file is read beside the event loop, an iterable on it, where its maker runs."""
        chunks = self.sent()
        if not self._is_file:
            for chunk in chunks:
                yield chunk
        else:
            while chunk := await asyncio.to_thread(next, chunks, b""):
                yield chunk


def _read(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
            raise InputError(f"the gzip file is broken ({problem}); nothing of it was staged", path=path) from None


def _written(records: Iterable[Json]) -> Iterator[bytes]:
    held = bytearray()
    for record in records:
        # In ASCII, so that no text can break the encoding: the service names the line that it cannot take.
        held += json.dumps(record).encode("ascii") + b"\n"
        if len(held) >= _CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
