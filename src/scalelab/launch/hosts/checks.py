"""Are these hosts fit for this training? Pure functions of what the hosts told (``looking``): every fault of every host, at once."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.placement import Place
from scalelab.record.text import size
from scalelab.spec import Spec

CLOCK = 2.0
"""seconds that a host's clock may be off: beyond it, samples of resources and events of two hosts can't be laid side by side"""
DISK = 100 << 20
"""bytes that the scratch folder of a host has free at least: logs, events, samples"""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one host."""

    host: str
    check: str
    found: str
    todo: str


@dataclass(frozen=True)
class Told:
    """What is known of a host before anything starts on it. Empty where it could not be asked."""

    place: Place
    workers: int
    """of the training, on this host"""
    unreachable: str | None = None
    """why no agent answered: ssh's own words, or the interpreter's"""
    versions: Mapping[str, str] = field(default_factory=dict)
    """of Python and of the packages, by their names"""
    code: str | None = None
    """digest of its scalelab"""
    seen: Mapping[str, Any] = field(default_factory=dict)
    clock: tuple[float, float] | None = None
    """(seconds by which its clock is ahead of the launching host's, how far off that may be)"""


@dataclass(frozen=True)
class Wanted:
    """What a host must agree with to take part."""

    spec: Spec
    code: str
    """the launching host's scalelab"""
    digest: str
    """of the spec, as the launching host reads it"""
    files: Mapping[str, str]
    """digests of the user's files on the launching host"""
    held: int | None = None
    """bytes of a worker's weights and gradients; None: not known yet"""


class Unfit(ScalelabError):
    """Some hosts can't take part; ``faults`` are all that was found. Nothing was started."""

    def __init__(self, faults: Sequence[Fault], hosts: int) -> None:
        self.faults = tuple(faults)
        names = list(dict.fromkeys(fault.host for fault in faults))
        if len(faults) == 1:
            one = faults[0]
            super().__init__(f"{one.host}: {one.check}: {one.found.rstrip('.')}; {one.todo}")
        else:
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            super().__init__(f"{len(faults)} faults on {len(names)} of {hosts} hosts ({listed}); nothing was started")


def faults(told: Sequence[Told], wanted: Wanted) -> list[Fault]:
    """All of them, host by host. Of a host that can't be asked, or runs something else, only that: the rest would be its echo."""
    found: list[Fault] = []
    for one in told:
        for check in CHECKS:
            here = list(check(one, told, wanted))
            found += here
            if any(fault.check in ALONE for fault in here):
                break
    return found


def reachable(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """An agent answered there."""
    if one.unreachable is not None:
        yield lost(one.place.host, one.unreachable)


def lost(host: str, said: str) -> Fault:
    """A host that does not answer, with what ssh or the interpreter there ``said``, and what to do about it."""
    kind = next((kind for kind, words in WORDS.items() if any(word in said for word in words)), "")
    return Fault(host, "interpreter" if kind in OF_PYTHON else "reachable", said, ADVICE[kind].replace("HOST", host))


WORDS = {
    "no scalelab": ("No module named", "scalelab needs Python"),
    "no python": (
        "No such file or directory",
        "not found",
        "Permission denied (os",
        "cannot execute",
        " there ended with",
        "invalid option",
        "unrecognized option",
    ),
    "key": ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
    "login": ("Permission denied",),
    "name": ("Could not resolve hostname", "Name or service not known"),
    "network": ("Connection refused", "timed out", "No route to host", "Network is unreachable"),
}
"""what ssh and interpreters write, and what it means, the most telling first"""
OF_PYTHON = ("no scalelab", "no python")
"""what is told by a host that ssh reached"""
ADVICE = {
    "no scalelab": "install the same scalelab for an interpreter there, and name it with python= in the hostfile",
    "no python": "name its interpreter with python= in the hostfile: the path is taken from the launching host otherwise",
    "key": "compare the key with its owner's, then `ssh-keygen -R HOST` and connect once by hand; it may be another machine",
    "login": "make `ssh HOST true` work without a password: a key in its authorized_keys, an agent, or ~/.ssh/config",
    "name": "mend the name, or give it a HostName in ~/.ssh/config; it is no hostfile here either",
    "network": "is it on, does its sshd listen there (port=), does a firewall stand between? `ssh HOST true` tells",
    "": "`ssh HOST true` shows what ssh says; scalelab and its interpreter (python=) must be there",
}


def one_host(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """No two names mean the same host."""
    for other in told[: told.index(one)]:
        if one.seen and one.seen.get("identity") == other.seen.get("identity"):
            yield Fault(
                one.place.host, "one host", f"this is the same host as {other.place.host}", "name it once, with more slots"
            )


def code_versions(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """It runs the same scalelab as the launching host, to the byte."""
    if one.code != wanted.code:
        version = one.versions.get("scalelab", "(not installed as a package)")
        said = f"{version}, code {one.code}; the launching host has code {wanted.code}"
        yield Fault(one.place.host, "scalelab", said, "install the same version on both")


def library_versions(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """The libraries that compute, and Python, are what most hosts have."""
    if not one.versions:
        return
    models = ["timm"] if wanted.spec.model.startswith("timm:") else []
    for name in dict.fromkeys(("python", "torch", "torchvision", wanted.spec.engine, *models)):
        mine, usual = _version(one, name), _usual(told, name)
        if mine is None:
            yield Fault(one.place.host, name, "not installed for that interpreter", f"install {name} {usual or ''}".rstrip())
        elif mine != usual:
            todo = f"install {name} {usual}, or name an interpreter that has it with python="
            yield Fault(one.place.host, name, f"{mine}; most hosts have {usual}", todo)


def _version(one: Told, name: str) -> str | None:
    """Of Python its minor version, of a package the version without what it was built for (+cpu, +cu126)."""
    full = one.versions.get(name)
    if full is None:
        return None
    return ".".join(full.split(".")[:2]) if name == "python" else full.partition("+")[0]


def _usual(told: Sequence[Told], name: str) -> str | None:
    """The version that most hosts have, the first of them where it is a tie."""
    counted = Counter(version for one in told if (version := _version(one, name)) is not None)
    return counted.most_common(1)[0][0] if counted else None


def same_spec(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """It understands the spec as the launching host does."""
    if "error" in one.seen:
        yield Fault(one.place.host, "spec", f"can't read the spec: {one.seen['error']}", "install the same scalelab on both")
    elif one.seen and one.seen["spec"] != wanted.digest:
        said = f"reads the spec as {one.seen['spec']}, the launching host as {wanted.digest}"
        yield Fault(one.place.host, "spec", said, "install the same scalelab and msgspec on both")


def user_files(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """The user's own files are there, and the same."""
    for name, expected in wanted.files.items():
        found = one.seen.get("files", {}).get(name)
        if one.seen and found is None:
            yield Fault(
                one.place.host,
                "file",
                f"{name} is not there",
                f"copy it: `{shlex.join(['scp', name, f'{one.place.host}:{name}'])}`",
            )
        elif one.seen and found != expected:
            yield Fault(one.place.host, "file", f"{name} differs from the launching host's", f"copy it to {one.place.host} again")


def data_there(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """The paths that ranks read are there."""
    for path, there in one.seen.get("paths", {}).items():
        if not there:
            todo = f"copy it there, or say where it is with data-dir= in the hostfile, for {one.place.host}"
            yield Fault(one.place.host, "data", f"{path} does not exist", todo)


def same_weights(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """The initial weights are those of the first host, which the record names."""
    mine, first = (host.seen.get("weights") for host in (one, told[0]))
    if mine and first and mine != first:
        said = f"{wanted.spec.weights} differs from that of {told[0].place.host}"
        yield Fault(one.place.host, "weights", said, "copy the same file to all hosts")


def memory(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """Its free memory holds the weights and gradients of its workers, the least that any training needs."""
    if wanted.held is None or not one.seen:
        return
    need, free = one.workers * wanted.held, one.seen["memory"]
    if need > free:
        said = f"{size(free)} free; weights and gradients of {one.workers} workers alone are {size(need)}"
        yield Fault(one.place.host, "memory", said, "fewer slots there, or a strategy that shards: zero3")


def disk(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """The folder where its ranks write before it is sent has room."""
    if one.seen.get("tmpdir"):  # Python took another folder
        said = f"TMPDIR can't be written to: {one.seen['tmpdir']}"
        yield Fault(
            one.place.host,
            "disk",
            said,
            "make it there, or room in it, or set another for that host's agent with --env TMPDIR=FOLDER",
        )
        return
    need = DISK + (6 * wanted.held if wanted.held and one is told[0] and wanted.spec.checkpoint else 0)
    if one.seen and one.seen["disk"] < need:
        said = f"{size(one.seen['disk'])} are free in {one.seen['scratch']}, {size(need)} are needed"
        yield Fault(one.place.host, "disk", said, "make room there, or set TMPDIR of that host's agent with --env TMPDIR=FOLDER")


def clock(one: Told, told: Sequence[Told], wanted: Wanted) -> Iterator[Fault]:
    """Its clock agrees with the launching host's, as far as a round trip can tell."""
    if one.clock is not None and abs(one.clock[0]) - one.clock[1] > CLOCK:
        ahead = "ahead of" if one.clock[0] > 0 else "behind"
        said = f"{abs(one.clock[0]):.3g} ± {one.clock[1]:.2g} s {ahead} the launching host's"
        yield Fault(one.place.host, "clock", said, "let both keep time: `timedatectl set-ntp true`")


Check = Callable[[Told, Sequence[Told], Wanted], Iterator[Fault]]
CHECKS: tuple[Check, ...] = (
    reachable, code_versions, library_versions, one_host, same_spec, user_files, data_there, same_weights, memory, disk, clock,
)  # fmt: skip
"""in the order in which they are told"""
ALONE = ("reachable", "interpreter", "scalelab", "one host")
"""of a host with one of these faults nothing else is said"""
