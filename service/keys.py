"""API keys: made here, stored as scrypt hashes with what they may do, checked in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

KEY = re.compile(r"drdecr_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_HASH = re.compile(
    r"([0-9a-f]{8}):scrypt:(\d{1,8}):(\d{1,3}):(\d{1,3}):([0-9a-f]{32}):([0-9a-f]{64})"
    r"(?::(read|write|admin)(?::(\d{1,6}))?)?"
)
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1
_MAX_MEMORY_BYTES = 256 * 2**20


Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may do all that those before it may."""


@dataclass(frozen=True, slots=True)
class KeyHash:
    """A key as it is stored: its public id, the scrypt hash of the whole key, and what it may do.

    `rate` is the requests a second that it may send; 0 leaves that to the service's own limit.
    """

    id: str
    cost: int
    block: int
    parallel: int
    salt: bytes
    digest: bytes
    scope: Scope = "read"
    rate: int = 0

    @classmethod
    def parse(cls, text: str) -> KeyHash:
        """Read `id:scrypt:cost:block:parallel:salt:digest[:scope[:rate]]`; no scope is read. Raises: ValueError."""
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("not a key hash; `drdecr keys create` writes one into its file, and prints the key")
        identity, cost, block, parallel, salt, digest, scope, rate = match.groups()
        parsed = cls(
            identity,
            int(cost),
            int(block),
            int(parallel),
            bytes.fromhex(salt),
            bytes.fromhex(digest),
            SCOPES[SCOPES.index(scope or "read")],
            int(rate or 0),
        )
        if 128 * parsed.cost * parsed.block > _MAX_MEMORY_BYTES:
            raise ValueError("the key hash asks for too much memory; make another key with `drdecr keys create`")
        if (parsed.cost, parsed.block, parsed.parallel) != (_COST, _BLOCK, _PARALLEL):
            parsed.matches("")
        return parsed

    def __str__(self) -> str:
        hashed = (self.id, "scrypt", self.cost, self.block, self.parallel, self.salt.hex(), self.digest.hex())
        parts = (*hashed, self.scope, self.rate) if self.rate else (*hashed, self.scope)
        return ":".join(map(str, parts))

    def matches(self, key: str) -> bool:
        """Compare in constant time. Takes tens of milliseconds, on purpose."""
        return hmac.compare_digest(_scrypt(key, self.salt, self.cost, self.block, self.parallel), self.digest)


def new_key(scope: Scope = "read", rate: int = 0) -> tuple[str, KeyHash]:
    """Make a random key (256 bits) and the hash to store."""
    identity, salt = secrets.token_hex(4), secrets.token_bytes(16)
    key = f"drdecr_{identity}_{secrets.token_urlsafe(32)}"
    digest = _scrypt(key, salt, _COST, _BLOCK, _PARALLEL)
    return key, KeyHash(identity, _COST, _BLOCK, _PARALLEL, salt, digest, scope, rate)


def _scrypt(key: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        key.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=2 * _MAX_MEMORY_BYTES, dklen=32
    )
