"""Whose key a request bears: checked in constant time, remembered, and forgotten when it is revoked."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable

import structlog

from drdecr.errors import UsageError
from service.key_file import KeyFile
from service.keys import KEY, KeyHash

_MAX_WAITING = 8
_MAX_REFUSED = 1_024
_LOOK_S = 1.0

log = structlog.get_logger("service.keys")


class TooManyAttemptsError(Exception):
    """More unknown keys wait for their check than one thread should be asked to try."""


class KeyRing:
    """Tells whose key a request bears.

    Keys come from `hashes` and from a key file, which is read again when it changes, so that a revoked key stops
    working at once. scrypt runs once for each key: afterwards its keyed digest is remembered, by a secret of this
    process.
    """

    def __init__(self, hashes: Iterable[KeyHash], file: KeyFile | None = None) -> None:
        self._given = {stored.id: stored for stored in hashes}
        self._file = file
        self._looked_at = 0.0
        self._hashes = self._given
        self._pepper = secrets.token_bytes(32)
        self._accepted: dict[bytes, str] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0
        if file is not None:
            self._hashes = self._given | file.read()

    @property
    def required(self) -> bool:
        """Tell whether requests must bear a key; with a key file they must, even where it is empty."""
        return self._file is not None or bool(self._hashes)

    async def identify(self, key: str) -> KeyHash | None:
        """Return what is stored of a valid key, else None. Raises: TooManyAttemptsError."""
        self._refresh()
        match = KEY.fullmatch(key)
        stored = self._hashes.get(match.group(1)) if match else None
        if stored is None:
            return None
        mark = hashlib.blake2b(key.encode(), key=self._pepper).digest()
        if mark in self._accepted:
            return stored
        if mark in self._refused:
            return None
        if self._waiting >= _MAX_WAITING:
            raise TooManyAttemptsError
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                valid = await asyncio.to_thread(stored.matches, key)
        finally:
            self._waiting -= 1
        if valid and self._hashes.get(stored.id) == stored:
            self._accepted[mark] = stored.id
            return stored
        self._refused[mark] = None
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)
        return None

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._file is None or now < self._looked_at + _LOOK_S:
            return
        self._looked_at = now
        if not self._file.changed:
            return
        try:
            self._hashes = self._given | self._file.read()
        except UsageError as error:
            # Half-written or broken: what was known stays until it can be read again.
            log.error("key file not read", error=str(error))
            return
        self._accepted.clear()
        self._refused.clear()
