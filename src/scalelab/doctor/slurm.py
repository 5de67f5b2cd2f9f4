"""What Slurm allows: read from its own programs; and one srun in which each node looks at itself."""

from __future__ import annotations

import getpass
import math
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from scalelab.doctor.checks import Said
from scalelab.doctor.findings import Diagnosis, Finding, diagnosis
from scalelab.doctor.node import Order
from scalelab.errors import ScalelabError
from scalelab.launch.slurm.programs import SlurmError, call
from scalelab.record import text

WAIT = 30
"""seconds for srun to get nodes; it gives up after"""
LIBRARIES, PAIR = 240.0, 6.0
"""seconds at most for what each node finds of itself on a busy machine, and for a round of pairs, both ways"""
UNUSABLE = ("down", "drain", "fail", "maint", "unk", "no_respond", "inval")
"""beginnings of a node's states"""


@dataclass(frozen=True)
class Configured:
    """What Slurm's programs tell. Texts are Slurm's own."""

    settings: dict[str, str]
    """of ``scontrol show config``"""
    partitions: tuple[tuple[str, str, str, int], ...]
    """(name, time limit, state of nodes, how many), of sinfo"""
    sacct: str | None
    """why sacct does not work; None where it does"""
    limits: str
    """MaxSubmitJobs of this user's associations, where accounting knows"""
    mpi: str
    """what ``srun --mpi=list`` lists"""


def configured() -> Configured:
    """Ask Slurm. Raises SlurmError where its controller does not answer."""
    lines = (line.partition("=") for line in call(["scontrol", "show", "config"]).splitlines())
    settings = {name.strip(): value.strip() for name, equals, value in lines if equals}
    rows = [line.split("|") for line in call(["sinfo", "--noheader", "--format=%R|%l|%t|%D"]).splitlines()]
    try:
        call(["sacct", "--noheader", "--starttime=now", "--format=JobID"])
        sacct = None
    except SlurmError as error:
        sacct = str(error)
    return Configured(settings, tuple((r[0], r[1], r[2], int(r[3])) for r in rows if len(r) == 4), sacct, _limits(sacct), _mpi())


def _limits(sacct: str | None) -> str:
    if sacct is not None:
        return ""
    try:
        said = call(
            [
                "sacctmgr",
                "--noheader",
                "--parsable2",
                "show",
                "assoc",
                "where",
                f"user={getpass.getuser()}",
                "format=MaxSubmitJobs",
            ]
        )
    except SlurmError:
        return ""
    return ", ".join(sorted({line for line in said.splitlines() if line}))


def _mpi() -> str:
    try:
        said = call(["srun", "--mpi=list"])
    except SlurmError:
        return ""
    return ", ".join(re.findall(r"^\s+(\w+)$", said, flags=re.M))


def checks(told: Configured) -> Iterator[tuple[str, Said]]:
    """What a job may be, and what becomes of it: (check, what is said of it)."""
    settings = told.settings
    largest = int(settings.get("MaxArraySize", "0") or 0)
    yield (
        "arrays",
        Said("ok", f"MaxArraySize {largest}: an array's largest index is {max(0, largest - 1)}; sweeps split by themselves"),
    )
    jobs = told.limits or f"MaxJobCount {settings.get('MaxJobCount', '?')} for all users"
    yield "submitting", Said("ok", f"MaxSubmitJobs {jobs}" if told.limits else jobs)
    for name, limit in dict.fromkeys((partition, limit) for partition, limit, _, _ in told.partitions):
        yield from _partition(name, limit, [row for row in told.partitions if row[0] == name])
    if told.sacct is None:
        yield "sacct", Said("ok", "works: how ended jobs ended is known")
    else:
        yield "sacct", Said("warn", told.sacct, "nothing: `scalelab jobs` then knows ended jobs by their records alone")
    requeue = settings.get("JobRequeue") == "1"
    fix = "ask for JobRequeue=1, or submit with --slurm-arg=--requeue"
    yield "requeue", Said("ok", "jobs are requeued when a node fails") if requeue else Said("warn", "JobRequeue=0", fix)
    mode = settings.get("PreemptMode", "OFF")
    lost = "CANCEL" in mode.upper()
    how = f"PreemptMode={mode}, {settings.get('KillWait', '?')} from SIGTERM to SIGKILL"
    yield "preemption", Said("warn", how, "checkpoint often: a preempted job is not requeued") if lost else Said("ok", how)
    select = settings.get("SelectType", "")
    shares = "cons" in select
    fix = "nothing: a job then gets whole nodes, so use all their cores"
    yield "cores of a job", Said("ok", select) if shares else Said("warn", select or "not told", fix)
    yield "mpi of srun", Said("ok", f"{told.mpi or 'not told'}; `srun scalelab train` needs none of them")


def _partition(name: str, limit: str, rows: Sequence[tuple[str, str, str, int]]) -> Iterator[tuple[str, Said]]:
    bad = sum(count for _, _, state, count in rows if state.startswith(UNUSABLE))
    every = sum(count for *_, count in rows)
    states = ", ".join(f"{count} {state}" for _, _, state, count in rows)
    said = f"{name}: time limit {limit}; nodes: {states}"
    if every and bad == every:
        yield "partition", Said("fail", said, f"choose another with --partition; `sinfo -R -p {name}` says why")
    elif bad:
        yield "partition", Said("warn", said, f"`sinfo -R -p {name}` says why")
    else:
        yield "partition", Said("ok", said)


def too_many(told: Configured, nodes: int, args: Sequence[str]) -> Said | None:
    """Said where no partition, or not the one that ``args`` names, has so many nodes: srun would wait for what never comes."""
    counts = Counter[str]()
    for name, _, _, count in told.partitions:
        counts[name] += count
    options = [arg.partition("=") for arg in args]
    named = next((value.split(",") for option, _, value in options if option == "--partition"), list(counts))
    most = max((counts[name] for name in named if name in counts), default=nodes)  # srun knows of partitions that sinfo hides
    if nodes <= most:
        return None
    said = f"--nodes {nodes}: no partition of {', '.join(named)} has more than {text.counted(most, 'node')}"
    return Said("fail", said, f"at most --nodes {most}; `sinfo` lists them")


def looked_at(order: Order, nodes: int, args: Sequence[str]) -> Diagnosis:
    """What the nodes of one srun find of themselves and of each other. Raises SlurmError in srun's words."""
    minutes = math.ceil((LIBRARIES + PAIR * nodes) / 60)
    command = [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", f"--immediate={WAIT}", "--job-name=scalelab-doctor",
        f"--time={minutes}", *args, sys.executable, "-m", "scalelab.doctor.node", msgspec.json.encode(order).decode(),
    ]  # fmt: skip
    said = call(command, patience=WAIT + 60.0 * minutes + 60.0)  # Slurm ends it first, and leaves nothing on the nodes
    last = next((line for line in reversed(said.splitlines()) if line.startswith("{")), "")
    try:
        return msgspec.json.decode(last, type=Diagnosis)
    except msgspec.DecodeError:
        raise SlurmError(f"srun: the nodes did not answer: {said.strip()[-200:] or 'not a word'}") from None


def diagnosed(order: Order, nodes: int, args: Sequence[str]) -> Diagnosis:
    """Slurm's limits, and its nodes. Raises SlurmError where the controller does not answer."""
    told = configured()
    few = too_many(told, nodes, args)
    found = [
        Finding(check=name, host="Slurm", status=said.status, found=said.found, fix=said.fix)
        for name, said in (*checks(told), *([("nodes", few)] if few else []))
    ]
    if few:
        return diagnosis([socket.gethostname()], found)
    try:
        there = looked_at(order, nodes, args)
    except ScalelabError as error:
        fix = "choose others with --partition, --nodes; `squeue --start` tells when some are free"
        found.append(Finding(check="nodes", host="Slurm", status="fail", found=str(error), fix=fix))
        return diagnosis([socket.gethostname()], found)
    return diagnosis(["Slurm", *there.hosts], [*found, *there.findings], there.links)
