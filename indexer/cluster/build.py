"""Builds a snapshot on a Ray cluster: Ray Data gives chunks to a pool of encoders, and segments to writers.

All data lie where the snapshot will; only numbers travel through Ray. A node that dies costs what it was at work on,
which others do again, and a build that was stopped goes on with what is finished.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drdecr import __version__, errors
from drdecr.corpus import SkippedLines
from drdecr.encoder.load import load_encoder
from drdecr.errors import DrDecrError, SnapshotError, UsageError
from drdecr.index.codec import BITS
from drdecr.index.manifest import MANIFEST, Manifest, format_of, render_manifest
from drdecr.index.place import DirectoryPlace, Place, is_url, open_place
from drdecr.index.reduction import reduction_of
from drdecr.ray_cluster import join_cluster, plain_errors
from indexer.build import BuildReport
from indexer.cluster.chunks import cut_passages
from indexer.cluster.plan import (
    BUILDING,
    STUDENT,
    FinishedSegment,
    Plan,
    Wanted,
    encoded_chunks,
    finished_segments,
    read_plan,
    read_quantizer,
    read_segment,
    wish,
    write_plan,
)
from indexer.cluster.work import ChunkEncoder, build_segment, train
from indexer.progress import SILENT, Progress
from indexer.segments import pooled_residual
from indexer.staging import check_target, named_trouble, publish_directory, replacing

CHUNK_PASSAGES = 1024


@dataclass(frozen=True, slots=True)
class ClusterBuildReport(BuildReport):
    """What a build on a cluster did; the `resumed_` parts were there from an earlier attempt."""

    segments: int
    resumed_chunks: int
    resumed_segments: int


def build_on_cluster(
    address: str,
    student: Path,
    passages: Path,
    out: str,
    *,
    bits: int = 16,
    dims: int | None = None,
    pool: float = 1.0,
    segments: int | None = None,
    chunk_passages: int = CHUNK_PASSAGES,
    encoders: int | None = None,
    force: bool = False,
    restart: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress = SILENT,
) -> ClusterBuildReport:
    """Build a snapshot of `segments` segments at `out`, a path that all nodes see or a URL that fsspec writes.

    `encoders` students encode at once: one a GPU, or one a processor without any. `restart` throws away what an
    unfinished build left, which goes on otherwise. In one segment the snapshot has the bytes that `build` writes.
    Raises: as `build`, and UsageError where another build is unfinished there.
    """
    if bits not in BITS:
        raise UsageError(f"--bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    started = time.monotonic()
    place = _workplace(out, force=force)
    # What was added to a snapshot that is replaced at the end would be lost.
    with replacing(Path(out).absolute()) if isinstance(place, DirectoryPlace) else nullcontext(False) as held:
        if restart:
            _throw_away(place)
        spec = load_encoder(student).spec
        reduction = reduction_of(dims, pool, spec.dim, spec.name)
        with named_trouble(Path(place.location)):
            wanted = wish(passages, spec, bits, reduction, segments, chunk_passages, skip_bad_lines)
            plan = _plan(place, student, passages, wanted, progress)
        join_cluster(address)
        with plain_errors("the build"):
            resumed_chunks = len(encoded_chunks(place))
            _encode(place, plan, encoders, progress)
            resumed_segments = len(finished_segments(place))
            _write_segments(place, plan, progress)
        manifest, finished = _publish(place, plan, out, force=force, held=held)
    return ClusterBuildReport(
        out=out,
        version=manifest.version,
        passages=manifest.passages,
        tokens=manifest.tokens,
        lists=manifest.quantizers[0].lists,
        size_bytes=manifest.size_bytes,
        without_tokens=sum(each.without_tokens for each in finished),
        truncated=sum(each.truncated for each in finished),
        skipped_lines=plan.skipped_lines,
        skipped_messages=plan.skipped_messages,
        seconds=round(time.monotonic() - started, 3),
        segments=len(manifest.segments),
        resumed_chunks=resumed_chunks,
        resumed_segments=resumed_segments,
    )


def _workplace(out: str, *, force: bool) -> Place:
    """Return where the work goes: a hidden sibling of a path, which a rename puts in place, or the URL itself."""
    if is_url(out):
        place = open_place(out)
        if place.exists(MANIFEST):
            # Its build was killed before it could.
            place.remove(BUILDING)
            raise UsageError(
                f"{out} holds a snapshot already, whose readers fetch its files; choose another --out and point them "
                "at that"
            )
        return place
    path = Path(out).absolute()
    if (path / MANIFEST).is_file() and (path / BUILDING).is_dir():
        # Likewise. In a snapshot that is replaced it could be taken for an unfinished build.
        with suppress(SnapshotError), replacing(path):
            shutil.rmtree(path / BUILDING, ignore_errors=True)
    check_target(path, force=force)
    return DirectoryPlace(path.with_name(f".{path.name}.ray-build"))


def _plan(place: Place, student: Path, passages: Path, wanted: Wanted, progress: Progress) -> Plan:
    """Return the plan of the unfinished build that is there, or make one: check the passages and cut them."""
    found = read_plan(place)
    if found is not None:
        if found.wanted != wanted:
            differing = [name for name, value in wanted if getattr(found.wanted, name) != value]
            raise UsageError(
                f"{place.location} holds an unfinished build of other {', '.join(differing)}; finish that, or throw "
                "it away by --restart"
            )
        return found
    _throw_away(place)
    skipped = SkippedLines() if wanted.skip_bad_lines else None
    advance = progress.stage("Reading", None, "passages")
    count, chunks = cut_passages(passages, place, wanted.chunk_passages, skipped, advance)
    for file in sorted(student.rglob("*")):
        if file.is_file():
            place.put(file, f"{STUDENT}/{file.relative_to(student).as_posix()}")
    plan = Plan(
        wanted=wanted,
        passages=count,
        chunks=chunks,
        skipped_lines=0 if skipped is None else skipped.count,
        skipped_messages=[] if skipped is None else skipped.messages,
    )
    write_plan(place, plan)
    return plan


def _throw_away(place: Place) -> None:
    """Remove what a build left: of a directory all of it, which may be the snapshot that a killed one replaced."""
    if isinstance(place, DirectoryPlace):
        shutil.rmtree(place.root, ignore_errors=True)
        return
    for part in (BUILDING, "segments", "quantizers"):
        place.remove(part)


class _EncoderActor:
    """Encodes the chunk of a Ray Data batch. The first loads the student, so that what fails there is told too."""

    def __init__(self, location: str, gpu: bool) -> None:
        self._location = location
        self._gpu = gpu
        self._encoder: ChunkEncoder | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        told = _tell(lambda: self._encode(int(batch["item"][0])), self._location)
        return {name: [value] for name, value in told.items()}

    def _encode(self, chunk: int) -> int:
        self._encoder = self._encoder or ChunkEncoder(self._location, gpu=self._gpu)
        return self._encoder.encode(chunk)


def _encode(place: Place, plan: Plan, encoders: int | None, progress: Progress) -> None:
    import ray
    from ray.data import ActorPoolStrategy

    missing = sorted(set(range(plan.chunks)) - encoded_chunks(place).keys())
    done = min(plan.passages, (plan.chunks - len(missing)) * plan.wanted.chunk_passages)
    advance = progress.stage("Encoding", plan.passages, "passages")
    advance(done)
    if not missing:
        return
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    most = encoders or gpus or int(resources.get("CPU", 1))
    pool = ActorPoolStrategy(min_size=1, max_size=max(1, min(most, len(missing))), max_tasks_in_flight_per_actor=2)
    share = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    _run(
        missing,
        advance,
        lambda work: work.map_batches(
            _EncoderActor,
            fn_constructor_kwargs={"location": place.location, "gpu": bool(gpus)},
            batch_size=1,
            compute=pool,
            **share,
        ),
    )


def _write_segments(place: Place, plan: Plan, progress: Progress) -> None:
    import ray

    quantizer = read_quantizer(place)
    if quantizer is None:
        progress.stage("Training centroids", None, "")
        quantizer = ray.get(ray.remote(num_cpus=1, max_retries=-1)(train).remote(place.location))
    missing = sorted(set(range(plan.segments)) - finished_segments(place))
    advance = progress.stage("Indexing", plan.passages, "passages")
    location = place.location

    def write(row: dict[str, Any]) -> dict[str, Any]:
        return _tell(lambda: build_segment(location, quantizer, int(row["item"])), location)

    _run(missing, advance, lambda work: work.map(write, num_cpus=1))


def _run(items: list[int], advance: Callable[[int], None], work: Callable[[Any], Any]) -> None:
    """Let Ray Data work through items, each a block of its own: nothing waits for a slow one."""
    import ray

    if not items:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows: Iterable[dict[str, Any]] = work(ray.data.from_items(items, override_num_blocks=len(items))).iter_rows()
    for row in rows:
        if row["error"]:
            raise getattr(errors, row["kind"])(row["error"])
        advance(int(row["passages"]))


def _tell(work: Callable[[], int], location: str) -> dict[str, Any]:
    """Do a piece of work and return its row; an error of ours becomes one, as Ray Data would lose its class."""
    try:
        with named_trouble(Path(location)):
            return {"passages": work(), "error": "", "kind": ""}
    except DrDecrError as problem:
        return {"passages": 0, "error": str(problem), "kind": type(problem).__name__}


def _publish(
    place: Place, plan: Plan, out: str, *, force: bool, held: bool = False
) -> tuple[Manifest, list[FinishedSegment]]:
    """Write the manifest, after everything that it names."""
    finished = [read_segment(place, segment) for segment in range(plan.segments)]
    quantizer = read_quantizer(place)
    assert quantizer is not None
    records = [each.record for each in finished]
    residual = pooled_residual([each.residual for each in records], [each.tokens for each in records])
    reduction = plan.wanted.reduction
    manifest = Manifest(
        format_version=format_of(reduction, plan.wanted.student.closeness),
        written_by=f"drdecr {__version__}",
        student=plan.wanted.student,
        reduction=reduction,
        quantizers=[quantizer.model_copy(update={"residual": None if residual is None else round(residual, 6)})],
        segments=records,
    )
    place.write(MANIFEST, render_manifest(manifest).encode())
    if isinstance(place, DirectoryPlace):
        path = Path(out).absolute()
        publish_directory(place.root, path, force=force, held=held)
        # Where a snapshot was replaced, it lies here now; a build that finds it would take its settings for its own.
        shutil.rmtree(place.root, ignore_errors=True)
        # The snapshot is whole by now: what cannot be removed goes with the next build.
        shutil.rmtree(path / BUILDING, ignore_errors=True)
    else:
        place.remove(BUILDING)
    return manifest, finished
