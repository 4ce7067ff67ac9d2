"""Which format a published checkpoint has, told by its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from drdecr.errors import ModelError

Format = Literal["sentence-transformers", "pylate", "colbert", "primeqa"]

_PICKLES = (".dnn", ".model")


def detect_format(source: Path) -> Format:
    """Tell the format of a checkpoint. `colbert` is colbert-ai's directory, which PLAID-X and jina-colbert share.

    Raises: ModelError for a path that is none of the known formats.
    """
    if source.is_file() and source.suffix in _PICKLES:
        return "primeqa"
    if not source.is_dir():
        raise ModelError(f"{source}: no checkpoint; expected a directory, or a file that ends in .dnn or .model")
    described = read_json(source / "config_sentence_transformers.json")
    if (source / "modules.json").is_file():
        modules = read_json(source / "modules.json")
        named = [str(module.get("type", "")) for module in modules] if isinstance(modules, list) else []
        if described.get("model_type") == "ColBERT" or any(name.startswith("pylate.") for name in named):
            return "pylate"
        return "sentence-transformers"
    config = read_json(source / "config.json")
    if "HF_ColBERT" in (config.get("architectures") or []) or (source / "artifact.metadata").is_file():
        return "colbert"
    raise ModelError(
        f"{source}: not a late-interaction checkpoint; it has no modules.json (sentence-transformers, PyLate), and "
        "its config.json does not name HF_ColBERT (colbert-ai, PLAID-X, jina-colbert)"
    )


def read_json(path: Path) -> Any:
    """Read a JSON file; an empty object where there is none. Raises: ModelError for a broken one."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError as problem:
        raise ModelError(f"{path}: is no JSON ({problem})") from None
