"""What a cluster builds, and where its parts lie: what its machines, and a resumed build, must know.

Beside what becomes the snapshot, its place holds `building/` until the manifest is written:

- `plan.json`: the plan, written when all passages are cut into chunks;
- `student/`: the student, so that no machine must have it;
- `passages/<chunk>.jsonl.gz`: the passages of a chunk;
- `vectors/<chunk>-<tokens>.npz`: the same passages, encoded;
- `segments/<segment>.json`: what is known of a finished segment.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drdecr.encoder.types import EncoderSpec
from drdecr.errors import SnapshotError, UsageError
from drdecr.index.manifest import QuantizerRecord, SegmentRecord, StudentRecord, record_file
from drdecr.index.place import Place
from drdecr.index.reduction import Reduction

BUILDING = "building"
STUDENT = f"{BUILDING}/student"
QUANTIZER = "quantizers/000001"
_PLAN = f"{BUILDING}/plan.json"
_QUANTIZER_RECORD = f"{BUILDING}/quantizer.json"
_PASSAGES, _VECTORS, _RECORDS = f"{BUILDING}/passages", f"{BUILDING}/vectors", f"{BUILDING}/segments"
_PASSAGES_A_SEGMENT = 250_000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wanted(_Record):
    """What decides the bytes of the snapshot: two builds that want the same may share their work."""

    passages_sha256: str
    student: StudentRecord
    bits: int
    dims: int | None = None
    pool: float = 1.0
    segments: int | None = Field(ge=1, description="None: one for each 250,000 passages.")
    chunk_passages: int = Field(ge=1)
    skip_bad_lines: bool

    @property
    def reduction(self) -> Reduction:
        return Reduction(dims=self.dims, pool=self.pool)


class Plan(_Record):
    """A build: what is wanted, and what cutting the passages into chunks found."""

    wanted: Wanted
    passages: int
    chunks: int
    skipped_lines: int
    skipped_messages: list[str]

    @property
    def spec(self) -> EncoderSpec:
        return self.wanted.student.spec

    @property
    def segments(self) -> int:
        """How many segments there will be: as wanted, but none without a chunk; at least one."""
        wanted = self.wanted.segments or -(-self.passages // _PASSAGES_A_SEGMENT)
        return max(1, min(wanted, self.chunks))

    def chunks_of(self, segment: int) -> range:
        """Return the chunks of a segment, which follow each other."""
        return range(segment * self.chunks // self.segments, (segment + 1) * self.chunks // self.segments)


class FinishedSegment(_Record):
    """A segment in its place; see `indexer.segments.WrittenSegment`."""

    record: SegmentRecord
    without_tokens: int
    truncated: int


def wish(
    path: Path,
    spec: EncoderSpec,
    bits: int,
    reduction: Reduction,
    segments: int | None,
    chunk_passages: int,
    skip_bad_lines: bool,
) -> Wanted:
    """Describe a build of the passages in a file; reads all of it."""
    return Wanted(
        passages_sha256=record_file(path).sha256,
        student=StudentRecord.of(spec),
        bits=bits,
        dims=reduction.dims,
        pool=reduction.pool,
        segments=segments,
        chunk_passages=chunk_passages,
        skip_bad_lines=skip_bad_lines,
    )


def read_plan(place: Place) -> Plan | None:
    """Return the plan of an unfinished build, None where none was begun. Raises: UsageError for another version's."""
    if not place.exists(_PLAN):
        return None
    try:
        return Plan.model_validate_json(place.read(_PLAN))
    except ValidationError:
        raise UsageError(
            f"{place.location} holds an unfinished build of another version of this program; begin anew by --restart"
        ) from None


def require_plan(place: Place) -> Plan:
    """Return the plan that this machine must find. Raises: SnapshotError that says what is missing."""
    plan = read_plan(place)
    if plan is None:
        raise SnapshotError(
            f"a machine of the cluster does not see {place.location}; give --out on a file system that all share, "
            "or as a URL"
        )
    return plan


def write_plan(place: Place, plan: Plan) -> None:
    place.write(_PLAN, plan.model_dump_json().encode())


def passages_name(chunk: int) -> str:
    """Return the file of a chunk's passages."""
    return f"{_PASSAGES}/{chunk:06d}.jsonl.gz"


def vectors_name(chunk: int, tokens: int) -> str:
    """Return the file of a chunk's vectors."""
    return f"{_VECTORS}/{chunk:06d}-{tokens}.npz"


def segment_name(segment: int) -> str:
    """Return the directory of a segment in the snapshot."""
    return f"segments/{segment + 1:06d}"


def encoded_chunks(place: Place) -> dict[int, int]:
    """Return how many tokens each encoded chunk has."""
    stems = (name.removesuffix(".npz").split("-") for name in place.names(_VECTORS) if name.endswith(".npz"))
    return {int(chunk): int(tokens) for chunk, tokens in stems}


def finished_segments(place: Place) -> set[int]:
    """Return the segments that are in their place."""
    return {int(name.removesuffix(".json")) for name in place.names(_RECORDS)}


def read_segment(place: Place, segment: int) -> FinishedSegment:
    return FinishedSegment.model_validate_json(place.read(f"{_RECORDS}/{segment:06d}.json"))


def write_segment_record(place: Place, segment: int, finished: FinishedSegment) -> None:
    place.write(f"{_RECORDS}/{segment:06d}.json", finished.model_dump_json().encode())


def read_quantizer(place: Place) -> QuantizerRecord | None:
    """Return the trained quantiser, None before it is trained."""
    if not place.exists(_QUANTIZER_RECORD):
        return None
    return QuantizerRecord.model_validate_json(place.read(_QUANTIZER_RECORD))


def write_quantizer(place: Place, record: QuantizerRecord) -> None:
    place.write(_QUANTIZER_RECORD, record.model_dump_json().encode())
