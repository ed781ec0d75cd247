"""Sockets that servers listen on."""

from __future__ import annotations

import socket

from glowsim.live.settings import SettingsError

__all__ = ["address_of", "listening"]


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0: chosen by the system.

    Raises
    ------
    SettingsError
        The address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; give another port, or 0 for any"
        ) from error


def address_of(host: str, where: socket.socket) -> str:
    """Return the URL of a socket that listens.

    >>> with listening("127.0.0.1", 0) as where:
    ...     address_of("127.0.0.1", where).startswith("http://127.0.0.1:")
    True
    """
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{where.getsockname()[1]}"
