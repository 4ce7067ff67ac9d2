"""A port for a program that does not choose one itself."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to outgoing connections, which may take any of theirs before the program does.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
