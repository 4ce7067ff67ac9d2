"""The work of a cluster's build in pieces for one process each: encode a chunk, train the quantiser, write a segment.

Each is done once or again with the same result: what it writes appears whole, and is left where it is there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import MANIFEST_FILE, ONNX_FOLDER
from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import Windowed, encode_windows, join
from drdecr.errors import ModelMismatchError
from drdecr.index.copies import cache_directory
from drdecr.index.manifest import QuantizerRecord, StudentRecord
from drdecr.index.place import DirectoryPlace, Place, fetch_tree, open_place
from drdecr.index.quantizer import QUANTIZER as QUANTIZER_FILE
from indexer.centroids import token_lists
from indexer.cluster.chunks import ChunkSource, draw_sample, read_chunk
from indexer.cluster.plan import (
    BUILDING,
    QUANTIZER,
    STUDENT,
    FinishedSegment,
    Plan,
    encoded_chunks,
    finished_segments,
    require_plan,
    segment_name,
    vectors_name,
    write_quantizer,
    write_segment_record,
)
from indexer.encoded_file import save_encoded
from indexer.pooling import reduce_passages
from indexer.progress import SILENT
from indexer.quantizer_training import train_on_sample
from indexer.segments import hash_files, write_segment
from indexer.sources import CHUNK_CHARACTERS, chunks_of


class ChunkEncoder:
    """Encodes chunks with a student that is loaded once."""

    def __init__(self, location: str, *, gpu: bool) -> None:
        self._place = open_place(location)
        self._plan = require_plan(self._place)
        self._encoder = _load_student(self._place, self._plan, gpu=gpu)

    def encode(self, chunk: int) -> int:
        """Write the vectors of a chunk; return its passages."""
        texts = [passage.content for passage in read_chunk(self._place, chunk)]
        parts = chunks_of(list(map(len, texts)), CHUNK_CHARACTERS)
        wanted = self._plan.wanted.reduction
        passages: Windowed = join(
            [reduce_passages(encode_windows(self._encoder, texts[low:high]), wanted) for low, high in parts]
        )
        with _scratch(self._place) as directory:
            save_encoded(directory / "vectors.npz", passages)
            name = vectors_name(chunk, len(passages.windows.vectors))
            self._place.put(directory / "vectors.npz", name)
        return len(texts)


def train(location: str) -> QuantizerRecord:
    """Train centroids and codec on a sample of what is encoded, and put them in their place.

    There are as many lists as a collection of one segment's size would have: a search probes segment by segment.
    """
    place = open_place(location)
    plan = require_plan(place)
    found = encoded_chunks(place)
    tokens = [found[chunk] for chunk in range(plan.chunks)]
    lists = token_lists(sum(tokens) // plan.segments)
    sample = draw_sample(place, plan.spec, plan.wanted.reduction, tokens, lists)
    with _scratch(place) as directory:
        record = train_on_sample(directory, QUANTIZER, sample, lists, plan.wanted.bits)
        files = hash_files(directory / QUANTIZER, SILENT)
        place.put(directory / QUANTIZER / QUANTIZER_FILE, f"{QUANTIZER}/{QUANTIZER_FILE}")
    record = record.model_copy(update={"files": files, "tokens": sum(tokens)})
    write_quantizer(place, record)
    return record


def build_segment(location: str, quantizer: QuantizerRecord, segment: int) -> int:
    """Write a segment from its chunks' vectors and put it in its place; return its passages."""
    place = open_place(location)
    plan = require_plan(place)
    found = encoded_chunks(place)
    tokens = {chunk: found[chunk] for chunk in plan.chunks_of(segment)}
    source = ChunkSource(place, plan.spec, plan.wanted.reduction, tokens)
    name = segment_name(segment)
    with _scratch(place) as root:
        (root / name).mkdir(parents=True)
        (root / QUANTIZER).mkdir(parents=True)
        place.fetch(f"{QUANTIZER}/{QUANTIZER_FILE}", root / QUANTIZER / QUANTIZER_FILE)
        written = write_segment(root, name, source, lambda _: quantizer, SILENT)
        # What an attempt left that was killed before it told of the segment; one that is told of stays.
        if segment not in finished_segments(place):
            place.remove(name)
            place.put_directory(root / name, name)
            finished = FinishedSegment(
                record=written.record, without_tokens=written.without_tokens, truncated=written.truncated
            )
            write_segment_record(place, segment, finished)
    return written.record.passages


def _load_student(place: Place, plan: Plan, *, gpu: bool) -> Encoder:
    if isinstance(place, DirectoryPlace):
        student = place.root / STUDENT
    else:
        student = cache_directory() / f"student-{_student_key(place, plan.spec.fingerprint)}"
        fetch_tree(place, STUDENT, student)
    # On a GPU torch encodes passages, many times as fast as ONNX Runtime on a processor.
    backend = "torch" if gpu and (student / "modules.json").is_file() else "auto"
    encoder = load_encoder(student, threads=1, backend=backend)  # type: ignore[arg-type]
    # A snapshot keeps less of a student than its settings say: what is kept must agree.
    if StudentRecord.of(encoder.spec) != plan.wanted.student:
        raise ModelMismatchError(
            f"the student in {place.location}/{STUDENT} is {encoder.spec.fingerprint}, the build began with "
            f"{plan.spec.fingerprint}; begin anew by --restart"
        )
    return encoder


def _student_key(place: Place, fingerprint: str) -> str:
    """Return what tells a node's copy of a student from others.

    The fingerprint leaves `onnx/` out, whose own record vouches for its files; either may travel alone.
    """
    total = hashlib.sha256(fingerprint.encode())
    names = sorted(place.names(STUDENT))
    total.update("\0".join(names).encode())
    if (record := f"{ONNX_FOLDER}/{MANIFEST_FILE}") in names:
        total.update(place.read(f"{STUDENT}/{record}"))
    return total.hexdigest()[:16]


@contextmanager
def _scratch(place: Place) -> Iterator[Path]:
    """Give a directory of this machine, on the place's own file system where that is a directory."""
    base = place.root / BUILDING / ".scratch" if isinstance(place, DirectoryPlace) else None
    if base is not None:
        base.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="drdecr-", dir=base))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
