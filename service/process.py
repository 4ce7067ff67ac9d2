"""Runs the service as a process: takes the port, serves, and stops without losing a request."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn

from drdecr.errors import ResourceError
from service.app import create_server
from service.engine import EngineLoader, load_engine
from service.logs import configure_logs
from service.readiness import Readiness
from service.settings import Settings
from service.threads import any_left

log = structlog.get_logger("service.process")
_BACKLOG = 1_024
# How long a worker thread may keep the interpreter while the event loop waits for it, in seconds. With Python's own
# .005 the 99th percentile under 150 searches a second was 154 to 161 ms, with this 102 to 104 (two cores, in turns,
# benchmarks/http_load.py).
_SWITCH_S = 0.0005


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: ResourceError for a port that cannot be had; whatever made the engine fail to load.
    """
    configure_logs(settings.log_level)
    sys.setswitchinterval(_SWITCH_S)
    listener = listen(settings.host, settings.port)
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_server(settings, load=_loader(settings), on_failure=stop)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = DrainingServer(config, app.state.service.readiness, settings.drain_s)
    log.info("listening", url=_url(listener))
    server.run(sockets=[listener])
    if failures:
        raise failures[0]
    log.info("stopped")
    if any_left():
        _leave()


def _leave() -> None:
    """End the process with 0, whatever its threads do.

    At its own end the interpreter closes the snapshots that they read, and breaks them off inside ONNX Runtime, which
    aborts (status 134).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _loader(settings: Settings) -> EngineLoader:
    """Return what loads the engine; a service without a cluster never imports what speaks to one."""
    if settings.ray is None:
        return load_engine
    from service.cluster.serve import load_cluster_engine

    return load_cluster_engine


class DrainingServer(uvicorn.Server):
    """On SIGTERM fails readiness first, so that load balancers turn away, and stops after the drain window.

    Ctrl-C, or a second signal, skips the window; a second Ctrl-C drops the requests in flight.
    """

    def __init__(self, config: uvicorn.Config, readiness: Readiness, drain_s: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._drain_s = drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal. uvicorn would raise it again at the end; a service that stopped well exits with 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        if sig == signal.SIGINT or self._readiness.draining or not self._drain_s:
            self._readiness.drain()
            self.should_exit = True
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_drain, self._loop)

    def _begin_drain(self, loop: asyncio.AbstractEventLoop) -> None:
        self._readiness.drain()
        log.info("draining", seconds=self._drain_s)
        loop.call_later(self._drain_s, self._finish_drain)

    def _finish_drain(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises: ResourceError, one line with the remedy."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"the host {host!r} has no address ({reason}); check --host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ResourceError(f"cannot listen on {host} port {port}: {_reason(error)}") from None
    return listener


def _reason(error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "the port is in use; stop the other program or choose another with --port",
        errno.EACCES: "this user may not open the port; choose one above 1023 with --port",
        errno.EADDRNOTAVAIL: "the address is not of this machine; check --host",
    }
    return reasons.get(error.errno or 0, error.strerror or str(error))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
