"""Vectors that a job has encoded so far, by the hash of their texts: a resumed job encodes none of them twice."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import Windowed, encode_windows
from drdecr.index.manifest import sync_path
from indexer.encoded_file import load_encoded, save_encoded


class EncodedStore:
    """Encodes passages through a directory of finished parts; token vectors are kept in half precision."""

    def __init__(self, encoder: Encoder, directory: Path) -> None:
        self._encoder = encoder
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def encode(self, texts: Sequence[str], advance: Callable[[int], None]) -> Windowed:
        """Encode passages, or read what an earlier attempt encoded of them."""
        path = self._directory / f"{self._key(texts)}.npz"
        if path.exists():
            advance(len(texts))
        else:
            partial = path.with_name(f".{uuid.uuid4().hex}.npz")
            save_encoded(partial, encode_windows(self._encoder, texts, progress=advance))
            # A part that a power cut tore would fail every later attempt.
            sync_path(partial)
            partial.rename(path)
        return load_encoded(path, self._encoder.spec)

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(f"windows of {self._encoder.spec.fingerprint}".encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode("utf-8")).digest())
        return digest.hexdigest()
