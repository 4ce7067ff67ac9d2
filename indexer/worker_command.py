"""`drdecr worker`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click
import structlog

from drdecr.collections.directory import DataDirectory
from drdecr.collections.jobs import jobs_url
from drdecr.encoder.load import load_encoder
from indexer.worker import Retries, Worker


@click.command(epilog="Every option can also be set as DRDECR_….")
@click.option("--student", type=click.Path(path_type=Path), required=True, envvar="DRDECR_STUDENT")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    envvar="DRDECR_DATA",
    help="The data directory that the service has.",
)
@click.option(
    "--jobs-url",
    "database",
    envvar="DRDECR_JOBS_URL",
    help="Where jobs are kept, if not in DATA/jobs.sqlite (postgresql://…).",
)
@click.option("--threads", type=click.IntRange(1, 1_024), envvar="DRDECR_THREADS", help="Threads of the encoder.")
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    default=6,
    show_default=True,
    envvar="DRDECR_ATTEMPTS",
    help="How often a step is tried when the disk is full or a file is busy; each wait is twice as long.",
)
def worker(student: Path, data: Path, database: str | None, threads: int | None, attempts: int) -> None:
    """Run the builds that clients of the service ask for. Any number of workers may run at once.

    Example: drdecr worker --student demo/student --data data
    """
    _configure_logs()
    encoder = load_encoder(student, threads=threads, backend="onnx")
    directory = DataDirectory(data)
    running = Worker(directory, encoder, jobs_url(data, database), Retries(attempts))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop.set())
    running.run()
    sys.stderr.flush()
    # Not by an exit that waits for, or fails, the job in hand: another worker goes on with it.
    os._exit(0)


def _configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
