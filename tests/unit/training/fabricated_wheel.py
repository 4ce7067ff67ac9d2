"""A tiny Home Assistant wheel, and a pip that "downloads" it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from training.data.groups import is_held_out
from training.data.homeassistant_task import HELD_OUT_SHARE
from training.wheels import PinnedWheel

Texts = Mapping[str, object]


def write_wheel(path: Path, components: Mapping[str, Mapping[str, Texts]]) -> PinnedWheel:
    """Write component -> language -> texts as a wheel, and return the release that pins it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("homeassistant/const.py", "VERSION = 1\n")
        for name, languages in components.items():
            for lang, texts in languages.items():
                member = f"homeassistant/components/{name}/translations/{lang}.json"
                archive.writestr(member, json.dumps(texts))
    return pinned(hashlib.sha256(path.read_bytes()).hexdigest())


def pinned(sha256: str) -> PinnedWheel:
    return PinnedWheel("homeassistant", "1.0", "homeassistant-1.0-py3-none-any.whl", sha256, "3.14.2")


def service(label: str, description: str) -> Texts:
    return {"services": {"act": {"name": label, "description": description}}}


def held_out_names() -> Iterator[str]:
    return (name for number in count() if is_held_out(name := f"part{number}", HELD_OUT_SHARE))


def learnable_names() -> Iterator[str]:
    return (name for number in count() if not is_held_out(name := f"part{number}", HELD_OUT_SHARE))
