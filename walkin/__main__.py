"""The front desk's switch: settings, keys, application, server.

Runs in: front desk (`python -m walkin`). The listening socket comes as a descriptor from
`walkin serve` or from systemd (sd_listen_fds(3)).
"""

import argparse
import ctypes
import functools
import logging
import os
import resource
import socket
import sys

import uvicorn
from setproctitle import setproctitle

from sandbox import logs
from sandbox.settings import SettingsError
from walkin import keys, settings
from walkin.app import build
from walkin.connection import Connection
from walkin.crowd import Crowd, most_connections
from walkin.ledger import Ledger
from walkin.tokens import Seal

log = logging.getLogger("walkin.front")

EXIT_SETTINGS = 2
_PR_SET_DUMPABLE = 4
#: What the kernel keeps of what one caller sends ahead, and so what one read can bring; and what it
#: keeps of answers that the caller does not take (it doubles both numbers, socket(7)). Left alone
#: each is megabytes, and in nobody's count. What is kept of an answer must be more than a segment:
#: on the loopback that is 64 KiB, and a single one is acknowledged 40 ms later (RFC 1122, section
#: 4.2.3.2), which would make a megabyte take most of a second.
_RECEIVE_BYTES = 16_384
_SEND_BYTES = 65_536


def main() -> int:
    """Be a front desk; return its exit status."""
    # uvicorn warns of each request that is not HTTP: anybody could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(prog="python -m walkin", description=__doc__)
    parser.add_argument("--listen-fd", type=int, default=3)
    parser.add_argument("--metrics-fd", type=int, help="a listening socket for GET /metrics")
    given = parser.parse_args()
    setproctitle("walkin: front desk")
    try:
        chosen = settings.from_environ(os.environ)
        token_keys = keys.load(chosen)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return EXIT_SETTINGS
    except keys.KeysError as error:
        print(error, file=sys.stderr)
        return EXIT_SETTINGS
    writer = logs.begin(chosen.log_format, logging.INFO)
    _hide_memory()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = most_connections(chosen.max_connections, hard, chosen.max_live_cells)
    listener = socket.socket(fileno=given.listen_fd)
    sockets = [listener]
    metrics_port = 0
    if given.metrics_fd is not None:
        sockets.append(socket.socket(fileno=given.metrics_fd))
        metrics_port = sockets[-1].getsockname()[1]
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    if most < chosen.max_connections:
        log.warning("at most %d connections: there are only %d descriptors", most, hard)
    crowd = Crowd(most)
    ledger = Ledger(writer if chosen.log_calls == "yes" else None, chosen.log_format)
    server = uvicorn.Server(
        uvicorn.Config(
            build(chosen, Seal(token_keys), ledger, crowd, metrics_port),
            loop="uvloop",
            # A class is asked for and only ever called.
            http=functools.partial(  # type: ignore[arg-type]
                Connection, crowd=crowd, ledger=ledger, trusted=chosen.trusted_proxies
            ),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            # Forwarded addresses are judged in addresses.py, by configured proxies alone.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=chosen.drain_s,
        )
    )
    server.run(sockets=sockets)
    return 0 if server.started else 1


def _hide_memory() -> None:
    """Close memory and environment, where the keys are, to other processes of the same user.

    PR_SET_DUMPABLE 0, prctl(2): /proc/<pid>/mem and environ then belong to root.
    """
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_DUMPABLE)")


if __name__ == "__main__":
    sys.exit(main())
