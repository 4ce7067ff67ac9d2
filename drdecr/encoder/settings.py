"""What a student directory says about itself: `drdecr.json`, `onnx/encoder.json` and the fingerprint.

`drdecr.json` holds what the weights do not: which tokens count, how long a text may be, how the sentence vector
weighs. `onnx/encoder.json` repeats it, so that the `onnx/` folder serves alone, and vouches for its files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from drdecr.encoder.length_prior import LengthPrior
from drdecr.encoder.types import EncoderSpec
from drdecr.errors import ModelError

SETTINGS_FILE = "drdecr.json"
ONNX_FOLDER = "onnx"
MANIFEST_FILE = "encoder.json"
TOKENIZER_FILE = "tokenizer.json"

Precision = Literal["fp32", "int8"]
TokenIds = tuple[NonNegativeInt, ...]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_NOT_FINGERPRINTED = ("README.md", ".gitattributes")
_File = TypeVar("_File", bound=BaseModel)


class Expansion(BaseModel):
    """Tokens that fill a short text up and get vectors too (ColBERT's query augmentation).

    `length` counts all tokens of the text, as the limits do; `at_most` bounds how many are added. Unless `attended`,
    they see the text and the text does not see them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_id: NonNegativeInt
    length: PositiveInt
    attended: bool = False
    at_most: PositiveInt | None = None


class StudentSettings(BaseModel):
    """The settings of a student, as `drdecr.json` stores them.

    Lengths count every token that the encoder reads, also the prefix and the tokens around the text. A prefix goes
    before the text and after the token that begins it. The prefix and the tokens around the text, its frame, are
    scored only by `score_frame`: ColBERT checkpoints were trained so. `never_scored` adds ids that count on neither
    side; the skip lists add ids that count on one side. With `query_weights` the student says how much each token of
    a query counts, and the vectors of a query have lengths of mean 1 instead of 1 each. A `length_prior`
    takes back from long passages what their length alone gives them. The sentence vector of a query of n tokens
    counts min(1, n / `sentence_ramp`) times: of a label of two words it says little. With `closeness` a passage is
    read sentence by sentence, and what one sentence says counts for more than the same words scattered (see
    `EncoderSpec`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    dim: PositiveInt
    sentence_dim: NonNegativeInt = 0
    sentence_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    sentence_ramp: PositiveInt = 1
    query_length: int = Field(default=64, ge=4)
    passage_length: int = Field(default=256, ge=4)
    query_prefix: TokenIds = ()
    passage_prefix: TokenIds = ()
    score_frame: bool = False
    query_expansion: Expansion | None = None
    passage_expansion: Expansion | None = None
    never_scored: TokenIds = ()
    query_skip: TokenIds = ()
    passage_skip: TokenIds = ()
    query_weights: bool = False
    length_prior: LengthPrior | None = None
    closeness: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    pad_id: NonNegativeInt
    unknown_id: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _lengths_hold_the_prefixes(self) -> Self:
        # A text needs room for one token of its own beside the prefix, the begin and the end.
        if len(self.query_prefix) + 3 > self.query_length or len(self.passage_prefix) + 3 > self.passage_length:
            raise ValueError("a length leaves no room for text beside its prefix")
        if self.length_prior is not None and (self.sentence_dim < 2 or not self.sentence_weight):
            raise ValueError("length_prior: lies in the sentence vectors, which need a width and a weight")
        return self

    def spec(self, fingerprint: str) -> EncoderSpec:
        """Return what a snapshot and a service need of these settings."""
        return EncoderSpec(
            name=self.name,
            fingerprint=fingerprint,
            dim=self.dim,
            sentence_dim=self.sentence_dim,
            sentence_weight=self.sentence_weight,
            query_length=self.query_length,
            passage_length=self.passage_length,
            closeness=self.closeness,
            length_prior=self.length_prior,
            sides_apart=(self.query_prefix, self.query_expansion, set(self.query_skip))
            != (self.passage_prefix, self.passage_expansion, set(self.passage_skip)),
        )


class Quality(BaseModel):
    """How an exported file compares: with torch by its vectors, with fp32 by its ranking.

    `largest_difference` is that of any component of any vector to torch's; `ndcg_at_10` is absent where the export
    had no judged queries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    largest_difference: float
    ndcg_at_10: float | None = None
    queries: NonNegativeInt = 0


class OnnxManifest(StudentSettings):
    """`onnx/encoder.json`: the settings, the files with their SHA-256, their quality, and which one serves."""

    fingerprint: Sha256
    files: dict[Precision, str]
    serves: Precision
    sha256: dict[str, Sha256]
    quality: dict[Precision, Quality] = {}

    @model_validator(mode="after")
    def _files_are_vouched_for(self) -> Self:
        names = [*self.files.values(), TOKENIZER_FILE]
        if self.serves not in self.files:
            raise ValueError(f"`serves` names {self.serves}, which is not among `files`")
        for name in names:
            if name not in self.sha256:
                raise ValueError(f"`sha256` lacks {name}")
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a plain file name")
        return self


def read_settings(student: str | Path) -> StudentSettings | None:
    """Read a student's `drdecr.json`; None where it has none. Raises: ModelError."""
    path = Path(student) / SETTINGS_FILE
    return _read(path, StudentSettings) if path.is_file() else None


def write_settings(student: str | Path, settings: StudentSettings) -> None:
    """Write `drdecr.json` into a student directory."""
    (Path(student) / SETTINGS_FILE).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(student: str | Path) -> OnnxManifest:
    """Read a student's `onnx/encoder.json`. Raises: ModelError."""
    return _read(Path(student) / ONNX_FOLDER / MANIFEST_FILE, OnnxManifest)


def fingerprint_student(student: str | Path) -> str:
    """Return the SHA-256 (hex) over the names and bytes of a student's files.

    Left out: `onnx/`, `README.md` and hidden files, which change without changing a vector.
    """
    root = Path(student)
    total = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if not path.is_file() or hidden or parts[0] == ONNX_FOLDER or parts[-1] in _NOT_FINGERPRINTED:
            continue
        total.update("/".join(parts).encode() + b"\0" + bytes.fromhex(sha256_of(path)))
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read ({problem.strerror})") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path}: {place}: {first['msg']}; export or save the student again") from None
