"""Carry out the Dockerfile's own steps in directories, where no Docker engine runs, and prove what they make.

Reads the Dockerfile and docker-compose.yml and does what they say with `debootstrap` and `chroot`: every RUN, COPY,
ENV, USER and WORKDIR of the target `cpu`. A fresh Debian with its own Python 3.11 stands for
`python:3.11-slim-bookworm`. Then, as the compose file says, the root is mounted read-only with an empty /tmp:

1. the service `demo` makes the demo's index in a new directory;
2. the image's command serves it as the image's user, without capabilities, until its HEALTHCHECK passes;
3. a search in Japanese is answered, a write to the root fails, SIGTERM ends with status 0.

Needs root, Linux, the network that pip and apt need, and 4 GB. `--bind` names paths of this machine that its pip's
configuration points to. About five minutes.

Example: sudo python deploy/prove_image.py --work /var/tmp/image
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TARGET = "cpu"
PORT = 18081
HEALTHY_S, DRAIN_S = 90, 60
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"


@dataclass
class Image:
    """A root directory and what the Dockerfile said about running it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    workdir: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, comments and line ends taken away."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()
    ]


class Builder:
    """Builds the stages that a target needs, each a directory beside the others."""

    def __init__(self, work: Path, binds: list[str]) -> None:
        self.work, self.binds = work, binds
        self.images: dict[str, Image] = {}

    def base(self) -> Path:
        place = self.work / "base"
        if not place.is_dir():
            partial = self.work / "base.partial"
            shutil.rmtree(partial, ignore_errors=True)
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(partial))
            partial.rename(place)
        return place

    def build(self, target: str) -> Image:
        found = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
        stages: dict[str, list[tuple[str, str]]] = {}
        parents: dict[str, str] = {}
        arguments: dict[str, str] = {}
        name = ""
        for word, rest in found:
            if word == "FROM":
                parent, _, name = rest.partition(" AS ")
                stages[name], parents[name] = [], parent.strip()
            elif not name:
                arguments.update([rest.split("=", 1)])
            else:
                stages[name].append((word, rest))
        return self._stage(target, stages, parents, arguments)

    def _stage(self, name: str, stages: Any, parents: dict[str, str], arguments: dict[str, str]) -> Image:
        if name in self.images:
            return self.images[name]
        parent = parents[name]
        root = self.work / f"stage-{name}"
        shutil.rmtree(root, ignore_errors=True)
        if parent in stages:
            before = self._stage(parent, stages, parents, arguments)
            image = Image(root, dict(before.env), before.workdir, before.user, list(before.entrypoint))
            origin = before.root
        else:
            say(f"{parent} is a fresh Debian here")
            image, origin = Image(root), self.base()
        run("cp", "-a", "--reflink=auto", str(origin), str(root))
        own = dict(arguments)
        for word, rest in stages[name]:
            self._do(image, word, rest, own, lambda other: self._stage(other, stages, parents, arguments))
        self.images[name] = image
        return image

    def _do(self, image: Image, word: str, rest: str, arguments: dict[str, str], stage: Any) -> None:
        say(f"{image.root.name}: {word} {rest[:100]}")
        if word == "ARG":
            key, _, value = rest.partition("=")
            arguments[key] = value.strip('"')
        elif word == "ENV":
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                image.env[key] = re.sub(r"\$\{?(\w+)\}?", lambda found: image.env.get(found[1], ""), value)
        elif word == "WORKDIR":
            image.workdir = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        elif word == "CMD":
            image.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            image.healthcheck = json.loads(rest[rest.index("CMD") + 3 :])
        elif word == "RUN":
            command = re.sub(r"^(--\S+\s+)+", "", rest)
            inside(image, ["/bin/sh", "-c", command], binds=self.binds, env=arguments, check=True)
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            context = ROOT
            if sources[0].startswith("--from="):
                context = stage(sources.pop(0).partition("=")[2]).root
            else:
                forbid_ignored(sources)
            into = image.root / str(Path(image.workdir) / target).lstrip("/")
            for source in sources:
                copy(context / source.lstrip("/"), into, many=target.endswith("/") or target == ".")
        elif word != "EXPOSE":
            sys.exit(f"the Dockerfile says {word}, which is not known here")


def forbid_ignored(sources: list[str]) -> None:
    """End where .dockerignore keeps a source out of the build."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    if ignored := [source for source in sources if source.split("/")[0] not in allowed]:
        sys.exit(f".dockerignore keeps {ignored[0]} out of the build")


def copy(source: Path, into: Path, *, many: bool) -> None:
    """Copy a file to a path or into a directory, or what a directory holds, as COPY does."""
    if source.is_dir():
        shutil.copytree(source, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, into / source.name if many else into)


def script(image: Image, command: list[str], *, binds: list[str], read_only: bool, user: str, caps: list[str]) -> str:
    """Return a shell script that mounts what a container has, in mounts of its own, and becomes the command."""
    root = shlex.quote(str(image.root))
    lines = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
    for each in ("null", "zero", "random", "urandom"):
        lines += [f"touch {root}/dev/{each}", f"mount --bind /dev/{each} {root}/dev/{each}"]
    for bind in binds:
        origin, _, target = bind.partition(":")
        place = shlex.quote(str(image.root / (target or origin).lstrip("/")))
        make = f"mkdir -p {place}" if Path(origin).is_dir() else f"mkdir -p $(dirname {place}); touch {place}"
        lines += [make, f"mount --bind {shlex.quote(origin)} {place}"]
    if read_only:
        lines += [f"mount -o remount,bind,ro {root}", f"mount -t tmpfs tmpfs {root}/tmp"]
    kept = "-all" + "".join(f",+{cap.lower()}" for cap in caps)
    inner = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--bounding-set={kept}"]
    inner += [f"--inh-caps={kept}", "--no-new-privs"] if read_only else []
    lines.append(f"cd {root}")
    go = f"cd {shlex.quote(image.workdir)} && exec {shlex.join([*inner, *command])}"
    lines.append(f"exec chroot {root} /bin/sh -c {shlex.quote(go)}")
    return "\n".join(lines)


def inside(
    image: Image,
    command: list[str],
    *,
    binds: list[str],
    env: dict[str, str],
    check: bool = False,
    read_only: bool = False,
    user: str | None = None,
    caps: list[str] | None = None,
    wait: bool = True,
) -> Any:
    """Run a command in an image; return its process, or its exit status with `wait`."""
    all_caps = [
        "chown",
        "dac_override",
        "fowner",
        "setgid",
        "setuid",
        "sys_chroot",
        "fsetid",
        "setfcap",
        "net_raw",
        "kill",
    ]
    own = script(
        image,
        command,
        binds=binds,
        read_only=read_only,
        user=user or image.user,
        caps=all_caps if caps is None else caps,
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "/bin/sh", "-c", own], env={**image.env, "HOME": "/tmp", **pip_settings(), **env}
    )
    if not wait:
        return process
    if process.wait() and check:
        sys.exit(f"{shlex.join(command)[:200]}: status {process.returncode}")
    return process.returncode


def pip_settings() -> dict[str, str]:
    """Return how this machine's pip is told where packages come from."""
    return {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_CERT", "HTTPS_PROXY"))}


def run(*command: str) -> None:
    """Run a program of this machine, or end with its failure."""
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: status {done.returncode}")


def say(line: str) -> None:
    print(line, flush=True)


def prove(image: Image, work: Path, binds: list[str]) -> None:
    """Make the demo, serve it, ask it, stop it; as the compose file says."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    demo, serving = services["demo"], services["service"]
    data, indexes = work / "data", work / "indexes"
    for place in (data, indexes):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    os.chown(indexes, int(image.user), int(image.user))
    mounted = [f"{data}:/data", f"{indexes}:/indexes"]
    started = time.perf_counter()
    inside(
        image,
        [*image.entrypoint, *demo["command"]],
        binds=[*binds, mounted[0]],
        env=demo["environment"],
        user=demo["user"],
        caps=demo["cap_add"],
        read_only=demo["read_only"],
        check=True,
    )
    say(f"OK  the demo's index was made in {time.perf_counter() - started:.0f} s")
    env = {"DRDECR_PORT": str(PORT), "DRDECR_DATA": "/indexes", "DRDECR_INSECURE": "true"}
    rules: dict[str, Any] = {"binds": [*binds, *mounted], "env": env, "read_only": serving["read_only"], "caps": []}
    started = time.perf_counter()
    service = inside(image, [*image.entrypoint, *image.command], **rules, wait=False)
    try:
        while inside(image, image.healthcheck, **rules):
            if service.poll() is not None or time.perf_counter() - started > HEALTHY_S:
                sys.exit("the service did not become healthy")
            time.sleep(0.5)
        say(f"OK  healthy after {time.perf_counter() - started:.1f} s")
        asked = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v1/indexes/demo/search",
            json.dumps({"query": "画像を編集するプログラム", "k": 3}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            hits = json.load(answer)["hits"]
        assert len(hits) == 3, hits
        say(f"OK  a search is answered: {', '.join(hit['id'] for hit in hits)}")
        assert inside(image, ["/bin/sh", "-c", "id -u; ! touch /opt/x"], **rules) == 0
        say("OK  the root cannot be written")
        service.send_signal(signal.SIGTERM)
        assert service.wait(DRAIN_S) == 0, service.returncode
        say("OK  SIGTERM ends it with status 0")
    finally:
        if service.poll() is None:
            service.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bind", action="append", default=[], help="a path of this machine that the steps may read")
    options = parser.parse_args()
    if os.getuid():
        parser.error("needs root: chroot, mounts and other users")
    options.work.mkdir(parents=True, exist_ok=True)
    work = options.work.resolve()
    binds = ["/etc/resolv.conf", "/etc/hosts", *options.bind]
    image = Builder(work, binds).build(TARGET)
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"OK  the target {TARGET} is built, {size / 1e6:.0f} MB with its Debian")
    prove(image, work, binds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
