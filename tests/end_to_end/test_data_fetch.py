"""`drdecr data fetch`, as a program, with clients of our own on PATH in place of pip and apt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from service_process import WAIT_S

from drdecr.corpus import read_pairs, read_passages, read_qrels, read_queries

APT_CONFIG = """\
print('Acquire::IndexTargets "";')
print('Acquire::IndexTargets::deb::Packages "";')
print('Acquire::IndexTargets::deb::Translations::MetaKey "x";')
print('Acquire::IndexTargets::deb::DEP-11::MetaKey "x";')
print('Acquire::IndexTargets::deb-src::Sources::MetaKey "x";')
"""

APT_GET = """\
import os, pathlib, re, shutil, sys, time
served, mode = pathlib.Path(os.environ["SERVED"]), os.environ.get("APT_MODE", "")
words = sys.argv[1:]
options = dict(word.partition("=")[::2] for word in words if "=" in word and "::" in word)
lists = pathlib.Path(options["Dir::State::Lists"])
codes = re.findall('"([^";]+)";', pathlib.Path(words[1]).read_text().split("Acquire::Languages {")[1])
if "indextargets" in words:
    for path in sorted(lists.glob("*Translation-*")):
        code = path.name.rpartition("-")[2]
        print(f"Translations|{code}|http://mirror/debian/|Debian test|{path}")
    sys.exit(0)
with open(served / "calls.log", "a") as log:
    log.write(" ".join(words) + "\\n")
if mode == "closed":
    print("W: Failed to fetch http://mirror/debian/dists/test/InRelease  Temporary failure resolving 'mirror'")
    print("E: Some index files failed to download.")
    sys.exit(100)
if mode == "slow":
    (served / "started").touch()
    time.sleep(60)
for code in codes:
    name = f"mirror_debian_dists_test_main_i18n_Translation-{code}"
    if mode == "half" and code != "en":
        print(f"W: Failed to fetch http://mirror/debian/dists/test/main/i18n/Translation-{code}  Connection reset")
        print(f"E: Failed to fetch http://mirror/debian/dists/test/main/i18n/Translation-{code}")
        (lists / name.replace(code, "ko")).write_bytes((served / "ko").read_bytes())
    elif (served / code).exists():
        shutil.copy(served / code, lists / name)
if mode == "third-party":
    print("E: Failed to fetch http://elsewhere/repo/dists/x/InRelease  Connection refused")
    sys.exit(100)
if mode == "full":
    print("E: Write error - write (28: No space left on device)")
    sys.exit(100)
"""

PIP = """\
import os, pathlib, sys
mode = os.environ["PIP_MODE"]
if mode == "closed":
    sys.exit("ERROR: Could not find a version that satisfies the requirement homeassistant (from versions: none)")
if mode == "full":
    sys.exit("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device")
dest = next(word[7:] for word in sys.argv if word.startswith("--dest="))
version = sys.argv[-1].partition("==")[2]
(pathlib.Path(dest) / f"homeassistant-{version}-py3-none-any.whl").write_bytes(b"not what was pinned")
"""


class Machine:
    """A directory with the fake clients and what they serve, and the environment that leads to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = folder / "served"
        self.programs = folder / "bin"
        for place in (self.served, self.programs, folder / "python" / "pip"):
            place.mkdir(parents=True)
        for name, code in (("apt-get", APT_GET), ("apt-config", APT_CONFIG)):
            program = self.programs / name
            program.write_text(f"#!{sys.executable}\n{code}")
            program.chmod(0o755)
        (folder / "python" / "pip" / "__init__.py").touch()
        (folder / "python" / "pip" / "__main__.py").write_text(PIP)
        for code, word in (("en", ""), ("ja", "道具"), ("ko", "도구")):
            (self.served / code).write_text("\n".join(self.stanza(number, code, word) for number in range(40)))

    @staticmethod
    def stanza(number: int, code: str, word: str) -> str:
        synopsis = f"{word} {number}" if word else f"tool {number}"
        return (
            f"Package: pkg{number:02}\nDescription-md5: {number:032}\nDescription-{code}: {synopsis}\n"
            f" {word} This is number {number}.\n .\n {word} It also does {number}.\n"
        )

    @property
    def calls(self) -> list[str]:
        log = self.served / "calls.log"
        return log.read_text().splitlines() if log.exists() else []

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", "from drdecr.cli import main; main()", "data", "fetch", *words]

    def environment(self, **extra: str) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "python"),
            "DRDECR_CACHE": str(self.folder / "cache"),
            "SERVED": str(self.served),
            **extra,
        }

    def fetch(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def debian(machine: Machine, languages: str = "ja,ko") -> Sequence[str]:
    return ("debian", "--out", str(machine.folder / "data"), "--languages", languages)


def assert_failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("drdecr: ")
    for word in words:
        assert word in line


def test_debian_is_fetched_split_and_told(machine: Machine) -> None:
    done = machine.fetch(*debian(machine), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    meta = json.loads(done.stdout)
    out = machine.folder / "data"
    passages = {passage.id: passage for passage in read_passages(out / "passages.jsonl")}
    assert len(passages) == meta["passages"] == 40
    assert passages["pkg07"].text == "This is number 7.\n\nIt also does 7."
    judgments = read_qrels(out / "qrels.test.trec")
    queries = {query.id: query.text for query in read_queries(out / "queries" / "ja.test.tsv")}
    assert queries.keys() == judgments.keys()
    assert len(queries) == meta["languages"]["ja"]["test_queries"] > 0
    held_out = {passages[answer].text for answers in judgments.values() for answer in answers}
    learnt = {pair.english for pair in read_pairs(out / "pairs.train.tsv.gz")}
    assert len(learnt) > 40
    assert not learnt & {paragraph for text in held_out for paragraph in text.split("\n\n")}


def test_debian_keeps_to_its_directory_and_to_translations(machine: Machine) -> None:
    assert machine.fetch(*debian(machine)).returncode == 0
    (call,) = machine.calls
    private = (machine.folder / "data" / "cache" / "apt").resolve()
    for option in (
        f"Dir::State={private}",
        f"Dir::State::Lists={private / 'lists'}",
        f"Dir::Cache={private / 'cache'}",
    ):
        assert option in call
    settings = (private / "apt.conf").read_text()
    for target in ("deb::Packages", "deb::DEP-11", "deb-src::Sources"):
        assert f'Acquire::IndexTargets::{target}::DefaultEnabled "false";' in settings
    assert "Translations::DefaultEnabled" not in settings
    assert "#clear APT::Update::Post-Invoke;" in settings


def test_second_run_needs_no_network(machine: Machine) -> None:
    first = machine.fetch(*debian(machine))
    second = machine.fetch(*debian(machine), APT_MODE="closed")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert len(machine.calls) == 1


def test_failing_third_party_source_does_no_harm(machine: Machine) -> None:
    done = machine.fetch(*debian(machine), APT_MODE="third-party")
    assert done.returncode == 0, done.stderr


def test_language_that_the_mirror_lacks_is_told_and_left_out(machine: Machine) -> None:
    done = machine.fetch(*debian(machine, "ja,tr"), "--json")
    meta = json.loads(done.stdout)
    assert meta["languages_without_data"] == ["tr"]
    assert list(meta["languages"]) == ["ja"]


def test_mirror_without_any_of_the_languages_is_bad_usage(machine: Machine) -> None:
    done = machine.fetch(*debian(machine, "tr"))
    assert done.returncode == 2
    assert "no translations into tr" in done.stderr


def test_closed_network_names_the_command_to_try(machine: Machine) -> None:
    assert_failed(machine.fetch(*debian(machine), APT_MODE="closed"), "is the network open", "apt-get", "update")
    assert machine.fetch(*debian(machine)).returncode == 0


def test_download_that_breaks_half_way_is_not_taken_for_finished(machine: Machine) -> None:
    assert_failed(machine.fetch(*debian(machine, "ja"), APT_MODE="half"), "Failed to fetch")
    assert not (machine.folder / "data" / "meta.json").exists()
    assert machine.fetch(*debian(machine, "ja")).returncode == 0


def test_full_disk_is_named(machine: Machine) -> None:
    (machine.served / "ja").unlink()
    (machine.served / "ko").unlink()
    assert_failed(machine.fetch(*debian(machine), APT_MODE="full"), "the disk is full")


def test_machine_without_apt_is_sent_to_the_other_data(machine: Machine) -> None:
    done = machine.fetch(*debian(machine), PATH=str(machine.folder / "nothing"))
    assert_failed(done, "apt-config is missing", "drdecr data fetch homeassistant")


def test_interrupted_fetch_is_continued_by_the_next(machine: Machine) -> None:
    with subprocess.Popen(
        machine.command(*debian(machine)),
        env=machine.environment(APT_MODE="slow"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not (machine.served / "started").exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, words = running.communicate(timeout=WAIT_S)
    assert (running.returncode, words.strip()) == (130, "drdecr: interrupted")
    assert not (machine.folder / "data" / "meta.json").exists()
    assert machine.fetch(*debian(machine)).returncode == 0


def homeassistant(machine: Machine, mode: str) -> subprocess.CompletedProcess[str]:
    return machine.fetch("homeassistant", "--out", str(machine.folder / "data"), PIP_MODE=mode)


def test_pip_without_network_names_the_command_to_try(machine: Machine) -> None:
    assert_failed(homeassistant(machine, "closed"), "is the network open", "-m pip download --no-deps")


def test_pip_on_a_full_disk_is_told(machine: Machine) -> None:
    assert_failed(homeassistant(machine, "full"), "the disk is full")


def test_wheel_with_another_checksum_is_refused(machine: Machine) -> None:
    assert_failed(homeassistant(machine, "wrong"), "has the SHA-256", "run the same command again")
    assert not list(machine.folder.rglob("*.whl"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--out", "x"], "is not one of"),
        (["homeassistant"], "--out"),
        (["homeassistant", "--out", "x", "--languages", "English"], "is no language code"),
    ],
)
def test_bad_usage_exits_with_2(machine: Machine, words: list[str], message: str) -> None:
    done = machine.fetch(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
