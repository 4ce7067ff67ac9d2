"""A student's `onnx/` folder: its graph with an int8 twin, which serves only where it ranks as well."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from drdecr.encoder.settings import (
    MANIFEST_FILE,
    ONNX_FOLDER,
    TOKENIZER_FILE,
    OnnxManifest,
    Precision,
    sha256_of,
)
from drdecr.encoder.torch_runtime import TorchEncoder, fast_tokenizer
from training.onnx_graph import FILES, export_graph, quantize
from training.onnx_quality import measure, measure_exact, ranks_as_well
from training.ranking_quality import JudgedTexts


def export_onnx(
    student: str | Path,
    *,
    int8: bool = True,
    judged: JudgedTexts | None = None,
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> OnnxManifest:
    """Write a student's `onnx/` folder, replacing an older one as a whole, and return its manifest.

    The int8 file serves if its nDCG@10 over the judged texts is at most 0.005 below that of fp32; without judged
    texts fp32 serves. Both figures are stored in the manifest.

    `trust_remote_code` runs model code that the student brings; serving its `onnx/` folder runs none.

    Raises: ModelError for a student that cannot be loaded or exported, or whose graph gives other vectors.
    """
    path = Path(student)
    reference = TorchEncoder.load(path, threads=threads, device="cpu", trust_remote_code=trust_remote_code)
    folder = Path(tempfile.mkdtemp(prefix=".onnx-", dir=path))
    try:
        manifest = _write(folder, reference, int8=int8, judged=judged, threads=threads)
        folder.chmod(0o755)
        replace_folder(folder, path / ONNX_FOLDER)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _write(
    folder: Path, reference: TorchEncoder, *, int8: bool, judged: JudgedTexts | None, threads: int | None
) -> OnnxManifest:
    graph, tokenizer_file = folder / FILES["fp32"], folder / TOKENIZER_FILE
    export_graph(reference, graph)
    fast_tokenizer(reference.model).save(str(tokenizer_file), pretty=False)
    manifest = OnnxManifest(
        **reference.settings.model_dump(),
        fingerprint=reference.spec.fingerprint,
        files={"fp32": graph.name},
        serves="fp32",
        sha256={file.name: sha256_of(file) for file in (graph, tokenizer_file)},
    )
    exact = measure_exact(folder, manifest, reference, judged, threads)
    manifest = manifest.model_copy(update={"quality": {"fp32": exact}})
    if int8:
        # The faster way first; the other where its ranking fails.
        for narrowing_exact in (False, True):
            quantize(folder / FILES["fp32"], folder / FILES["int8"], narrowing_exact=narrowing_exact)
            manifest = _with_file(manifest, folder, "int8")
            quantized = measure(folder, manifest, "int8", reference, judged, threads)
            passes = ranks_as_well(exact, quantized)
            if passes or judged is None:
                break
        quality = {**manifest.quality, "int8": quantized}
        manifest = manifest.model_copy(update={"quality": quality, "serves": "int8" if passes else "fp32"})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _with_file(manifest: OnnxManifest, folder: Path, precision: Precision) -> OnnxManifest:
    name = FILES[precision]
    files = {**manifest.files, precision: name}
    return manifest.model_copy(update={"files": files, "sha256": {**manifest.sha256, name: sha256_of(folder / name)}})


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder where an older one may lie, which goes away whole. Both lie in one file system."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=".onnx-old-", dir=target.parent))
        target.rename(old / ONNX_FOLDER)
        new.rename(target)
        shutil.rmtree(old)
    else:
        new.rename(target)
