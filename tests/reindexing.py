"""What tests of builds share: passages, and their upload."""

from __future__ import annotations

import json
from collections.abc import Mapping

from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import UploadWriter, parse_put

TEXTS = {f"p{i}": f"word{i} word{i + 1} all things" for i in range(40)}


def stage(directory: DataDirectory, texts: Mapping[str, str], **metadata: object) -> None:
    with UploadWriter(directory, "docs", parse_put) as writer:
        for each, text in texts.items():
            writer.feed(json.dumps({"id": each, "text": text, "metadata": metadata}).encode() + b"\n")
        writer.finish()
