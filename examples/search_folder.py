"""Search a folder of text files in any language: index it, serve it, ask it.

Each paragraph becomes a passage, named after its file. The index is kept in --work, and built again only when a file
or the student has changed.

Example: python examples/search_folder.py ~/notes "où est la clé ?" --student quickstart/student
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drdecr.encoder.settings import MANIFEST_FILE, ONNX_FOLDER, fingerprint_student, read_manifest
from service.client import Client, ServiceError

DRDECR = [sys.executable, "-m", "drdecr"]


def paragraphs(folder: Path) -> Iterator[dict[str, object]]:
    """Yield a passage for each paragraph of each text file."""
    for path in sorted(folder.rglob("*.txt")):
        name = path.relative_to(folder).as_posix()
        for number, text in enumerate(path.read_text(encoding="utf-8").split("\n\n")):
            if text.strip():
                yield {"id": f"{name}#{number}", "title": path.stem, "text": text.strip(), "metadata": {"file": name}}


def fingerprint(student: Path) -> str:
    """Return what a snapshot keeps of its student: the service refuses one that was built with another."""
    exported = (student / ONNX_FOLDER / MANIFEST_FILE).is_file()
    return read_manifest(student).fingerprint if exported else fingerprint_student(student)


def indexed(folder: Path, student: Path, work: Path) -> Path:
    """Return a snapshot of the folder as it is now, by this student."""
    lines = "".join(json.dumps(passage, ensure_ascii=False) + "\n" for passage in paragraphs(folder))
    if not lines:
        raise SystemExit(f"{folder} has no text in *.txt files")
    snapshot = work / hashlib.sha256(f"{fingerprint(student)}\n{lines}".encode()).hexdigest()[:16]
    if not snapshot.exists():
        work.mkdir(parents=True, exist_ok=True)
        passages = work / "passages.jsonl"
        passages.write_text(lines, encoding="utf-8")
        build = [*DRDECR, "index", "build", "--student", student, "--passages", passages, "--out", snapshot]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return snapshot


@contextmanager
def served(student: Path, snapshot: Path) -> Iterator[Client]:
    """Serve the snapshot on a free port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [*DRDECR, "serve", "--student", student, "--index", f"folder={snapshot}", "--port", str(port)]
    process = subprocess.Popen(serve, stderr=subprocess.DEVNULL)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, process)
            yield client
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(client: Client, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if client.health().status == "ready":
                return
        except ServiceError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not start; run `drdecr serve` by hand to see why")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query", nargs="+", help="one or more questions")
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("folder-index"), help="where the index is kept")
    parser.add_argument("-k", type=int, default=3)
    options = parser.parse_args()

    snapshot = indexed(options.folder, options.student, options.work)
    with served(options.student, snapshot) as client:
        for query in options.query:
            print(query)
            for hit in client.search("folder", query, k=options.k, snippet=200).hits:
                assert hit.snippet is not None
                print(f"  {hit.score:6.2f}  {hit.metadata['file']}: {' '.join(hit.snippet.text.split())}")


if __name__ == "__main__":
    main()
