"""`drdecr import-checkpoint`: what it refuses, what it assumes and says, and that nothing pickled is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from drdecr.encoder.checkpoints.commands import import_checkpoint
from drdecr.encoder.checkpoints.unpickle import load_pickled
from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import read_settings
from drdecr.errors import ModelError, UsageError

REFERENCE = Path(__file__).parents[2] / "reference"
sys.path.insert(0, str(REFERENCE))
from tiny_backbones import make_primeqa  # noqa: E402


def run(*arguments: object) -> Result:
    return CliRunner().invoke(import_checkpoint, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def primeqa(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_primeqa(tmp_path_factory.mktemp("primeqa"), "B")


class _Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, torch.load, torch.hub.load, pickle.loads])
def test_pickled_call_is_refused_and_not_run(function: Any, legacy: bool, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    argument = f"touch {target}" if function is os.system else f"open({str(target)!r}, 'w')"
    content = {"model_state_dict": {}, "config": _Call(function, argument)}
    torch.save(content, tmp_path / "bad.dnn", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="refused: it names"):
        load_pickled(tmp_path / "bad.dnn")
    assert not target.exists()


def test_plain_pickle_of_a_call_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.dnn").write_bytes(pickle.dumps(_Call(os.system, f"touch {tmp_path / 'ran'}")))
    with pytest.raises(ModelError):
        load_pickled(tmp_path / "bad.dnn")
    assert not (tmp_path / "ran").exists()


class _Scripted(torch.nn.Module):
    """Writes a file when TorchScript loads it."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target, self.training = state
        torch.save(torch.zeros(1), state[0])


def test_torchscript_archive_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    torch.jit.script(_Scripted(str(target))).save(str(tmp_path / "bad.dnn"))
    target.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="refused: it is a TorchScript archive"):
        load_pickled(tmp_path / "bad.dnn")
    assert not target.exists()
    torch.jit.load(str(tmp_path / "bad.dnn"))
    assert target.exists(), "the archive would have run"


@pytest.mark.parametrize("content", [b"", b"no pickle at all", b"PK\x03\x04 half a zip"])
def test_broken_file_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read|refused"):
        load_pickled(tmp_path / "broken.model")


def test_random_states_and_an_optimizer_are_read_past(primeqa: tuple[Path, Path]) -> None:
    loaded = load_pickled(primeqa[1])
    assert loaded["np_rng_state"][0] == "MT19937"
    assert "optimizer_state_dict" in loaded


def test_settings_object_of_another_package_becomes_a_record(primeqa: tuple[Path, Path], tmp_path: Path) -> None:
    base, path = primeqa
    content = torch.load(path, weights_only=False)
    kind = type("ColBERTConfig", (), {"__module__": "primeqa"})
    config = kind()
    config.query_maxlen, config.doc_maxlen, config.similarity = 16, 30, "cosine"
    module = type(sys)(kind.__module__)
    module.ColBERTConfig = kind  # type: ignore[attr-defined]
    sys.modules[kind.__module__] = module
    try:
        torch.save(content | {"config": config}, tmp_path / "c.model")
    finally:
        del sys.modules[kind.__module__]
    assert run(tmp_path / "c.model", tmp_path / "s", "--base", base).exit_code == 0
    settings = read_settings(tmp_path / "s")
    assert settings is not None
    assert (settings.query_length, settings.passage_length) == (16, 30)


def test_primeqa_without_compat_leaves_padding_out_of_passages(primeqa: tuple[Path, Path], tmp_path: Path) -> None:
    base, path = primeqa
    done = run(path, tmp_path / "s", "--base", base)
    assert "assumed: markers (9748, 9749)" in done.stderr
    plain = load_encoder(tmp_path / "s")
    run(path, tmp_path / "faulty", "--base", base, "--compat")
    faulty = load_encoder(tmp_path / "faulty")
    counts = [len(encoder.encode(["a b"], "passage").vectors) for encoder in (plain, faulty)]
    assert counts[1] == counts[0] + 1
    assert len(plain.encode(["a b"], "query").vectors) == 23
    stored = {path.suffix for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert ".dnn" not in stored
    assert "assumed" in json.loads((tmp_path / "s" / "import.json").read_text())


def test_what_a_directory_does_not_say_is_printed_and_stored(tmp_path: Path) -> None:
    source = Path(shutil.copytree(REFERENCE / "colbert", tmp_path / "silent"))
    (source / "artifact.metadata").unlink()
    done = run(source, tmp_path / "s", "--json")
    report = json.loads(done.stdout)
    assert any("doc_maxlen = 220" in line for line in report["assumed"])
    # Of the 220, the encoder has positions for 48.
    assert any("doc_maxlen becomes 48" in line for line in report["assumed"])
    assert report["settings"]["passage_length"] == 48


def test_plaidx_compat_keeps_the_dot_that_old_tokenisers_left(tmp_path: Path) -> None:
    run(REFERENCE / "plaidx", tmp_path / "new")
    run(REFERENCE / "plaidx", tmp_path / "old", "--compat")
    new, old = read_settings(tmp_path / "new"), read_settings(tmp_path / "old")
    assert new is not None and old is not None
    assert len(new.query_prefix) == 1
    assert old.query_prefix[:1] == new.query_prefix and len(old.query_prefix) == 2


def test_remote_code_needs_its_flag(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--trust-remote-code"):
        run(REFERENCE / "jina", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_refusals_name_the_remedy(primeqa: tuple[Path, Path], tmp_path: Path) -> None:
    base, path = primeqa
    (tmp_path / "taken").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="exists"):
        run(REFERENCE / "colbert", tmp_path / "taken")
    with pytest.raises(UsageError, match="--base is for"):
        run(REFERENCE / "colbert", tmp_path / "s", "--base", base)
    with pytest.raises(ModelError, match="not a late-interaction checkpoint"):
        run(tmp_path / "empty", tmp_path / "s")
    with pytest.raises(ModelError, match="--base"):
        run(path, tmp_path / "s", "--base", tmp_path / "empty")
    with pytest.raises(ModelError, match="do not fit"):
        run(path, tmp_path / "s", "--base", REFERENCE / "colbert")
    source = Path(shutil.copytree(REFERENCE / "colbert", tmp_path / "other"))
    (source / "artifact.metadata").write_text('{"similarity": "manhattan"}')
    with pytest.raises(ModelError, match="similarity 'manhattan'"):
        run(source, tmp_path / "s")
    # Nothing half-written stays behind.
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "empty", "other"}


def test_punctuation_is_told_by_its_category_in_every_script(tmp_path: Path) -> None:
    run(REFERENCE / "colbert", tmp_path / "ascii")
    run(REFERENCE / "colbert", tmp_path / "all", "--skip-punctuation")
    text = "東京。 أين؟ a, b"
    ascii_only, every = (load_encoder(tmp_path / name) for name in ("ascii", "all"))
    kept = every.encode([text], "passage")
    assert "".join(text[start:end] for start, end in kept.spans) == "東京أينab"
    # The Japanese full stop and the Arabic question mark, which ColBERT's own list of ASCII symbols lacks.
    assert len(ascii_only.encode([text], "passage").vectors) == len(kept.vectors) + 2
    # Queries keep theirs.
    assert len(every.encode([text], "query").vectors) == len(ascii_only.encode([text], "query").vectors)
