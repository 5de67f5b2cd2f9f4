"""How this host stands to others: which files it shares with them, which names it can resolve, where it may log in."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

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


def ssh(question: dict[str, Any]) -> dict[str, Any]:
    """Whether a login to {"host"} from here works without a password: {}, or {"error": ssh's last words}."""
    try:
        done = subprocess.run(
            [*SSH, "--", question["host"], "true"], capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return {} if done.returncode == 0 else {"error": words[-1] if words else f"exit status {done.returncode}"}
