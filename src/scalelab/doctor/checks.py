"""The checks of a host, one small function each, over what it has told. Pure: nothing is asked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from scalelab.doctor.findings import Status
from scalelab.doctor.told import Asked, Told
from scalelab.launch.hosts.checks import DISK
from scalelab.record.text import size

PYTHON = (3, 11)
TORCH = (2, 11)
LITTLE_MEMORY, LITTLE_DISK = 1 << 30, 1 << 29
"""bytes below which small trainings already run into trouble"""


class Said(NamedTuple):
    """A finding without its check and host."""

    status: Status
    found: str
    fix: str = ""


Check = Callable[[Told, Sequence[Told], Asked], Iterator[Said]]


def python(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """The interpreter is new enough, and of one minor version everywhere."""
    version = one.machine["python"]
    said = f"{version} ({one.machine['executable']})"
    if _numbers(version) < PYTHON:
        yield Said("fail", said, "use Python 3.11 or newer; python= in the hostfile names another interpreter")
    elif _minor(version) != (usual := _usual([_minor(other.machine["python"]) for other in every])):
        yield Said("fail", f"{said}; most hosts have {usual}", f"name an interpreter of {usual} with python= in the hostfile")
    else:
        yield Said("ok", said)


def scalelab(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """The same program everywhere, to the byte."""
    said = f"{one.machine['packages'].get('scalelab', 'not installed as a package')}, code {one.machine['code']}"
    if one.machine["code"] != asked.code:
        yield Said("fail", f"{said}; here it is code {asked.code}", "install the same version on both")
    else:
        yield Said("ok", said)


def torch(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """It imports, is new enough, and is the same everywhere."""
    told = one.programs["torch"]
    if "error" in told:
        yield Said("fail", told["error"], "install torch for this interpreter: https://pytorch.org/get-started")
        return
    version = told["version"]
    usual = _usual([other.programs["torch"].get("version", "").partition("+")[0] for other in every])
    if _numbers(version) < TORCH:
        yield Said("fail", version, "install torch 2.11 or newer")
    elif version.partition("+")[0] != usual:
        yield Said("fail", f"{version}; most hosts have {usual}", f"install torch {usual}")
    else:
        built = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['hip']}" if told["hip"] else "CPU"
        yield Said("ok", f"{version}, built for {built}")


def backends(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """gloo is compiled in, and NCCL where there are GPUs."""
    told = one.programs["torch"]
    if "error" in told:
        return
    said = ", ".join(told["backends"]) or "none"
    if "gloo" not in told["backends"]:
        yield Said("fail", said, "install a build of torch with torch.distributed: the official wheels have it")
    elif told["devices"] and "nccl" not in told["backends"] and not told["hip"]:
        yield Said("warn", f"{said}, no nccl: GPUs talk through the host's memory", "install torch's CUDA build")
    else:
        yield Said("ok", said)


def deepspeed(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """DeepSpeed imports, for --engine deepspeed."""
    told = one.programs["deepspeed"]
    if told is None:
        yield Said("absent", "not installed; only --engine deepspeed needs it")
    elif "error" in told:
        yield Said("fail", told["error"], "`pip install 'scalelab[deepspeed]'` again, or remove it")
    else:
        built = ", ".join(told["built"]) or "none; they are compiled when first needed (minutes)"
        yield Said("ok", f"{told['version']}; operations built in: {built}")


def horovod(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Horovod imports and was built with gloo, for --engine horovod."""
    told, version = one.programs["torch"].get("horovod", {}), one.machine["packages"].get("horovod")
    if version is None:
        yield Said("absent", "not installed; only --engine horovod needs it")
    elif "error" in told or "gloo" not in told:
        yield Said("fail", f"{version}: {told.get('error', 'torch does not import')}", "build it again: docs/engines.md")
    else:
        yield Said("ok", f"{version}; built with {', '.join(name for name, made in told.items() if made) or 'nothing'}")


def mpi(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """What `mpirun scalelab train` would be started by."""
    told, binding = one.programs["mpi"], one.machine["packages"].get("mpi4py")
    if told is None:
        yield Said("absent", "no mpiexec; only `mpirun scalelab train` needs one")
    elif told["whose"] is None:
        yield Said(
            "warn", f"{told['path']}: {told['said'] or 'says nothing'}", "its ranks are understood where it is Open MPI or MPICH"
        )
    else:
        yield Said("ok", f"{told['whose']} ({told['path']}), {'no mpi4py' if binding is None else f'mpi4py {binding}'}")


def gpus(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """GPUs, that torch sees them, and the links between them."""
    told, torch_told = one.programs["gpus"], one.programs["torch"]
    seen = torch_told.get("devices", 0)
    if told is None:
        yield Said("ok" if seen else "absent", ", ".join(torch_told.get("names", [])) or "none")
    elif "error" in told:
        yield Said("fail", f"nvidia-smi: {told['error']}", "mend the driver, or load its module")
    elif not seen and "error" not in torch_told and not torch_told.get("cuda"):
        yield Said("fail", f"{_gpus(told['rows'])}; torch is built for CPUs", "install torch's CUDA build")
    elif seen < len(told["rows"]):
        yield Said(
            "warn", f"{_gpus(told['rows'])}; torch sees {seen}", "CUDA_VISIBLE_DEVICES hides some, or the driver is too old"
        )
    else:
        kinds = Counter(told["links"].values())
        links = f"; links {', '.join(f'{kind} x {count}' for kind, count in kinds.items())}" if kinds else ""
        yield Said("ok", _gpus(told["rows"]) + links)


def _gpus(rows: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in Counter(f"{row[0]} {row[1]}" for row in rows).items())


def cores(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Cores that ranks may really use."""
    there, usable, quota = (one.machine[name] for name in ("cores", "usable", "quota"))
    if quota is not None and quota < usable:
        fix = (
            f"give the container or job more, or use --threads-per-worker so that all workers have {max(1, int(quota))} together"
        )
        yield Said("warn", f"{usable} of {there}, but a control group allows {quota:g} at once", fix)
    elif usable < one.workers:
        yield Said(
            "warn",
            f"{usable} of {there} for {one.workers} workers",
            "fewer slots: no efficiency is claimed when oversubscribed",
        )
    else:
        yield Said("ok", f"{usable} of {there} usable" if usable < there else f"{there}")


def memory(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Memory that workers could take now."""
    free, total = one.machine["free"], one.machine["memory"]
    said = f"{size(free)} free of {size(total)}"
    yield (
        Said("warn", said, "each worker takes about half a GiB before its model: end other programs")
        if free < LITTLE_MEMORY
        else Said("ok", said)
    )


def disk(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Room for what ranks write."""
    scratch, left = one.machine["scratch"], one.machine["scratch_free"]
    if left is None or left < DISK:
        said = "is no folder that can be written" if left is None else f"has {size(left)} free; {size(DISK)} are needed"
        yield Said(
            "fail", f"TMPDIR: {scratch} {said}", "make room there, or name another folder in TMPDIR; over ssh --env TMPDIR=FOLDER"
        )
        return
    rooms = {scratch: left}
    if asked.out is not None and one.machine["out_free"] is not None:
        rooms[asked.out] = one.machine["out_free"]
    said = ", ".join(f"{size(free)} free in {place}" for place, free in rooms.items())
    low = [place for place, free in rooms.items() if free < LITTLE_DISK]
    yield Said("warn", said, f"make room in {' and '.join(low)}, or name another with TMPDIR, --out") if low else Said("ok", said)


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 11) of ``2.11.0+cpu``."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _usual(versions: Sequence[str]) -> str:
    """What most hosts have, the first where it is a tie."""
    return Counter(version for version in versions if version).most_common(1)[0][0] if any(versions) else ""


MACHINE: dict[str, Check] = {
    "python": python, "scalelab": scalelab, "torch": torch, "backends": backends, "deepspeed": deepspeed, "horovod": horovod, "mpi": mpi,
    "gpus": gpus, "cores": cores, "memory": memory, "disk": disk,
}  # fmt: skip
"""in the order in which they are told"""
