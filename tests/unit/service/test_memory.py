"""What the start touched is given back, and nothing that is needed is lost."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from service.memory import untouched_mappings

SMAPS = """\
7f0000000000-7f0000001000 r--p 00000000 fe:00 11   /usr/lib/libone.so.6.0.30
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000003000 r-xp 00001000 fe:00 11   /usr/lib/libone.so.6.0.30
Anonymous:             0 kB
7f0000003000-7f0000004000 r--p 00003000 fe:00 11   /usr/lib/libone.so.6.0.30
Anonymous:             4 kB
7f0000004000-7f0000005000 rw-p 00004000 fe:00 11   /usr/lib/libone.so.6.0.30
Anonymous:             0 kB
7f0000005000-7f0000006000 r--s 00000000 fe:00 12   /data/codes.npy
Anonymous:             0 kB
7f0000006000-7f0000007000 r--p 00000000 fe:00 13   /etc/ld.so.cache
Anonymous:             0 kB
7f0000007000-7f0000008000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
"""

PROGRAM = """
import json, re
import llvmlite.binding, numpy as np
from service.memory import give_back_start

def resident():
    status = open("/proc/self/status").read()
    return [int(re.search(rf"{name}:\\s+(\\d+)", status)[1]) for name in ("RssFile", "RssAnon")]

llvmlite.binding.initialize_native_target()
pieces = [bytes(1000) for _ in range(50_000)]
kept = pieces[::500]
del pieces
before = resident()
give_back_start()
after = resident()
llvmlite.binding.parse_assembly("define i32 @f() { ret i32 7 }").verify()
print(json.dumps([before, after, float(np.linalg.norm(np.ones((3, 3)) @ np.ones(3))), len(kept)]))
"""


def test_only_libraries_that_are_as_on_disk_are_given_back() -> None:
    assert list(untouched_mappings(SMAPS)) == [(0x7F0000000000, 0x1000), (0x7F0000001000, 0x2000)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_start_is_given_back_and_libraries_still_work() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    (files, anonymous), (files_after, anonymous_after), norm, kept = json.loads(answer.stdout)
    assert files_after < 0.7 * files
    assert anonymous_after < anonymous - 30_000
    assert (norm, kept) == (pytest.approx(27**0.5), 100)
