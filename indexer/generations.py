"""Generations: how a snapshot changes without a reader, or a crash, ever seeing half a change.

A change writes new files beside the old ones, makes them durable, and renames a new manifest into place; nothing that
a manifest names is ever written again. The manifests of earlier generations stay in `generations/`, so that a change
can be taken back. Files that no manifest names are what a killed change left, or what a change set free; the holder
of the writer's lock sweeps them away. A reader that has opened a snapshot holds all its files open and keeps them,
whatever happens to their names; one that is opening it begins again when the manifest changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr import __version__
from drdecr.errors import SnapshotCorruptError, SnapshotError
from drdecr.index.manifest import (
    MANIFEST,
    PARTIAL,
    Manifest,
    QuantizerRecord,
    SegmentRecord,
    TombstoneRecord,
    format_of,
    read_manifest,
    record_file,
    sync_path,
    write_manifest,
)
from drdecr.index.segment import OFFSETS
from drdecr.index.snapshot import find_damage
from drdecr.index.tombstones import read_tombstones, write_tombstones
from indexer.lock import writer_lock
from indexer.staging import named_trouble

GENERATIONS = "generations"
QUANTIZERS = "quantizers"
SEGMENTS = "segments"
TOMBSTONES = "tombstones"
KEPT = 3
"""Earlier generations that a change keeps; they cost a manifest and the tombstones each."""

# Manifests first: an earlier generation that goes is gone before its files are.
_SWEPT = (GENERATIONS, QUANTIZERS, SEGMENTS, TOMBSTONES)


@dataclass(slots=True)
class Draft:
    """The next generation of a snapshot. It is published where `segments` differ from the manifest's, with those of
    the `quantizers` that they name.

    `manifest` is the one that the change began with, `result` what is there in the end; with `forget` the first is
    not kept as an earlier generation.
    """

    root: Path
    manifest: Manifest
    forget: bool = False
    result: Manifest = field(init=False)
    quantizers: list[QuantizerRecord] = field(init=False)
    segments: list[SegmentRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.result = self.manifest
        self.quantizers = list(self.manifest.quantizers)
        self.segments = list(self.manifest.segments)

    @property
    def generation(self) -> int:
        """The number of the generation in the making."""
        return self.manifest.generation + 1

    def new_segment(self) -> str:
        """Make the directory of a new segment and return its path in the snapshot."""
        return self._new_directory(SEGMENTS)

    def new_quantizer(self) -> str:
        """Make the directory of a new quantiser and return its path in the snapshot."""
        return self._new_directory(QUANTIZERS)

    def bury(self, number: int, positions: Iterable[int]) -> None:
        """Delete passages of `segments[number]`; one without living passages is left out when it is published."""
        segment = self.segments[number]
        deleted = np.union1d(read_tombstones(self.root, segment), np.fromiter(positions, np.int64))
        path = f"{TOMBSTONES}/{self.generation:06d}-{Path(segment.directory).name}.npy"
        (self.root / TOMBSTONES).mkdir(exist_ok=True)
        write_tombstones(self.root / path, deleted)
        tombstones = TombstoneRecord(
            path=path,
            passages=len(deleted),
            tokens=_tokens_of(self.root / segment.directory, deleted),
            file=record_file(self.root / path),
        )
        self.segments[number] = segment.model_copy(update={"tombstones": tombstones})

    def next_manifest(self) -> Manifest:
        """Return the manifest that publishes `segments`."""
        segments = [segment for segment in self.segments if segment.deleted < segment.passages] or self.segments[:1]
        used = {segment.quantizer for segment in segments}
        return self.manifest.model_copy(
            update={
                "format_version": format_of(self.manifest.reduction, self.manifest.student.closeness),
                "written_by": f"drdecr {__version__}",
                "quantizers": [quantizer for quantizer in self.quantizers if quantizer.directory in used],
                "segments": segments,
                "generation": self.generation,
            }
        )

    def _new_directory(self, top: str) -> str:
        taken = [int(path.name) for path in (self.root / top).iterdir() if path.name.isdecimal()]
        directory = f"{top}/{max(taken, default=0) + 1:06d}"
        (self.root / directory).mkdir()
        return directory


@contextmanager
def changed_snapshot(root: Path, doing: str, *, keep: int = KEPT, damaged_too: bool = False) -> Iterator[Draft]:
    """Give a draft of a snapshot's next generation, and publish it when the block ends well.

    Keeps `keep` earlier generations. Raises: SnapshotBusyError while another process changes the snapshot,
    SnapshotCorruptError for a damaged one unless `damaged_too`, ResourceError when the disk is full; then the
    snapshot is as it was.
    """
    with writer_lock(root, doing), named_trouble(root):
        manifest = read_manifest(root)
        if not damaged_too and (damage := find_damage(root, manifest, hashes=False)):
            raise SnapshotCorruptError(f"{root} is damaged: {'; '.join(damage)}; restore it before changing it")
        sweep(root)
        draft = Draft(root, manifest)
        try:
            yield draft
            if draft.segments != manifest.segments:
                changed = draft.next_manifest()
                _make_durable(root, manifest, changed)
                write_manifest(root, changed)
                draft.result = changed
        except BaseException:
            # Keeps the generation that was current, whichever manifest is in place by now.
            sweep(root)
            raise
        if draft.forget:
            _remove(root / generation_path(manifest.generation))
        sweep(root, keep=keep)


def earlier_generations(root: Path, current: Manifest) -> list[Manifest]:
    """Return the kept manifests before the current one, newest first; unreadable ones are left out."""
    found = []
    for path in sorted((root / GENERATIONS).glob("*.json"), reverse=True):
        with suppress(SnapshotError):
            manifest = read_manifest(root, name=f"{GENERATIONS}/{path.name}")
            # A crash before the current manifest was replaced leaves it here too.
            if manifest.generation < current.generation:
                found.append(manifest)
    return found


def sweep(root: Path, *, keep: int | None = None) -> int:
    """Remove what neither the manifest nor `keep` earlier ones (None: all there are) need; return the bytes freed.

    Only the holder of the writer's lock may call this.
    """
    current = read_manifest(root)
    kept = earlier_generations(root, current)[:keep]
    needed = {path for manifest in (current, *kept) for path in manifest.paths()}
    needed |= {generation_path(manifest.generation) for manifest in kept}
    freed = _remove(root / (MANIFEST + PARTIAL))
    for top in _SWEPT:
        for path in sorted((root / top).rglob("*"), reverse=True):
            # A link is no work of ours: somebody keeps a part elsewhere.
            if path.is_symlink():
                continue
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()
            elif path.relative_to(root).as_posix() not in needed:
                freed += _remove(path)
        if top == GENERATIONS and (root / top).is_dir():
            sync_path(root / top)
    return freed


def generation_path(generation: int) -> str:
    """Return where the manifest of an earlier generation lies in the snapshot."""
    return f"{GENERATIONS}/{generation:06d}.json"


def _make_durable(root: Path, current: Manifest, changed: Manifest) -> None:
    """Write to disk all that the next manifest will name, and keep the current one."""
    written = {root / path for path in changed.paths().keys() - current.paths().keys()}
    for path in written:
        sync_path(path)
    (root / GENERATIONS).mkdir(exist_ok=True)
    write_manifest(root, current, name=generation_path(current.generation))
    for directory in sorted({parent for path in written for parent in path.parents if parent.is_relative_to(root)}):
        sync_path(directory)
    sync_path(root)


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size


def _tokens_of(directory: Path, positions: NDArray[np.int64]) -> int:
    offsets = np.load(directory / OFFSETS, mmap_mode="r")
    return int((offsets[positions + 1] - offsets[positions]).sum())
