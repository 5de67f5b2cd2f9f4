"""How this host stands to others: which files it shares with them, which names it can resolve, where it may log in."""

from __future__ import annotations

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LOGINS = 16
"""at once"""
SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")


def sees(question: dict[str, Any]) -> dict[str, Any]:
    """{"path": of a file} → {"inode", "text"} of it as seen here, or {"error"}."""
    path = Path(question["path"])
    try:
        with path.open() as file:
            return {"inode": os.fstat(file.fileno()).st_ino, "text": file.read(1000)}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def resolves(question: dict[str, Any]) -> dict[str, Any]:
    """{"host": a name} → its {"addresses"} as seen here, or {"error"}."""
    try:
        found = socket.getaddrinfo(question["host"], None, type=socket.SOCK_STREAM)
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"addresses": sorted({str(row[4][0]) for row in found})}


def ssh(question: dict[str, Any]) -> dict[str, str | None]:
    """Whether a login to each of {"hosts"} from here works without a password: by host None, or ssh's last words."""
    hosts: list[str] = question["hosts"]
    with ThreadPoolExecutor(min(LOGINS, len(hosts))) as threads:
        return dict(zip(hosts, threads.map(_login, hosts), strict=True))


def _login(host: str) -> str | None:
    try:
        done = subprocess.run([*SSH, "--", host, "true"], capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else words[-1] if words else f"exit status {done.returncode}"
