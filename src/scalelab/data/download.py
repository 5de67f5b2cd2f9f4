"""One file from the network: to a temporary name, checked, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from scalelab.data.dataset import Progress
from scalelab.data.locking import exclusive
from scalelab.errors import ScalelabError

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without an answer or another byte."""


def fetch(url: str, path: Path, md5: str, progress: Progress, missing: str) -> Path:
    """Download ``url`` to ``path`` unless another process has meanwhile; gives ``path``.

    ``missing`` starts the messages: what is absent, and where. ``progress`` is told every tenth. Raises
    ScalelabError: the folder cannot be made, no connection, not the bytes that ``md5`` promises, no space.
    Then neither a part of the file nor a folder made for it stays.
    """
    with _made(path.parent, missing), exclusive(path.parent):
        if path.exists():
            return path
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            found = _transfer(url, temporary, progress, missing)
            if found != md5:
                raise ScalelabError(f"{missing}, and {url} sent something else (MD5 {found}, not {md5}): get the file elsewhere")
            os.replace(temporary, path)
        except OSError as error:
            advice = "free some space or name another --data-dir"
            raise ScalelabError(f"{missing}, and {str(path)!r} cannot be written: {error.strerror}; {advice}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _transfer(url: str, temporary: Path, progress: Progress, missing: str) -> str:
    """Copy ``url`` into ``temporary``; gives its MD5. Raises OSError for the disk, ScalelabError for the network."""
    digest = hashlib.md5(usedforsecurity=False)
    done, told = 0, 0
    with open(temporary, "wb") as file, _network(url, missing):
        # The URL is a constant of ours, or a test's.
        request = urllib.request.Request(url, headers={"User-Agent": "scalelab"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            total = int(answer.headers.get("Content-Length") or 0)
            progress(f"downloading {url} ({total / 1e6:.0f} MB)" if total else f"downloading {url}")
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _DiskError(error) from None
                done += len(chunk)
                if total and done * 10 // total > told:
                    told = done * 10 // total
                    progress(f"downloading {url}: {done / 1e6:.0f} of {total / 1e6:.0f} MB ({10 * told} %)")
        if total and done < total:
            raise urllib.error.URLError(f"the connection closed after {done} of {total} bytes")
    return digest.hexdigest()


class _DiskError(Exception):
    """Carries an OSError of the disk past the handler of those of the network."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


@contextlib.contextmanager
def _network(url: str, missing: str) -> Iterator[None]:
    try:
        yield
    except _DiskError as error:
        raise error.cause from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        code = f"HTTP {error.code}: " if isinstance(error, urllib.error.HTTPError) else ""
        reason = code + (" ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__)
        advice = "download it where there is a network and put it there, or name another --data-dir"
        raise ScalelabError(f"{missing}, and {url} cannot be downloaded ({reason}): {advice}") from None


@contextlib.contextmanager
def _made(folder: Path, missing: str) -> Iterator[None]:
    """``folder``, made with its parents; those that were made and are empty go again when the body fails."""
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove(new)
        raise ScalelabError(f"{missing}, and the folder cannot be made: {error.strerror}; name another --data-dir") from None
    try:
        yield
    except BaseException:
        _remove(new)
        raise


def _remove(folders: list[Path]) -> None:
    for folder in folders:  # the deepest first
        with contextlib.suppress(OSError):
            folder.rmdir()
