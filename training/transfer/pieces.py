"""Room for what each piece of an embedded student means: the transfer alone gives it a mix of English pieces."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from drdecr.encoder.context_stream import TransferredEmbedding
from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.errors import UsageError
from training.fit import save_student
from training.transfer.projection import principal_components


@torch.no_grad()
def grow_pieces(encoder: TwoStreamEncoder, width: int) -> None:
    """Give each piece a vector of `width` dimensions, zero until it is trained.

    They are mapped to the principal directions of the English table about its mean.
    """
    before = encoder.context.embedding
    rows, columns = before.english.shape
    grown = TransferredEmbedding(len(before.weights), rows, columns, before.weights.shape[1], width)
    grown.load_state_dict(before.state_dict(), strict=False)
    directions = principal_components(before.english - before.english.mean(0), width)
    grown.own_map.weight.copy_(directions.T)
    encoder.context.embedding = grown
    encoder.own_width = width


def lacks_pieces(student: Path, width: int) -> bool:
    """Tell whether a student directory is an embedded student that has no such vectors and should get some.

    Raises: UsageError where it has them in another width.
    """
    if not width or not (student / "modules.json").is_file():
        return False
    first = json.loads((student / "modules.json").read_text(encoding="utf-8"))[0]
    if not str(first["type"]).endswith(f".{TwoStreamEncoder.__name__}"):
        return False
    config = student / str(first["path"]) / TwoStreamEncoder.config_file_name
    has = int(json.loads(config.read_text(encoding="utf-8")).get("own_width", 0))
    if has not in (0, width):
        raise UsageError(f"piece_width: the pieces of {student} have {has} dimensions of their own, not {width}")
    return not has


def grow_student(student: Path, out: Path, width: int) -> Path:
    """Write a student with vectors for its pieces into `out`; until it is trained its vectors are the same."""
    model = load_model(student, device="cpu")
    grow_pieces(model[0], width)
    save_student(model, student, out)
    return out
