"""A mirror of Debian packages, made in the test: apt's programs are scripts that serve what lies in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APT = """\
import os, pathlib, shutil, sys
served, words = pathlib.Path(os.environ["SERVED"]), sys.argv[1:]
with open(served / "calls.log", "a") as log:
    log.write(" ".join([pathlib.Path(sys.argv[0]).name, *words]) + "\\n")
if os.environ.get("APT_MODE") == "closed" and "pkgnames" not in words:
    print("W: Failed to fetch http://mirror/debian/dists/test/InRelease  Temporary failure resolving 'mirror'")
    sys.exit(0 if "update" in words else 100)
packages = {path.name.split("_")[0]: path for path in sorted(served.glob("*.deb"), key=os.path.getmtime)}
if "pkgnames" in words and os.environ.get("APT_MODE") != "closed":
    print("\\n".join(packages))
if "dump" in words:
    print('Acquire::IndexTargets::deb::Packages "";')
    print('Acquire::IndexTargets::deb::Translations::MetaKey "x";')
if "download" in words:
    here = pathlib.Path.cwd()
    for path in (packages[word] for word in words[words.index("download") + 1 :] if word in packages):
        if "--print-uris" not in words:
            shutil.copy(path, here)
        elif not (here / path.name).exists():
            print(f"'http://mirror/{path.name}' {path.name} 1 SHA256:0")
"""


class Mirror:
    """A mirror in `folder`: programs in `folder`/bin, which a test puts first in PATH, packages in `folder`/served.

    The programs read SERVED (that folder) and APT_MODE (`closed`: no network) from the environment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = folder / "served"
        self.programs = folder / "bin"
        for place in (self.served, self.programs):
            place.mkdir()
        for name in ("apt-get", "apt-cache", "apt-config"):
            (self.programs / name).write_text(f"#!{sys.executable}\n{APT}")
            (self.programs / name).chmod(0o755)

    def package(
        self, name: str, files: dict[str, bytes], version: str = "1", links: dict[str, str] | None = None
    ) -> None:
        """Serve a package of files and links; its latest version made here is the one that the programs offer."""
        root = self.folder / f"{name}-{version}-root"
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        for path, target in (links or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: Nobody <n@example.org>\nDescription: made\n"
        )
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", str(root), str(self.served / f"{name}_{version}_all.deb")],
            check=True,
            capture_output=True,
        )

    @property
    def calls(self) -> list[str]:
        return (self.served / "calls.log").read_text().splitlines()


def compiled(translations: dict[str, str]) -> bytes:
    """Return a gettext file (GNU gettext's manual, "The Format of GNU MO Files")."""
    rows = [("", "Content-Type: text/plain; charset=UTF-8\n"), *sorted(translations.items())]
    keys, values = ([one.encode() for one in side] for side in zip(*rows, strict=True))
    start = 28 + 16 * len(rows)
    tables = b""
    for some in (keys, values):
        for one in some:
            tables += len(one).to_bytes(4, "little") + start.to_bytes(4, "little")
            start += len(one) + 1
    head = b"".join(n.to_bytes(4, "little") for n in (0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0))
    return head + tables + b"".join(one + b"\0" for one in (*keys, *values))
