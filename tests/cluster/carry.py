"""Bytes over one TCP connection, to see how fast a link is: a program for the hosts, of the standard library alone.

python carry.py receive PORT          prints the bytes per second that came in, from the first quarter on
python carry.py send HOST PORT BYTES
"""

from __future__ import annotations

import socket
import sys
import time

BLOCK = 1 << 16


def receive(port: int) -> float:
    """Accept one connection; bytes per second of all that came after its first quarter of a megabyte: a bucket starts full."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
    with connection:
        skipped = counted = 0
        begin = 0.0
        while got := len(connection.recv(BLOCK)):
            if skipped < 1 << 18:
                skipped += got
                begin = time.monotonic()
            else:
                counted += got
        return counted / (time.monotonic() - begin)


def send(host: str, port: int, size: int) -> None:
    """Zeros."""
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(bytes(size))


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        print(receive(int(sys.argv[2])))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
