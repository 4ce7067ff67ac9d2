"""Files of token vectors, and everything that can be wrong with one."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from fabricated_vectors import encoded, save_vectors

from drdecr.errors import InputError
from drdecr.index.vector_file import VectorFile


def test_vectors_come_back_in_parts(tmp_path: Path) -> None:
    texts = encoded([3, 0, 2, 5, 1], 6, 4)
    file = VectorFile(save_vectors(tmp_path / "v.npz", texts))
    parts = [part.windows for part in file.read(2)]
    assert [len(part) for part in parts] == [2, 2, 1]
    assert np.array_equal(np.concatenate([part.vectors for part in parts]), texts.vectors)
    assert np.array_equal(
        np.concatenate([part.sentences for part in parts if part.sentences is not None]), texts.sentences
    )
    assert np.array_equal(parts[1].tokens_of(1), texts.tokens_of(3))
    assert file.ids == ["p0", "p1", "p2", "p3", "p4"]


def test_compressed_archives_and_other_number_types_are_read(tmp_path: Path) -> None:
    texts = encoded([2, 1], 4)
    np.savez_compressed(
        tmp_path / "v.npz",
        vectors=texts.vectors.astype(np.float64),
        offsets=texts.offsets.astype(np.int32),
        ids=np.array([7, 8]),
    )
    file = VectorFile(tmp_path / "v.npz")
    assert file.ids == ["7", "8"]
    assert np.array_equal(next(iter(file.read(5))).windows.vectors, texts.vectors)


def test_ids_of_bytes_are_text(tmp_path: Path) -> None:
    path = save_vectors(tmp_path / "v.npz", encoded([2, 1], 4), ids=np.array([b"first", "zwölf".encode()]))
    assert VectorFile(path).ids == ["first", "zwölf"]


def test_student_that_the_file_names_is_known(tmp_path: Path) -> None:
    texts = encoded([2, 1], 4, 3)
    path = save_vectors(tmp_path / "v.npz", texts, fingerprint=np.array("ab" * 32), sentence_weight=np.array(0.25))
    assert VectorFile(path).spec.fingerprint == "ab" * 32
    assert VectorFile(path).spec.sentence_weight == 0.25
    assert VectorFile(path, sentence_weight=2.0).spec.sentence_weight == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 2])}, "rise from 0 to 3 in 3 steps"),
        ({"offsets": np.array([0, 2, 4])}, "rise from 0 to 3"),
        ({"offsets": np.array([0, 4, 3])}, "rise from 0 to 3"),
        ({"offsets": np.array([1, 2, 3])}, "rise from 0 to 3"),
        ({"ids": np.array(["a", "a"])}, "'a' appears a second time"),
        ({"ids": np.array(["a", "b c"])}, "'b c' in row 1"),
        ({"ids": np.array(["a", ""])}, "'' in row 1"),
        ({"ids": np.array(["a", None], dtype=object)}, "cannot be read"),
        ({"vectors": np.zeros(3, np.float32)}, "must be"),
        ({"vectors": np.zeros((3, 0), np.float32)}, "must be"),
        ({"vectors": np.array([["a"], ["b"], ["c"]])}, "array of numbers"),
        ({"vectors": np.asfortranarray(np.ones((3, 4), np.float32))}, "C-ordered"),
        ({"sentences": np.zeros((3, 4), np.float32)}, r"`sentences` must be \(2, dim\)"),
        ({"windows": np.array([0, 1]), "window_offsets": np.array([0, 3])}, "`windows` must rise from 0 to 1 in 3"),
        ({"windows": np.array([0, 0, 2]), "window_offsets": np.array([0, 2, 3])}, "`windows` must rise"),
        (
            {"windows": np.array([0, 2, 3]), "window_offsets": np.array([0, 1, 3, 3])},
            "`window_offsets` must",
        ),
        ({"windows": np.array([0, 1, 2])}, "window_offsets"),
        ({"spans": np.zeros((2, 2), np.int32)}, r"`spans` must be \(3, 2\)"),
        ({"sentence_weight": np.float32(np.nan)}, "`sentence_weight` is nan"),
        ({"closeness": np.float32(np.inf)}, "`closeness` is inf"),
    ],
)
def test_wrong_array_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = save_vectors(tmp_path / "v.npz", encoded([2, 1], 4), **changes)
    with pytest.raises(InputError, match=message) as caught:
        VectorFile(path)
    assert str(path) in str(caught.value)


def test_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", vectors=np.zeros((1, 2), np.float32), ids=np.array(["a"]))
    with pytest.raises(InputError, match="offsets"):
        VectorFile(tmp_path / "v.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    texts = encoded([2, 1], 4)
    texts.vectors[1, 2] = value
    file = VectorFile(save_vectors(tmp_path / "v.npz", texts))
    with pytest.raises(InputError, match="not finite"):
        list(file.read(10))


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in ("text.npz", "single.npy", "absent.npz"):
        with pytest.raises(InputError, match=name):
            VectorFile(tmp_path / name)


@pytest.mark.parametrize("damaged", ["vectors", "ids"])
def test_compressed_archive_damaged_in_its_middle_is_named(tmp_path: Path, damaged: str) -> None:
    texts = encoded([20] * 400, 16)
    path = tmp_path / "v.npz"
    ids = np.array([np.random.default_rng(i).bytes(250).hex() for i in range(400)])
    np.savez_compressed(path, vectors=texts.vectors, offsets=texts.offsets, ids=ids)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{damaged}.npy")
    whole = path.read_bytes()
    begin = whole.index(member.filename.encode(), member.header_offset) + len(member.filename) + 20
    packed = whole[begin : begin + member.compress_size]
    path.write_bytes(whole[:begin] + unreadable(packed) + whole[begin + len(packed) :])
    with pytest.raises(InputError, match=r"v\.npz: cannot be read as token vectors \(Error -3"):
        list(VectorFile(path).read(10))


def unreadable(packed: bytes) -> bytes:
    """Damage deflated bytes in their middle, where zlib finds it before any checksum does."""
    for at in range(len(packed) // 2, len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 255]) + packed[at + 1 :]
        try:
            zlib.decompress(damaged, -15)
        except zlib.error as problem:
            if "Error -3" in str(problem):
                return damaged
    raise AssertionError


def test_damaged_archive_is_named(tmp_path: Path) -> None:
    path = save_vectors(tmp_path / "v.npz", encoded([200, 100], 16))
    data = bytearray(path.read_bytes())
    data[9000] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        list(VectorFile(path).read(10))
