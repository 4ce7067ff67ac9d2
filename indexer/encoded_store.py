"""Vectors that a job has encoded so far, by the hash of their texts: a resumed job encodes none of them twice."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from drdecr.encoder.types import Encoded, Encoder
from drdecr.encoder.windows import Windowed, encode_windows
from drdecr.index.manifest import sync_path


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
            passages = encode_windows(self._encoder, texts, progress=advance)
            encoded = passages.windows
            partial = path.with_name(f".{uuid.uuid4().hex}.npz")
            np.savez(
                partial,
                vectors=encoded.vectors.astype(np.float16),
                offsets=encoded.offsets,
                sentences=np.empty(0, np.float32) if encoded.sentences is None else encoded.sentences,
                spans=encoded.spans,
                truncated=encoded.truncated,
                unknown=encoded.unknown,
                bounds=passages.bounds,
            )
            # A part that a power cut tore would fail every later attempt.
            sync_path(partial)
            partial.rename(path)
        with np.load(path, allow_pickle=False) as arrays:
            encoded = Encoded(
                vectors=arrays["vectors"].astype(np.float32),
                offsets=arrays["offsets"],
                sentences=arrays["sentences"] if self._encoder.spec.sentence_dim else None,
                spans=arrays["spans"],
                truncated=arrays["truncated"],
                unknown=arrays["unknown"],
            )
            return Windowed(encoded, arrays["bounds"])

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(f"windows of {self._encoder.spec.fingerprint}".encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode("utf-8")).digest())
        return digest.hexdigest()
