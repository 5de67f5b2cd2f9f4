"""How fast another host is reached: plain TCP, a byte there and back, and as many bytes as go in a short time.

A window's rate is counted by who receives: what only fills the sender's buffers is no bandwidth. Method: iperf3's, in short.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ROUNDS = 100
"""bytes that go there and back"""
WINDOW = 0.1
"""seconds over which bytes are counted"""
CHUNK = 1 << 18
PATIENCE = 5.0
"""seconds for a connection, and for the answer to what was sent"""
PORTS = 3
"""listened at: one in each third of the range that gloo and NCCL get theirs from"""
SERVING: dict[int, socket.socket] = {}
"""listeners of this process, by port, which ``stop`` closes"""
WHO = secrets.token_hex(8).encode()
"""by which this process is known from another one that listens at the same port of another host"""


def serve(question: dict[str, Any]) -> dict[str, Any]:
    """{"range": [first, last] of ports, "port": one more, or None} → {"who", "ports": those that it listens at now}, {"error"}."""
    first, last = question["range"]
    third = (last - first) // PORTS
    wanted = [(first + place * third, first + (place + 1) * third) for place in range(PORTS)]
    if question.get("port"):
        wanted.append((question["port"], question["port"] + 1))
    ports: list[int] = []
    for start, stop_before in wanted:
        listener = _listener(start, stop_before)
        if listener is None:
            return {"who": WHO.decode(), "ports": ports, "error": f"port {start} is in use"}
        port = listener.getsockname()[1]
        SERVING[port] = listener
        ports.append(port)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    return {"who": WHO.decode(), "ports": ports}


def _listener(start: int, stop_before: int) -> socket.socket | None:
    both = socket.has_dualstack_ipv6()
    for port in range(start, stop_before):
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
    return None


def stop(question: dict[str, Any]) -> dict[str, Any]:
    """Listen no more."""
    for port in list(SERVING):
        listener = SERVING.pop(port, None)
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
    return {}


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            line, _ = listener.accept()
            threading.Thread(target=_take, args=(line,), daemon=True).start()


def _take(line: socket.socket) -> None:
    """One connection: its first byte says what for."""
    with line, contextlib.suppress(OSError):
        line.settimeout(PATIENCE)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = line.recv(1)
        if kind == b"W":
            line.sendall(WHO)
        elif kind == b"L":
            while byte := line.recv(1):
                line.sendall(byte)
        elif kind == b"B":
            line.sendall(json.dumps(_count(line)).encode())


def _count(line: socket.socket) -> list[float]:
    """Bytes/s of each whole window until the other end has said all. The first, in which TCP finds its pace, is left out."""
    rates, began, got = [], time.perf_counter(), 0
    while data := line.recv(CHUNK):
        got += len(data)
        now = time.perf_counter()
        if now - began >= WINDOW:
            rates.append(got / (now - began))
            began, got = now, 0
    return rates[1:]


def connect(question: dict[str, Any]) -> dict[str, Any]:
    """{"addresses", "ports", "who"} of another host → {"address": one where it answers, "closed": {port: why}} of it, or {"error"}.

    An address that another host has too, as each has that of its own bridge for containers, leads elsewhere.
    """
    addresses, ports = question["addresses"], question["ports"]
    if not addresses or not ports:
        return {"error": "it listens nowhere" if addresses else "it has no address there"}
    tried = [(address, port) for address in addresses for port in ports]
    with ThreadPoolExecutor(len(tried)) as threads:  # a firewall that says nothing costs all the time that is given
        found = threads.map(lambda there: _fault(there, question["who"], question["seconds"]), tried)
        faults = dict(zip(tried, found, strict=True))
    for address in addresses:
        closed = {str(port): fault for port in ports if (fault := faults[address, port]) is not None}
        if len(closed) < len(ports):
            return {"address": address, "closed": closed}
    return {"error": f"{addresses[0]}: {faults[tried[0]]}"}


def _fault(there: tuple[str, int], who: str, seconds: float) -> str | None:
    try:
        with socket.create_connection(there, seconds) as line:
            line.sendall(b"W")
            said = b"".join(iter(lambda: line.recv(len(WHO)), b""))
    except OSError as error:
        return error.strerror or str(error)
    return None if said == who.encode() else "somebody else answers there"


def measure(question: dict[str, Any]) -> dict[str, Any]:
    """{"address", "port", "seconds"} → {"round_trips": seconds of each, "rates": bytes/s of each window}, or {"error"}."""
    there = (question["address"], question["port"])
    try:
        return {"round_trips": _round_trips(there), "rates": _send(there, question["seconds"])}
    except (OSError, ValueError) as error:
        return {"error": str(error)}


def _round_trips(there: tuple[str, int]) -> list[float]:
    with socket.create_connection(there, PATIENCE) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(b"L")
        found = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            line.sendall(b"x")
            if not line.recv(1):
                raise OSError("the connection was closed")
            found.append(time.perf_counter() - began)
    return found


def _send(there: tuple[str, int], seconds: float) -> list[float]:
    with socket.create_connection(there, PATIENCE) as line:
        data, end = bytes(CHUNK), time.perf_counter() + seconds
        line.sendall(b"B")
        while time.perf_counter() < end:
            line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(CHUNK), b""))
    rates: list[float] = json.loads(answer)
    return rates
