"""One way to open a student, whatever runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from drdecr.encoder.settings import MANIFEST_FILE, ONNX_FOLDER, fingerprint_student, read_manifest
from drdecr.encoder.types import Encoder
from drdecr.errors import ModelError

Backend = Literal["auto", "onnx", "torch"]


def load_encoder(path: str | Path, *, threads: int | None = None, backend: Backend = "auto") -> Encoder:
    """Open a student: by ONNX Runtime where it has an `onnx/` folder, else by torch.

    `threads` is how many run one batch; all processors by default. Torch takes a GPU where there is one that computes
    in bf16, and computes in it there.

    Raises: ModelError for a directory that is missing, no student, incomplete, or changed since its export, and
    where torch is needed but not installed.
    """
    student = Path(path)
    if not student.is_dir():
        raise ModelError(f"{student}: no such directory; expected a student")
    exported = (student / ONNX_FOLDER / MANIFEST_FILE).is_file()
    has_weights = (student / "modules.json").is_file()
    if backend == "onnx" or (backend == "auto" and exported):
        if not exported:
            raise ModelError(f"{student}: has no {ONNX_FOLDER}/{MANIFEST_FILE}; run `drdecr export {student} --onnx`")
        # The onnx/ folder may travel alone; beside other weights than those it came from, it is stale.
        if has_weights and fingerprint_student(student) != read_manifest(student).fingerprint:
            raise ModelError(
                f"{student}: changed since its {ONNX_FOLDER}/ was written; run `drdecr export {student} --onnx` again"
            )
        from drdecr.encoder.onnx_runtime import OnnxEncoder

        return OnnxEncoder.load(student, threads=threads)
    if not exported and not has_weights and not (student / "config.json").is_file():
        raise ModelError(f"{student}: no student; it has neither {ONNX_FOLDER}/{MANIFEST_FILE} nor modules.json")
    from drdecr.encoder.torch_runtime import TorchEncoder, fastest_precision

    return TorchEncoder.load(student, threads=threads, precision=fastest_precision())
