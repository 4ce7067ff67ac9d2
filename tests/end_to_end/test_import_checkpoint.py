"""A published checkpoint on its whole way, by the programs: import, export, encode, index, serve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from service_process import environment, running_service

from drdecr.encoder.load import load_encoder

REFERENCE = Path(__file__).parents[1] / "reference"
sys.path.insert(0, str(REFERENCE))
from reference_vectors import read_vectors  # noqa: E402
from tiny_backbones import TEXTS, make_primeqa  # noqa: E402

QUERY = "Who plays?"


def drdecr(*arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-c", "from drdecr.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_checkpoint_that_names_its_base_is_imported(tmp_path: Path) -> None:
    base, source = make_primeqa(tmp_path, "B")
    report = json.loads(drdecr("import-checkpoint", source, "student", "--base", base, "--json", cwd=tmp_path))
    assert report["format"] == "primeqa"
    encoded = load_encoder(tmp_path / "student", threads=1).encode(TEXTS, "query")
    # Its library gives what begins a query a vector too, of zeros.
    expected = np.concatenate([vectors[1:] for vectors in read_vectors(REFERENCE / "primeqa-B.npz")["query"]])
    assert np.allclose(encoded.vectors, expected, atol=1e-5)


def test_checkpoint_goes_from_import_to_hits(tmp_path: Path) -> None:
    report = json.loads(drdecr("import-checkpoint", REFERENCE / "pylate", "student", "--json", cwd=tmp_path))
    assert report["format"] == "pylate"
    drdecr("export", "student", "--onnx", cwd=tmp_path)
    lines = (json.dumps({"id": f"p{at}", "text": text}) for at, text in enumerate(TEXTS))
    (tmp_path / "passages.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    encoded = ("--kind", "passage", "--input", "passages.jsonl", "--out", "passages.npz")
    drdecr("encode", "student", *encoded, cwd=tmp_path)
    vectors = np.load(tmp_path / "passages.npz")["vectors"]
    assert np.allclose(vectors, np.concatenate(read_vectors(REFERENCE / "pylate.npz")["passage"]), atol=1e-5)
    drdecr(
        "index", "build", "--student", "student", "--passages", "passages.jsonl", "--out", "snapshot", cwd=tmp_path
    )
    options = ("--student", tmp_path / "student", "--index", f"all={tmp_path / 'snapshot'}")
    answers = []
    for encoder in ("onnx", "torch"):
        with running_service(tmp_path / f"{encoder}.log", *options, ENCODER=encoder) as service:
            body = {"query": QUERY, "k": 3, "highlight": True, "explain": True}
            answer = service.client.post("/v1/indexes/all/search", json=body)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
            long = service.client.post("/v1/indexes/all/search", json={"query": "word " * 60, "k": 1}).json()
            assert [warning["code"] for warning in long["warnings"]][:1] == ["query_truncated"]
    for answer in answers:
        assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in answers[0]["hits"]]
        # Markers and expansion stand for no characters of the query; every other token stands for some.
        spans = [token["query"] for token in answer["hits"][0]["explanation"]["tokens"]]
        assert {span["text"] for span in spans} >= {"", "W", "?"}
        assert all(span["text"] == QUERY[span["start"] : span["end"]] for span in spans)
