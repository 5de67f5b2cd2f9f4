"""From flags to a diagnosis: which hosts, what they are asked, what it means."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scalelab.doctor import slurm
from scalelab.doctor.asking import Place, Questions, gather
from scalelab.doctor.findings import Diagnosis
from scalelab.doctor.network import findings
from scalelab.doctor.node import Order
from scalelab.doctor.places import here, over_ssh
from scalelab.doctor.told import Asked
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.placement import Place as Target
from scalelab.measure.environment import code

RANKS = ("NCCL_", "GLOO_", "OMP_", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR")
"""variables, or their beginnings, that ranks heed"""


def local(environment: Mapping[str, str], out: str) -> Diagnosis:
    """This machine."""
    return _diagnosed([here()], environment, out, None, None, 1, None)


def hosts(
    targets: Sequence[Target], environment: Mapping[str, str], out: str, port: int | None = None, ssh_args: Sequence[str] = ()
) -> Diagnosis:
    """Hosts over ssh. Raises ScalelabError where ``out`` can't be written."""
    with token(out) as (path, inode), over_ssh(targets, ssh_args) as places:
        return _diagnosed(places, environment, out, path, inode, max(target.slots for target in targets), port)


def nodes(count: int, args: Sequence[str], environment: Mapping[str, str], out: str, port: int | None = None) -> Diagnosis:
    """Slurm and ``count`` of its nodes. Raises ScalelabError where it does not answer, or ``out`` can't be written."""
    with token(out) as (path, inode):
        return slurm.diagnosed(Order(code(), out, path, inode, relevant(environment), port), count, args)


def _diagnosed(
    places: Sequence[Place],
    environment: Mapping[str, str],
    out: str,
    path: str | None,
    inode: int | None,
    workers: int,
    port: int | None,
) -> Diagnosis:
    environment = relevant(environment)
    told, links = gather(places, Questions(out, path, environment.get("MASTER_ADDR"), port))
    found = findings(told, Asked(environment, code(), inode, out, workers=workers))
    return Diagnosis(
        fit=not any(one.status == "fail" for one in found), hosts=[place.name for place in places], findings=found, links=links
    )


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """What the checks look at: nothing else is asked of anybody, nor shown."""
    return {name: value for name, value in environment.items() if name.startswith(RANKS)}


@contextmanager
def token(out: str) -> Iterator[tuple[str, int]]:
    """A file in the folder ``out``, which others may see: its path, its inode. Both are gone afterwards, where they were not there."""
    folder = Path(out).resolve()
    made = next((place for place in (*reversed(folder.parents), folder) if not place.exists()), None)
    path = folder / f".scalelab-doctor-{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("scalelab doctor looks who sees this file; it may be deleted\n")
    except OSError as error:
        raise ScalelabError(f"--out {out!r}: cannot be written: {error.strerror}") from None
    try:
        yield str(path), os.stat(path).st_ino
    finally:
        path.unlink(missing_ok=True)
        if made is not None:
            with contextlib.suppress(OSError):  # somebody put something there
                for place in (folder, *folder.parents):
                    place.rmdir()
                    if place == made:
                        break
