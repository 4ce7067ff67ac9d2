"""Downloading, checking, caching and writing a data set, with a pip of our own."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
from fabricated_wheel import held_out_names, learnable_names, pinned, service, write_wheel

from drdecr.corpus import read_pairs, read_passages, read_qrels, read_queries
from drdecr.errors import FetchError, InputError, ResourceError
from training.data import clients
from training.data.fetch import fetch_homeassistant
from training.data.files import read_meta
from training.wheels import PinnedWheel

FAKE_PIP = """\
import pathlib, shutil, sys
log = pathlib.Path({log!r})
log.write_text(log.read_text() + " ".join(sys.argv[1:]) + "\\n" if log.exists() else " ".join(sys.argv[1:]) + "\\n")
dest = next(word[7:] for word in sys.argv if word.startswith("--dest="))
shutil.copy({source!r}, pathlib.Path(dest) / "homeassistant-1.0-py3-none-any.whl")
"""


class Registry:
    """What the fake pip serves, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.wheel = folder / "served.whl"
        self.log = folder / "pip.log"
        self.program = folder / "pip.py"
        names = [next(held_out_names()), next(learnable_names())]
        self.release: PinnedWheel = write_wheel(
            self.wheel,
            {
                names[0]: {
                    "en": service("Start zone", "Waters one zone."),
                    "de": service("Zone starten", "Gießt."),
                    "ko": service("구역 시작", "물을 줍니다."),
                },
                names[1]: {
                    "en": service("Lock door", "Turns the key."),
                    "de": service("Tür zu", "Dreht um."),
                    "ko": service("문 잠금", "열쇠를 돌립니다."),
                },
            },
        )
        self.program.write_text(FAKE_PIP.format(log=str(self.log), source=str(self.wheel)))

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    served = Registry(tmp_path)
    monkeypatch.setenv("DRDECR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("training.wheels.pip_command", lambda: [sys.executable, str(served.program)])
    return served


def test_everything_written_can_be_read_back(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "data"
    meta = fetch_homeassistant(out, ["de"], registry.release)
    assert meta == read_meta(out)
    assert {passage.text for passage in read_passages(out / "passages.jsonl")} == {
        "Waters one zone.",
        "Turns the key.",
    }
    assert [pair.english for pair in read_pairs(out / "pairs.train.tsv.gz")] == ["Lock door", "Turns the key."]
    assert (out / "pairs" / "de.tsv.gz").read_bytes() == (out / "pairs.train.tsv.gz").read_bytes()
    (german,) = read_queries(out / "queries" / "de.test.tsv")
    (english,) = read_queries(out / "queries" / "en.test.tsv")
    assert german.id == english.id
    assert (german.text, english.text) == ("Zone starten", "Start zone")
    (answer,) = read_qrels(out / "qrels.test.trec")[german.id]
    assert answer in {passage.id for passage in read_passages(out / "demo.passages.jsonl")}
    assert answer not in {passage.id for passage in read_passages(out / "train.passages.jsonl")}
    assert [query.text for query in read_queries(out / "queries" / "de.train.tsv")] == ["Tür zu"]


def test_all_pairs_are_those_of_every_language_one_after_the_other(registry: Registry, tmp_path: Path) -> None:
    fetch_homeassistant(tmp_path, ["ko", "de"], registry.release)
    parts = [pair for lang in ("ko", "de") for pair in read_pairs(tmp_path / "pairs" / f"{lang}.tsv.gz")]
    assert list(read_pairs(tmp_path / "pairs.train.tsv.gz")) == parts
    assert {pair.source for pair in parts} == {"homeassistant.ko", "homeassistant.de"}


def test_the_same_data_give_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    first = fetch_homeassistant(tmp_path / "a", ["de"], registry.release)
    second = fetch_homeassistant(tmp_path / "b", ["de"], registry.release)
    assert first == second


def test_finished_data_are_not_fetched_again(registry: Registry, tmp_path: Path) -> None:
    fetch_homeassistant(tmp_path / "data", ["de"], registry.release)
    shutil.rmtree(tmp_path / "cache")
    fetch_homeassistant(tmp_path / "data", ["de"], registry.release)
    assert len(registry.calls) == 1


def test_a_damaged_file_is_made_again_without_a_second_download(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "data"
    meta = fetch_homeassistant(out, ["de"], registry.release)
    (out / "qrels.test.trec").write_text("cut of")
    assert fetch_homeassistant(out, ["de"], registry.release) == meta
    assert read_qrels(out / "qrels.test.trec")
    assert len(registry.calls) == 1


def test_an_interrupted_run_leaves_nothing_that_looks_finished(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    fetch_homeassistant(out, ["de"], registry.release)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.data.files._pair_line", interrupt)
        (out / "meta.json").unlink()
        with pytest.raises(KeyboardInterrupt):
            fetch_homeassistant(out, ["de"], registry.release)
    with pytest.raises(InputError, match="run `drdecr data fetch` again"):
        read_meta(out)
    assert not list(out.rglob("*.unfinished"))
    fetch_homeassistant(out, ["de"], registry.release)
    assert len(list(read_pairs(out / "pairs.train.tsv.gz"))) == 2


def test_a_broken_download_in_the_cache_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / registry.release.filename).write_bytes(b"half of it")
    fetch_homeassistant(tmp_path / "data", ["de"], registry.release)
    assert len(registry.calls) == 1


def test_another_checksum_is_an_error_and_the_file_goes(registry: Registry, tmp_path: Path) -> None:
    other = pinned("0" * 64)
    with pytest.raises(FetchError, match=r"pinned is 0000.*run the same command again"):
        fetch_homeassistant(tmp_path / "data", ["de"], other)
    assert not (tmp_path / "cache" / other.filename).exists()
    assert not (tmp_path / "data" / "meta.json").exists()


def test_languages_of_an_earlier_run_do_not_stay(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "data"
    (out / "queries").mkdir(parents=True)
    (out / "queries" / "fr.test.tsv").write_text("q\told\n")
    fetch_homeassistant(out, ["de"], registry.release)
    assert not (out / "queries" / "fr.test.tsv").exists()


def test_pip_is_asked_for_the_pinned_wheel_alone(registry: Registry, tmp_path: Path) -> None:
    fetch_homeassistant(tmp_path / "data", ["de"], registry.release)
    (call,) = registry.calls
    for word in ("download", "--no-deps", "--only-binary=:all:", "--python-version=3.14.2", "homeassistant==1.0"):
        assert word in call.split()


def test_full_disk_is_named(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.data.files._pair_line", fail)
    with pytest.raises(ResourceError, match=r"disk of .*data is full"):
        fetch_homeassistant(tmp_path / "data", ["de"], registry.release)
    assert not (tmp_path / "data" / "meta.json").exists()


def test_missing_pip_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="-m ensurepip"):
        clients.pip_command()


def test_missing_apt_names_the_other_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="drdecr data fetch homeassistant"):
        clients.apt_command()


def test_a_client_that_cannot_start_is_a_resource_error(tmp_path: Path) -> None:
    program = tmp_path / "pip"
    program.write_text("no program")
    with pytest.raises(ResourceError, match="cannot start"):
        clients.run_client([str(program)])


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        ("ERROR: Could not find a version that satisfies homeassistant", FetchError, "is the network open"),
        ("E: Failed to fetch x  Temporary failure resolving 'mirror'", FetchError, "is the network open"),
        ("ERROR: [Errno 28] No space left on device", ResourceError, "the disk is full"),
        ("ERROR: something else", FetchError, "something else"),
        ("", FetchError, "exit status 3"),
    ],
)
def test_client_failure_says_why(tmp_path: Path, output: str, error: type[Exception], words: str) -> None:
    found = clients.client_failure("it", ["pip", "download"], clients.Outcome(3, output), tmp_path)
    assert type(found) is error
    assert words in str(found)


def test_passwords_in_addresses_are_not_repeated(tmp_path: Path) -> None:
    outcome = clients.Outcome(1, "ERROR: cannot connect to https://me:secret@mirror/x")
    message = str(clients.client_failure("it", ["pip", "--index-url=https://me:secret@mirror"], outcome, tmp_path))
    assert "secret" not in message


def test_meta_counts_what_was_written(registry: Registry, tmp_path: Path) -> None:
    meta = json.loads(json.dumps(fetch_homeassistant(tmp_path / "data", ["de"], registry.release)))
    assert meta["languages"] == {"de": {"pairs": 2, "train_queries": 1, "test_queries": 1}}
    assert meta["source"]["sha256"] == registry.release.sha256
