import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from drdecr import progress
from drdecr.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def lines_at_once(patch: pytest.MonkeyPatch) -> Iterator[None]:
    with patch.context() as within:
        within.setattr(progress, "LINE_EVERY_S", 0.0)
        yield


def test_log_gets_whole_lines_with_figures_and_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lines_at_once(monkeypatch), ProgressBar("short", 4, "steps") as bar:
        bar.advance(1)
        bar.note("loss 2.115")
        bar.advance(2)
    first, *others = [line for line in capsys.readouterr().err.split("\n") if not line.startswith("short: 0 of")]
    assert re.fullmatch(r"short: 1 of 4 steps after 00:0\d, \d\d:\d\d left", first)
    assert re.fullmatch(r"short: 3 of 4 steps after 00:0\d, \d\d:\d\d left, loss 2.115", others[0])
    assert others[1:] == [""]


def test_log_tells_no_time_where_nobody_knows_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lines_at_once(monkeypatch), ProgressBar("Reading", None, "passages") as bar:
        bar.advance(7)
    assert re.search(r"^Reading: 7 passages after 00:0\d$", capsys.readouterr().err, re.MULTILINE)


def test_short_work_leaves_a_log_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("short", 4, "steps") as bar:
        for _ in range(4):
            bar.advance(1)
            bar.note("loss 2.115")
    assert capsys.readouterr().err == ""


def test_time_that_is_left_does_not_count_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lines_at_once(monkeypatch), ProgressBar("short", 1200, "steps", done=600) as bar:
        time.sleep(0.1)
        bar.advance(1)
    found = re.search(r"601 of 1200 steps after \S+, (?:(\d+):)?(\d\d):(\d\d) left", capsys.readouterr().err)
    assert found is not None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    # At least a tenth of a second for each of the 599 that are left.
    assert 3600 * hours + 60 * minutes + seconds >= 59


@pytest.mark.parametrize("keep", [True, False])
def test_terminal_redraws_one_line(monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ProgressBar("Encoding", 2, "texts", keep=keep) as bar:
        bar.advance(2)
    drawn = terminal.getvalue()
    assert drawn.startswith("\rEncoding:   0%|")
    assert drawn.count("\n") == (1 if keep else 0)
    assert ("2/2" in drawn) == keep
