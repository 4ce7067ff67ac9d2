"""Apertium, a rule-based translator: the real program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from drdecr.corpus import Query
from drdecr.errors import ResourceError, UsageError


class Apertium:
    """Translates by one pair of languages, such as `spa-eng`; words that it does not know stay as they are.

    Every call runs the program once, on a line a query: it does not answer before its input ends.
    """

    is_human = False

    def __init__(self, pair: str) -> None:
        """Look for the program. Raises: ResourceError where it is not installed, UsageError for a pair it lacks."""
        self.name = f"apertium {pair}"
        self._pair = pair
        if shutil.which("apertium") is None:
            raise ResourceError("apertium is not installed; on Debian: apt-get install apertium apertium-eng-spa")
        listed = subprocess.run(["apertium", "-l"], capture_output=True, text=True, check=False).stdout.split()
        if pair not in listed:
            raise UsageError(f"apertium has no pair {pair}; installed are {', '.join(sorted(listed)) or 'none'}")

    def translate(self, queries: Sequence[Query]) -> list[str]:
        """Translate queries. Raises: ResourceError where the program fails."""
        lines = "".join(" ".join(query.text.split()) + "\n" for query in queries)
        # A line is a text; unknown words get no mark, texts no full stop.
        command = ["apertium", "-u", "-n", "-f", "line", self._pair]
        done = subprocess.run(command, input=lines.encode("utf-8", "replace"), capture_output=True, check=False)
        found = done.stdout.decode("utf-8", "replace").split("\n")[: len(queries)]
        if done.returncode or len(found) < len(queries):
            said = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
            raise ResourceError(
                f"{self.name} gave {len(found)} translations of {len(queries)} (status {done.returncode}): {said}"
            )
        return [text.strip() for text in found]
