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
    working at once. scrypt runs once for each key, however many requests bring it at the same time: afterwards its
    keyed digest is remembered, by a secret of this process, as long as the stored hash stays.
    """

    def __init__(self, hashes: Iterable[KeyHash], file: KeyFile | None = None) -> None:
        self._given = {stored.id: stored for stored in hashes}
        self._file = file
        self._looked_at = 0.0
        self._warned: object = None
        self._hashes = self._given
        self._pepper = secrets.token_bytes(32)
        self._accepted: dict[bytes, KeyHash] = {}
        self._refused: OrderedDict[bytes, KeyHash] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._checks: dict[tuple[bytes, KeyHash], asyncio.Task[bool]] = {}
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
        if self._accepted.get(mark) == stored:
            return stored
        if self._refused.get(mark) == stored:
            return None
        # Shielded: a request that goes away takes the check from no other that waits for it.
        valid = await asyncio.shield(self._check(mark, stored, key))
        return stored if valid and self._hashes.get(stored.id) == stored else None

    def _check(self, mark: bytes, stored: KeyHash, key: str) -> asyncio.Task[bool]:
        """Return the check of this key that is under way, or begin it. Raises: TooManyAttemptsError."""
        check = self._checks.get((mark, stored))
        if check is None:
            if len(self._checks) >= _MAX_WAITING:
                raise TooManyAttemptsError
            check = self._checks[mark, stored] = asyncio.create_task(self._try(mark, stored, key))
            check.add_done_callback(lambda _: self._checks.pop((mark, stored)))
        return check

    async def _try(self, mark: bytes, stored: KeyHash, key: str) -> bool:
        async with self._one_at_a_time:
            valid = await asyncio.to_thread(stored.matches, key)
        if valid:
            self._accepted[mark] = stored
        else:
            self._refused[mark] = stored
            if len(self._refused) > _MAX_REFUSED:
                self._refused.popitem(last=False)
        return valid

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
            # Half-written, broken or not ours to read: what was known stays, and every look tries again.
            warning = (self._file.look(), str(error))
            if warning != self._warned:
                log.error("key file not read", error=str(error))
            self._warned = warning
            return
        self._warned = None
        known = set(self._hashes.values())
        self._accepted = {mark: stored for mark, stored in self._accepted.items() if stored in known}
        self._refused = OrderedDict((mark, stored) for mark, stored in self._refused.items() if stored in known)
