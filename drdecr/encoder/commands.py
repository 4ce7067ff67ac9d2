"""`drdecr encode`: the token vectors of a file of queries or passages, as arrays."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import numpy as np

from drdecr.corpus import SkippedLines, read_passages, read_queries
from drdecr.encoder.load import Backend, load_encoder
from drdecr.encoder.types import Encoder, EncoderSpec, Kind
from drdecr.encoder.windows import Windowed, encode_windows, join
from drdecr.errors import UsageError
from drdecr.progress import ProgressBar

_CHUNK = 1024
Text = tuple[str, str]
"""id and text"""


@click.command(epilog="Example: drdecr encode demo/student --kind query --input queries.tsv --out queries.npz")
@click.argument("student", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(get_args(Kind)), required=True, help="Which side the texts are.")
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="Queries or passages.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--windows", is_flag=True, help="Read passages whole, in windows, as an index holds them.")
@click.option("--backend", type=click.Choice(get_args(Backend)), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of one batch.  [default: all processors]")
@click.option("--skip-bad-lines", is_flag=True, help="Count and report unusable lines instead of stopping.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def encode(
    student: Path,
    kind: Kind,
    source: Path,
    out: Path,
    windows: bool,
    backend: Backend,
    threads: int | None,
    skip_bad_lines: bool,
    as_json: bool,
) -> None:
    """Write the token vectors of queries or passages.

    The file holds `vectors` (tokens, dim) float32, `offsets` (texts + 1,) int64, `ids`, and `sentences`
    (texts, sentence_dim) float32 where the student has them.

    A text is cut at what the student reads at a time. With --windows a passage has all its windows instead:
    `offsets` bounds the vectors of passages, `windows` (texts + 1,) the windows of passages, `window_offsets`
    (windows + 1,) the vectors of windows, and `sentences` has a row a window. Where the student has a closeness,
    windows are sentences.
    """
    if windows and kind != "passage":
        raise UsageError("--windows: only passages have windows; a query is cut at what the student reads")
    if not out.resolve().parent.is_dir():
        raise UsageError(f"--out: {out.resolve().parent} is no directory; create it first")
    if out.is_dir():
        raise UsageError(f"--out: {out} is a directory; name a file")
    skipped = SkippedLines() if skip_bad_lines else None
    texts = list(_texts(source, kind, skipped))
    encoder = load_encoder(student, threads=threads, backend=backend)
    encoded = _encode_all(encoder, [text for _, text in texts], kind, windows)
    write_vectors(out, encoded, [name for name, _ in texts], encoder.spec, windows=windows)
    result = {
        "texts": len(texts),
        "tokens": len(encoded.windows.vectors),
        "dim": encoder.spec.dim,
        "sentence_dim": encoder.spec.sentence_dim,
        "truncated": int(encoded.windows.truncated.sum()),
        **({"windows": len(encoded.windows)} if windows else {}),
        "skipped_lines": skipped.count if skipped else 0,
    }
    _report(result, skipped, out, as_json)


def write_vectors(out: Path, texts: Windowed, ids: list[str], spec: EncoderSpec, *, windows: bool = False) -> None:
    """Write vectors, ids and what an index must know of the student as one `.npz` file, whole or not at all.

    Without `windows` each text must be one.
    """
    encoded = texts.windows
    arrays = {
        "vectors": encoded.vectors,
        "offsets": texts.offsets,
        "ids": np.array(ids, np.str_),
        "spans": encoded.spans,
        "fingerprint": np.array(spec.fingerprint),
        "sentence_weight": np.array(spec.sentence_weight),
    }
    if spec.closeness:
        arrays["closeness"] = np.array(spec.closeness)
    if windows:
        arrays |= {"windows": texts.bounds, "window_offsets": encoded.offsets}
    if encoded.sentences is not None:
        arrays["sentences"] = encoded.sentences
    handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.resolve().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs read a keyword as `allow_pickle`
        Path(name).chmod(0o644)
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _texts(source: Path, kind: Kind, skipped: SkippedLines | None) -> Iterator[Text]:
    if kind == "query":
        return ((query.id, query.text) for query in read_queries(source, skipped=skipped))
    return ((passage.id, passage.content) for passage in read_passages(source, skipped=skipped))


def _encode_all(encoder: Encoder, texts: list[str], kind: Kind, windows: bool) -> Windowed:
    with ProgressBar("Encoding", len(texts), "texts", keep=True) as bar:

        def encoded(some: list[str]) -> Windowed:
            if windows:
                return encode_windows(encoder, some, progress=bar.advance)
            return Windowed.whole(encoder.encode(some, kind, progress=bar.advance))

        # One chunk of nothing gives an empty file its shapes.
        starts = range(0, max(len(texts), 1), _CHUNK)
        return join([encoded(texts[start : start + _CHUNK]) for start in starts])


def _report(result: dict[str, int], skipped: SkippedLines | None, out: Path, as_json: bool) -> None:
    for message in skipped.messages if skipped else ():
        click.echo(f"skipped {message}", err=True)
    if result["truncated"]:
        click.echo(f"{result['truncated']} texts were longer than the student reads; their ends were cut", err=True)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{out}: {result['texts']} texts, {result['tokens']} token vectors of {result['dim']} dimensions")
