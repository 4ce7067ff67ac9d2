"""Write a student as a directory small enough for a repository: one graph that serves, and the way back to torch.

compact/
├── onnx/     encoder.json, model.int8.onnx, tokenizer.json: all that serving reads
└── torch/    the student's small files, weights.json (which initializer holds which weight), and the weights that no
              initializer holds; `unpack` makes a student of both
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
from tokenizers import Tokenizer

from drdecr.encoder.settings import (
    MANIFEST_FILE,
    ONNX_FOLDER,
    TOKENIZER_FILE,
    OnnxManifest,
    StudentSettings,
    sha256_of,
)
from drdecr.encoder.torch_runtime import TorchEncoder, fast_tokenizer
from drdecr.errors import ModelError, UsageError
from drdecr.index.faiss_install import load_faiss
from training.compact.graph import initializers_of, rename, shrink_matrices, shrink_tables
from training.compact.weights import TORCH_FOLDER, keep_small_files, match_weights, write_weights
from training.export import replace_folder
from training.onnx_graph import FILES, export_graph, quantize
from training.onnx_quality import LARGEST_NDCG_LOSS, measure, measure_exact, ranks_as_well
from training.ranking_quality import JudgedTexts

# Digits of a piece's score: log probabilities, where the vocabulary's own steps are 0.0001.
_DIGITS = 4
_MULTIPLIED = ("MatMul", "Gemm")


def export_compact(
    student: str | Path,
    out: str | Path,
    judged: JudgedTexts,
    *,
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> OnnxManifest:
    """Write a student's compact form into `out`, replacing an older one there, and return its manifest.

    What else lies in `out`, such as its card, stays. Its fingerprint is its own: its vectors are not the student's.

    Raises: ModelError for a student that cannot be exported, or that ranks more than 0.005 of nDCG@10 below fp32
    over the judged texts; UsageError where `out` holds a student of another form; ResourceError without FAISS.
    """
    # What is missing at the end of minutes of work is better missed at their start.
    load_faiss()
    source, place = Path(student), Path(out)
    if (place / "modules.json").exists() or (place.exists() and not place.is_dir()):
        raise UsageError(f"{place}: is no place for a compact student; name a directory of its own")
    reference = TorchEncoder.load(source, threads=threads, device="cpu", trust_remote_code=trust_remote_code)
    place.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".compact-", dir=place))
    try:
        manifest = _write(work, source, reference, judged, threads)
        for folder in (ONNX_FOLDER, TORCH_FOLDER):
            replace_folder(work / folder, place / folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not any(place.iterdir()):
            place.rmdir()
    return manifest


def _write(
    work: Path, source: Path, reference: TorchEncoder, judged: JudgedTexts, threads: int | None
) -> OnnxManifest:
    folder, exact_folder = work / ONNX_FOLDER, work / "exact"
    folder.mkdir()
    exact_folder.mkdir()
    exact_file, graph = exact_folder / FILES["fp32"], folder / FILES["int8"]
    export_graph(reference, exact_file)
    _write_tokenizer(fast_tokenizer(reference.model), folder / TOKENIZER_FILE, judged)
    shutil.copyfile(folder / TOKENIZER_FILE, exact_folder / TOKENIZER_FILE)
    exact_manifest = OnnxManifest(
        **reference.settings.model_dump(),
        fingerprint=reference.spec.fingerprint,
        files={"fp32": exact_file.name},
        serves="fp32",
        sha256={file.name: sha256_of(file) for file in (exact_file, folder / TOKENIZER_FILE)},
    )
    exact = measure_exact(exact_folder, exact_manifest, reference, judged, threads)

    model = onnx.load(exact_file)
    weights, names = match_weights(source, initializers_of(model))
    rename(model, names)
    onnx.save(model, exact_file)
    keep_small_files(source, work / TORCH_FOLDER)
    write_weights(weights, work / TORCH_FOLDER)

    # The faster way first; the other where its ranking fails.
    for narrowing_exact in (False, True):
        quantize(exact_file, graph, narrowing_exact=narrowing_exact, operators=_MULTIPLIED)
        model = onnx.load(graph)
        shrink_tables(model)
        shrink_matrices(model)
        _strip(model)
        onnx.save(model, graph)
        manifest = _manifest(reference.settings, (graph, folder / TOKENIZER_FILE))
        shrunk = measure(folder, manifest, "int8", reference, judged, threads)
        if ranks_as_well(exact, shrunk):
            break
    else:
        raise ModelError(
            f"{reference.spec.name}: its compact form has an nDCG@10 of {shrunk.ndcg_at_10:.4f} and fp32 "
            f"{exact.ndcg_at_10:.4f}, more than {LARGEST_NDCG_LOSS} apart over {shrunk.queries} queries; not written"
        )
    manifest = manifest.model_copy(update={"quality": {"fp32": exact, "int8": shrunk}})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    folder.chmod(0o755)
    return manifest


def _manifest(settings: StudentSettings, files: Iterable[Path]) -> OnnxManifest:
    graph, tokenizer = files
    sums = {file.name: sha256_of(file) for file in (graph, tokenizer)}
    fingerprint = hashlib.sha256(json.dumps([settings.model_dump(mode="json"), sums], sort_keys=True).encode())
    return OnnxManifest(
        **settings.model_dump(),
        fingerprint=fingerprint.hexdigest(),
        files={"int8": graph.name},
        serves="int8",
        sha256=sums,
    )


def _strip(model: onnx.ModelProto) -> None:
    """Remove what only a reader of the graph would miss: where the exporter found each node."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]


def _write_tokenizer(tokenizer: Tokenizer, file: Path, judged: JudgedTexts) -> None:
    """Write a tokenizer with its pieces' scores rounded, unless a judged text then falls into other pieces."""
    content = json.loads(tokenizer.to_str())
    if content["model"]["type"] == "Unigram":
        content["model"]["vocab"] = [[piece, round(score, _DIGITS)] for piece, score in content["model"]["vocab"]]
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        texts = [query.text for query in judged.queries] + [passage.content for passage in judged.passages]
        rounded = Tokenizer.from_str(text)
        if all(
            mine.ids == its.ids
            for mine, its in zip(rounded.encode_batch(texts), tokenizer.encode_batch(texts), strict=True)
        ):
            file.write_text(text, encoding="utf-8")
            return
    tokenizer.save(str(file), pretty=False)
