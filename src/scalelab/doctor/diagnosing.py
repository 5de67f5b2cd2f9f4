"""From flags to a diagnosis: which hosts, what they are asked, what it means."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scalelab.doctor import slurm
from scalelab.doctor.asking import Place, Questions, gather
from scalelab.doctor.findings import Diagnosis, diagnosis
from scalelab.doctor.network import findings
from scalelab.doctor.node import Order
from scalelab.doctor.places import here, over_ssh
from scalelab.doctor.there.machine import relevant
from scalelab.doctor.told import Asked
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.placement import Place as Target
from scalelab.measure.environment import code


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides the hosts."""

    environment: Mapping[str, str]
    """variables that ranks would get"""
    out: str = "runs"
    interface: str | None = None
    port: int | None = None


def local(wanted: Wanted) -> Diagnosis:
    """What is fit on this machine, and what is not."""
    return _diagnosed([here()], wanted, None, None)


def hosts(targets: Sequence[Target], wanted: Wanted, ssh_args: Sequence[str] = ()) -> Diagnosis:
    """The same of hosts over ssh. Raises ScalelabError where ``out`` can't be written."""
    with token(wanted.out) as (path, inode), over_ssh(targets, ssh_args) as places:
        return _diagnosed(places, wanted, path, inode)


def nodes(count: int, args: Sequence[str], wanted: Wanted) -> Diagnosis:
    """The same of Slurm, and of ``count`` of its nodes. Raises ScalelabError where it does not answer, or ``out`` can't be written."""
    with token(wanted.out) as (path, inode):
        order = Order(code(), wanted.out, path, inode, relevant(wanted.environment), wanted.port, wanted.interface)
        return slurm.diagnosed(order, count, args)


def _diagnosed(places: Sequence[Place], wanted: Wanted, path: str | None, inode: int | None) -> Diagnosis:
    environment = relevant(wanted.environment)
    told, links = gather(places, Questions(wanted.out, path, environment.get("MASTER_ADDR"), wanted.interface, wanted.port))
    found = findings(told, Asked(environment, code(), inode, wanted.out))
    return diagnosis([place.name for place in places], found, links)


@contextmanager
def token(out: str) -> Iterator[tuple[str, int]]:
    """A file in the folder ``out``, which others may see: its path, its inode. Both are gone afterwards, where they were not there.

    Raises ScalelabError where it can't be written; what was made of it is gone then, too.
    """
    folder = Path(out).resolve()
    path, made = folder / f".scalelab-doctor-{secrets.token_hex(6)}", list[Path]()
    try:
        try:
            made = [place for place in (folder, *folder.parents) if not place.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("scalelab doctor looks who sees this file; it may be deleted\n")
            inode = path.stat().st_ino
        except OSError as error:
            raise ScalelabError(f"--out {out!r}: cannot be written: {error.strerror}") from None
        yield str(path), inode
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        for place in made:
            with contextlib.suppress(OSError):  # it was never made, or somebody put something there
                place.rmdir()
