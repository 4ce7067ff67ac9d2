"""API keys: made here, stored as scrypt hashes, checked in constant time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

_KEY = re.compile(r"drdecr_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_HASH = re.compile(r"([0-9a-f]{8}):scrypt:(\d{1,8}):(\d{1,3}):(\d{1,3}):([0-9a-f]{32}):([0-9a-f]{64})")
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1
_MAX_MEMORY_BYTES = 256 * 2**20
_MAX_WAITING = 8
_MAX_REFUSED = 1_024


@dataclass(frozen=True, slots=True)
class KeyHash:
    """A key as it is stored: its public id and the scrypt hash of the whole key."""

    id: str
    cost: int
    block: int
    parallel: int
    salt: bytes
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> KeyHash:
        """Read `id:scrypt:cost:block:parallel:salt:digest`. Raises: ValueError."""
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("not a key hash; `drdecr serve --new-key` prints one")
        identity, cost, block, parallel, salt, digest = match.groups()
        parsed = cls(identity, int(cost), int(block), int(parallel), bytes.fromhex(salt), bytes.fromhex(digest))
        if 128 * parsed.cost * parsed.block > _MAX_MEMORY_BYTES:
            raise ValueError("the key hash asks for too much memory; make another with `drdecr serve --new-key`")
        parsed.matches("")
        return parsed

    def __str__(self) -> str:
        parts = (self.id, "scrypt", self.cost, self.block, self.parallel, self.salt.hex(), self.digest.hex())
        return ":".join(map(str, parts))

    def matches(self, key: str) -> bool:
        """Compare in constant time. Takes tens of milliseconds, on purpose."""
        return hmac.compare_digest(_scrypt(key, self.salt, self.cost, self.block, self.parallel), self.digest)


def new_key() -> tuple[str, KeyHash]:
    """Make a random key (256 bits) and the hash to store."""
    identity, salt = secrets.token_hex(4), secrets.token_bytes(16)
    key = f"drdecr_{identity}_{secrets.token_urlsafe(32)}"
    digest = _scrypt(key, salt, _COST, _BLOCK, _PARALLEL)
    return key, KeyHash(identity, _COST, _BLOCK, _PARALLEL, salt, digest)


class TooManyAttemptsError(Exception):
    """More unknown keys wait for their check than one thread should be asked to try."""


class KeyRing:
    """Tells whose key a request bears.

    scrypt runs once for each key: afterwards its keyed digest is remembered, by a secret of this process.
    """

    def __init__(self, hashes: Iterable[KeyHash]) -> None:
        self._hashes = {stored.id: stored for stored in hashes}
        self._pepper = secrets.token_bytes(32)
        self._accepted: dict[bytes, str] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._hashes)

    async def identify(self, key: str) -> str | None:
        """Return the id of a valid key, else None. Raises: TooManyAttemptsError."""
        match = _KEY.fullmatch(key)
        stored = self._hashes.get(match.group(1)) if match else None
        if stored is None:
            return None
        mark = hashlib.blake2b(key.encode(), key=self._pepper).digest()
        if (identity := self._accepted.get(mark)) is not None:
            return identity
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
        if valid:
            self._accepted[mark] = stored.id
            return stored.id
        self._refused[mark] = None
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)
        return None


def _scrypt(key: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        key.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=2 * _MAX_MEMORY_BYTES, dklen=32
    )
