"""What the servers of the tests share: a port that stays theirs, and children that do not outlive the test process."""

from __future__ import annotations

import socket


def hold_port() -> socket.socket:
    """A socket bound to a free loopback port, never listening: keep it as long as the port is to be yours.

    While it is open the kernel gives the port to nobody else, neither to a bind to port 0 nor to an outgoing
    connection, yet a server with SO_REUSEADDR (rclone, werkzeug, asyncio) can bind it, be killed, and bind it again.
    While none listens, connections are refused.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def dies_with_us(argv: list[str]) -> list[str]:
    """`argv` that the kernel kills when its parent dies, even of SIGKILL.

    The parent is the *thread* that starts it: do not start a child in a thread that ends before the test does.
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]
