"""Token vectors in an .npz: what `drdecr encode` writes, and what builds and searches without a student read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import MAX_ID_CHARS
from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.encoder.windows import Windowed
from drdecr.errors import InputError


class VectorFile:
    """An .npz with `vectors` (tokens, dim), `offsets` (texts + 1,), `ids`, maybe `sentences` and `spans`.

    Passages in windows have `windows` (texts + 1,) and `window_offsets` (windows + 1,) too, as a snapshot has them.
    The student's `fingerprint`, `sentence_weight` and `closeness` may be there as arrays without dimensions. The
    vectors are read as a stream; only offsets and ids are held in memory.
    Raises: InputError for a file that is no such archive.
    """

    def __init__(self, path: Path, *, sentence_weight: float | None = None) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._streamed = ["vectors"]
                self._streamed += [name for name in ("sentences", "spans") if f"{name}.npy" in archive.namelist()]
                shapes: dict[str, tuple[int, ...]] = {}
                for name in self._streamed:
                    with _ArrayReader(archive, name) as reader:
                        shapes[name] = reader.shape
            with np.load(path, allow_pickle=False) as arrays:
                self._load(arrays, shapes, sentence_weight)
        except FileNotFoundError:
            raise InputError("no such file", path=path) from None
        except KeyError as missing:
            raise InputError(f"the array {missing} is missing", path=path) from None
        except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as problem:
            raise InputError(f"cannot be read as token vectors ({problem})", path=path) from None

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    def ids(self) -> list[str]:
        return self._ids

    @property
    def has_windows(self) -> bool:
        """Whether any text has more than one window."""
        return len(self._window_offsets) > len(self._offsets)

    def read(self, texts: int) -> Iterator[Windowed]:
        """Yield the vectors of all texts in their order, so many texts at a time; absent spans are (0, 2)."""
        try:
            with ExitStack() as stack:
                archive = stack.enter_context(zipfile.ZipFile(self._path))
                readers = {name: stack.enter_context(_ArrayReader(archive, name)) for name in self._streamed}
                for start in range(0, len(self._ids), texts):
                    yield self._take(readers, start, min(start + texts, len(self._ids)))
        except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as problem:
            raise InputError(f"cannot be read as token vectors ({problem})", path=self._path) from None

    def _take(self, readers: dict[str, _ArrayReader], start: int, stop: int) -> Windowed:
        bounds = self._windows[start : stop + 1]
        count = int(bounds[-1] - bounds[0])
        offsets = self._window_offsets[bounds[0] : bounds[-1] + 1]
        tokens = int(offsets[-1] - offsets[0])
        vectors = readers["vectors"].take(tokens).astype(np.float32)
        sentences = readers["sentences"].take(count).astype(np.float32) if "sentences" in readers else None
        for array in (vectors, sentences):
            if array is not None and not bool(np.isfinite(array).all()):
                raise InputError(f"a vector of texts {start} to {stop} is not finite", path=self._path)
        encoded = Encoded(
            vectors=vectors,
            offsets=offsets - offsets[0],
            sentences=sentences,
            spans=(readers["spans"].take(tokens) if "spans" in readers else np.empty((0, 2))).astype(np.int32),
            truncated=np.zeros(count, np.bool_),
            unknown=np.zeros(count, np.float32),
        )
        return Windowed(encoded, bounds - bounds[0])

    def _load(self, archive: Any, shapes: dict[str, tuple[int, ...]], sentence_weight: float | None) -> None:
        self._offsets: NDArray[np.int64] = archive["offsets"].astype(np.int64)
        ids = archive["ids"].tolist()
        self._ids: list[str] = [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in ids
        ]
        self._windows: NDArray[np.int64] = np.arange(len(self._ids) + 1)
        self._window_offsets = self._offsets
        if "windows" in archive.files:
            self._windows = archive["windows"].astype(np.int64)
            self._window_offsets = archive["window_offsets"].astype(np.int64)
        self._check(shapes)
        names = ("fingerprint", "sentence_weight", "closeness")
        known = {name: archive[name].item() for name in names if name in archive.files}
        if sentence_weight is None:
            sentence_weight = float(known.get("sentence_weight", 1.0))
        closeness = float(known.get("closeness", 0.0))
        for name, number in (("sentence_weight", sentence_weight), ("closeness", closeness)):
            if not math.isfinite(number):
                raise InputError(f"`{name}` is {number}; give a finite one", path=self._path)
        sentence_dim = shapes["sentences"][1] if "sentences" in shapes else 0
        self._spec = EncoderSpec(
            name=self._path.name,
            fingerprint=str(known.get("fingerprint", "")),
            dim=shapes["vectors"][1],
            sentence_dim=sentence_dim,
            sentence_weight=sentence_weight if sentence_dim else 0.0,
            query_length=0,
            passage_length=int(np.diff(self._window_offsets).max(initial=0)),
            closeness=closeness,
        )

    def _check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        offsets, count = self._offsets, len(self._ids)
        if len(shapes["vectors"]) != 2 or shapes["vectors"][1] == 0:
            raise InputError(f"`vectors` must be (tokens, dim), found {shapes['vectors']}", path=self._path)
        tokens = shapes["vectors"][0]
        if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 0).any():
            raise InputError(
                f"`offsets` must rise from 0 to {tokens} in {count + 1} steps, one more than `ids`", path=self._path
            )
        self._check_windows()
        rows = len(self._window_offsets) - 1
        if "sentences" in shapes and (len(shapes["sentences"]) != 2 or shapes["sentences"][0] != rows):
            raise InputError(f"`sentences` must be ({rows}, dim), found {shapes['sentences']}", path=self._path)
        if "spans" in shapes and shapes["spans"] != (tokens, 2):
            raise InputError(f"`spans` must be ({tokens}, 2), found {shapes['spans']}", path=self._path)
        seen: set[str] = set()
        for row, each in enumerate(self._ids):
            if not each or len(each) > MAX_ID_CHARS or any(char.isspace() or not char.isprintable() for char in each):
                raise InputError(
                    f"the id {each[:40]!r} in row {row} must be "
                    f"1 to {MAX_ID_CHARS} printable characters without spaces",
                    path=self._path,
                )
            if each in seen:
                raise InputError(f"id {each!r} appears a second time; ids must be unique", path=self._path)
            seen.add(each)

    def _check_windows(self) -> None:
        windows, offsets = self._windows, self._window_offsets
        count, rows = len(self._ids), len(offsets) - 1
        if len(windows) != count + 1 or windows[0] != 0 or windows[-1] != rows or (np.diff(windows) < 1).any():
            raise InputError(
                f"`windows` must rise from 0 to {rows} in {count + 1} steps, one more than `ids`", path=self._path
            )
        if (np.diff(offsets) < 0).any() or not np.array_equal(offsets[windows], self._offsets):
            raise InputError("`window_offsets` must rise, and meet `offsets` where a text begins", path=self._path)


class _ArrayReader:
    """Reads rows of one array of an .npz from front to back."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._file: IO[bytes] = archive.open(f"{name}.npy")
        try:
            version = np.lib.format.read_magic(self._file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran_order, self._dtype = read(self._file)
            if fortran_order or self._dtype.kind not in "fiu":
                raise ValueError(f"`{name}` must be a C-ordered array of numbers")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> _ArrayReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, rows: int) -> NDArray[Any]:
        size = rows * self._dtype.itemsize * int(np.prod(self.shape[1:]))
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("the file ends too early")
        return np.frombuffer(data, self._dtype).reshape(rows, *self.shape[1:])
