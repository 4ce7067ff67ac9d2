"""NumPy files of a known shape, written from front to back."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ArrayWriter:
    """Writes an .npy file part by part; unlike a writable memory map it fails cleanly on a full disk."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._missing = shape[0]
        self._row = shape[1:]
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._file.close()
        if kind is None and self._missing:
            raise ValueError(f"{self._missing} rows were promised and not written")

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows."""
        if rows.shape[1:] != self._row or len(rows) > self._missing:
            raise ValueError(f"rows of shape {rows.shape} do not fit {self._missing} missing rows of {self._row}")
        self._missing -= len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data.cast("B") if rows.size else b"")


class GrowingArrayWriter:
    """Writes an .npy file of rows, whose number is known at its end."""

    _HEADER_BYTES = 128

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...] = ()) -> None:
        self._row = row
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.rows = 0
        self._file = path.open("wb")
        self._file.write(b"\0" * self._HEADER_BYTES)

    def __enter__(self) -> GrowingArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows."""
        if rows.shape[1:] != self._row:
            raise ValueError(f"rows of shape {rows.shape} do not fit rows of {self._row}")
        self.rows += len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data.cast("B") if rows.size else b"")

    def _header(self) -> bytes:
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows, *self._row)}
        room = self._HEADER_BYTES - 10
        text = repr(described).ljust(room - 1) + "\n"
        return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.encode("ascii")
