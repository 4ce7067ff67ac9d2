"""One checkpoint of any format becomes one student directory, whole or not at all."""

from __future__ import annotations

import shutil
import string
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from drdecr.encoder.checkpoints.colbert_directory import read_colbert_directory
from drdecr.encoder.checkpoints.expressing import Reading, difference, express
from drdecr.encoder.checkpoints.formats import Format, detect_format, read_json
from drdecr.encoder.checkpoints.primeqa import read_primeqa
from drdecr.encoder.settings import StudentSettings, fingerprint_student, read_settings, write_settings
from drdecr.encoder.text_tokens import punctuation_pieces
from drdecr.encoder.torch_runtime import TorchEncoder, derive_settings, fast_tokenizer, load_model
from drdecr.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

REPORT_FILE = "import.json"
_EQUAL = 1e-5


class ImportReport(BaseModel):
    """`import.json`: where a student came from and what was assumed.

    `sentence_transformers_difference` is the largest difference of any vector's component between
    sentence-transformers reading the student directory by itself and the student as it serves; None where it counts
    other tokens.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    format: Format
    compat: bool
    remote_code: bool
    assumed: list[str]
    settings: StudentSettings
    sentence_transformers_difference: float | None


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    base: str | None = None,
    compat: bool = False,
    skip_punctuation: bool = False,
    trust_remote_code: bool = False,
) -> ImportReport:
    """Write a published checkpoint as a student directory at `out`, which must not exist.

    `base` names the encoder of a `.dnn` or `.model` file; `compat` reproduces what a format's released code scores by
    mistake; `skip_punctuation` adds punctuation of every script to the passages' skip list; `trust_remote_code` runs
    model code that the checkpoint brings.

    Raises: UsageError for a taken `out`, ModelError for a checkpoint that cannot be read.
    """
    if out.exists():
        raise UsageError(f"{out} exists; choose another place or remove it")
    if not out.resolve().parent.is_dir():
        raise UsageError(f"{out.resolve().parent} is no directory; create it first")
    kind = detect_format(source)
    if base is not None and kind != "primeqa":
        raise UsageError(f"--base is for .dnn and .model files; {source} holds its own encoder")
    reading = _read(source, kind, base, compat=compat, trust_remote_code=trust_remote_code)
    settings = reading.settings.model_copy(update={"name": out.name})
    if skip_punctuation:
        skipped = {*settings.passage_skip, *punctuation_pieces(fast_tokenizer(reading.model))}
        settings = settings.model_copy(update={"passage_skip": tuple(sorted(skipped))})
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.resolve().parent))
    try:
        if kind in ("primeqa", "colbert"):
            express(reading.model, settings)
        reading.model.save_pretrained(str(partial), create_model_card=False)
        write_settings(partial, settings)
        again = load_model(partial, device="cpu", trust_remote_code=trust_remote_code)
        own = TorchEncoder(again, settings, fingerprint_student(partial))
        apart = difference(again, own)
        assumed = list(reading.assumed)
        if not apart <= _EQUAL:
            assumed.append("sentence-transformers alone reads this directory otherwise; only drdecr.json says it all")
        report = ImportReport(
            source=source.name,
            format=kind,
            compat=compat,
            remote_code=trust_remote_code and any(partial.rglob("*.py")),
            assumed=assumed,
            settings=settings,
            sentence_transformers_difference=None if apart == float("inf") else apart,
        )
        (partial / REPORT_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _read(source: Path, kind: Format, base: str | None, *, compat: bool, trust_remote_code: bool) -> Reading:
    if kind == "primeqa":
        return read_primeqa(source, base=base, compat=compat)
    if kind == "colbert":
        return read_colbert_directory(source, compat=compat, trust_remote_code=trust_remote_code)
    model = load_model(source, device="cpu", trust_remote_code=trust_remote_code)
    settings = read_settings(source) or derive_settings(model, source.name)
    assumed: list[str] = []
    if model.similarity_fn_name != "maxsim":
        assumed.append(f"similarity {model.similarity_fn_name} becomes MaxSim: the same ranking for any one query")
    if kind == "pylate" and compat:
        settings = _skipping_unknown(source, model, settings, assumed)
    return Reading(model, settings, assumed)


def _skipping_unknown(
    source: Path, model: MultiVectorEncoder, settings: StudentSettings, assumed: list[str]
) -> StudentSettings:
    """Skip unknown pieces of passages where PyLate does: a word that its skip list cannot resolve stands for them."""
    words = read_json(source / "config_sentence_transformers.json").get("skiplist_words", list(string.punctuation))
    unknown = settings.unknown_id
    if unknown is None or unknown not in model.tokenizer.convert_tokens_to_ids(list(words)):
        return settings
    assumed.append(
        "unknown pieces of passages are skipped: PyLate reads them for skip words it does not know (--compat)"
    )
    return settings.model_copy(update={"passage_skip": tuple(sorted({*settings.passage_skip, unknown}))})
