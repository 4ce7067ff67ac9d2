"""`drdecr serve`."""

from __future__ import annotations

import os
from pathlib import Path

# Before numpy is imported. Each worker multiplies small matrices on its own: BLAS's threads would only wait for the
# next one with the processor that another worker needs (10 ms of it a query on two cores).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import click

from service.keys import new_key
from service.settings import load_settings


def _print_new_key(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    key, stored = new_key()
    click.echo(f"key of scope {stored.scope} (give it to the client; it is stored nowhere):\n  {key}")
    click.echo(f"hash (give it to the service):\n  DRDECR_API_KEY_HASHES={stored}")
    click.echo(
        "It may only search and read. `drdecr keys create --file keys --scope admin` makes one that may also build"
        " and switch indexes; each line of that file is a hash."
    )
    ctx.exit()


@click.command(
    epilog="Every option but --new-key can also be set as DRDECR_…; the others are in service/settings.py."
)
@click.option("--student", type=click.Path(path_type=Path), help="The student directory, with its onnx/ folder.")
@click.option(
    "--index",
    multiple=True,
    metavar="NAME=SNAPSHOT",
    help="A snapshot and the name to search it by; a bare SNAPSHOT is named after its directory. Repeatable.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A directory of indexes and aliases that clients make, fill, build and switch.",
)
@click.option("--jobs-url", help="With --data: where jobs are kept, if not in DATA/jobs.sqlite (postgresql://…).")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless given.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 8080 unless given, 0 takes a free one.")
@click.option(
    "--threads", type=click.IntRange(1, 1_024), help="Queries worked on at once; one a core, or ten with --ray."
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the API keys that `drdecr keys` makes; requests must then bear one.",
)
@click.option("--ray", metavar="ADDRESS", help="Serve by this Ray cluster: HOST:PORT of its head, or auto.")
@click.option("--shards", type=click.IntRange(1, 10_000), help="With --ray: parts that an index is served in.")
@click.option("--replicas", type=click.IntRange(1, 1_000), help="With --ray: processes a shard; 2 unless given.")
@click.option("--insecure", is_flag=True, default=None, help="Let other machines connect without an API key.")
@click.option(
    "--new-key",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_new_key,
    help="Print a new API key that may search, and its hash, and exit; `drdecr keys create` makes others.",
)
def serve(
    student: Path | None,
    index: tuple[str, ...],
    data: Path | None,
    jobs_url: str | None,
    host: str | None,
    port: int | None,
    threads: int | None,
    keys: Path | None,
    ray: str | None,
    shards: int | None,
    replicas: int | None,
    insecure: bool | None,
) -> None:
    """Start the HTTP service.

    Example: drdecr serve --student demo/student --index demo=demo/snapshot
    """
    settings = load_settings(
        student=student,
        index=index or None,
        data=data,
        jobs_url=jobs_url,
        host=host,
        port=port,
        threads=threads,
        keys=keys,
        ray=ray,
        shards=shards,
        replicas=replicas,
        insecure=insecure,
    )
    from service.process import run

    run(settings)
