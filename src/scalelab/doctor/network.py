"""The checks of how hosts stand to each other, and of variables that contradict them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from scalelab.doctor.checks import MACHINE, Check, Said
from scalelab.doctor.findings import Finding
from scalelab.doctor.told import Asked, Told
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.checks import CLOCK, lost
from scalelab.launch.hosts.interfaces import chosen, leading_out
from scalelab.measure.interfaces import INTERFACES
from scalelab.record.text import prefixed, seconds


def clock(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """It agrees with the clock of the host that launches."""
    if one.clock is None:
        return
    ahead, error = one.clock
    said = f"{'+' if ahead >= 0 else '−'}{seconds(abs(ahead))} ± {seconds(error)}"
    off = abs(ahead) - error > CLOCK
    yield Said("fail", said, "let both keep time: `timedatectl set-ntp true`") if off else Said("ok", said)


def interfaces(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """An interface by which other hosts can be reached."""
    there, speeds = one.machine["interfaces"], one.machine["speeds"]
    others = {name: found for name, found in there.items() if name != "lo"}
    said = ", ".join(
        f"{name} {found[0]}" + (f" ({prefixed(8 * speeds[name], 'bit/s')})" if name in speeds else "")
        for name, found in others.items()
    )
    unfit = unreached(one, every)
    if unfit is not None:
        yield Said("fail", *unfit)
    else:
        yield Said("ok", said or "only the loopback: trainings on this machine need no other")


def unreached(one: Told, every: Sequence[Told]) -> tuple[str, str] | None:
    """Why a host has no interface by which others are to reach it, and what to do; None where it has one."""
    there = one.machine["interfaces"]
    if one.interface is None:
        only = len(every) > 1 and there.keys() <= {"lo"}
        return ("only the loopback", "bring an interface up: `ip link`, `ip address`") if only else None
    try:
        found = chosen(one.interface, {name: tuple(map(ip_address, addresses)) for name, addresses in there.items()})
        if len(every) > 1:
            leading_out(found)
    except ScalelabError as error:
        return str(error), "say which with interface= in the hostfile, or --interface"
    return None


def interface_variables(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Interfaces that variables name are there."""
    for variable in INTERFACES:
        text = one.variable(variable, asked)
        if not text:
            continue
        exact, hidden = text.startswith("="), text.startswith("^")
        wanted = [name.partition(":")[0] for name in text.lstrip("^=").split(",")]
        whole = exact or variable.startswith("GLOO")  # NCCL takes the beginning of a name
        lacking = [
            name for name in wanted if not any(there == name if whole else there.startswith(name) for there in one.machine["all"])
        ]
        if lacking and not hidden and (variable.startswith("GLOO") or len(lacking) == len(wanted)):
            have = ", ".join(name for name in one.machine["interfaces"] if name != "lo") or "lo"
            yield Said("fail", f"{variable}={text}: this host has no {', '.join(lacking)}", f"unset it, or name one of: {have}")
        elif not hidden and len(every) > 1 and "lo" in wanted:
            yield Said("fail", f"{variable}={text}: other hosts can't be reached by the loopback", "unset it")
        else:
            yield Said("ok", f"{variable}={text}")


def nccl_variables(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """NCCL is not kept from what is there."""
    for variable, what in (("NCCL_IB_DISABLE", "InfiniBand"), ("NCCL_P2P_DISABLE", "direct copies between GPUs")):
        if (one.variable(variable, asked) or "0") != "0":
            yield Said(
                "warn",
                f"{variable}={one.variable(variable, asked)}: NCCL does without {what}",
                f"unset {variable}, unless you know why",
            )


def thread_variables(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """OMP_NUM_THREADS fits the cores."""
    text = one.variable("OMP_NUM_THREADS", asked)
    if text is None:
        return
    usable = one.machine["usable"]
    if not text.isdigit() or int(text) > usable:
        yield Said("warn", f"OMP_NUM_THREADS={text}, on {usable} usable cores", "unset it: scalelab sets it for each worker")
    else:
        yield Said("ok", f"OMP_NUM_THREADS={text}")


def device_variables(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """CUDA_VISIBLE_DEVICES hides no GPU that workers would need."""
    text, told = one.variable("CUDA_VISIBLE_DEVICES", asked), one.programs.get("gpus")
    if text is None or told is None or "rows" not in told:
        return
    visible = [name for name in text.split(",") if name.strip() not in ("", "-1")]
    beyond = [name for name in visible if name.strip().isdigit() and int(name) >= len(told["rows"])]
    if beyond:
        yield Said(
            "fail", f"CUDA_VISIBLE_DEVICES={text}: there are {len(told['rows'])} GPUs", "unset it, or name those that are there"
        )
    elif len(visible) < len(told["rows"]):
        yield Said(
            "warn",
            f"CUDA_VISIBLE_DEVICES={text} hides {len(told['rows']) - len(visible)} of {len(told['rows'])} GPUs",
            "unset it to use them",
        )


def master(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """MASTER_ADDR means something there."""
    if one.master is None:
        return
    name = asked.environment.get("MASTER_ADDR", "")
    if "error" in one.master:
        yield Said("fail", f"MASTER_ADDR={name}: {one.master['error']}", "unset it, or give a name that all hosts can resolve")
    elif len(every) > 1 and all(address.startswith("127.") or address == "::1" for address in one.master["addresses"]):
        yield Said(
            "fail", f"MASTER_ADDR={name} is {', '.join(one.master['addresses'])}: each host's own", "unset it, or give an address"
        )
    else:
        yield Said("ok", f"MASTER_ADDR={name} is {', '.join(one.master['addresses'])}")


def shared(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Whether --out is the launching host's own folder there too."""
    if one.sees is None:
        return
    fix = f"put --out on a file system that all nodes mount: {asked.out} is not"
    if one.sees.get("inode") == asked.inode and asked.inode is not None:
        yield Said("ok", f"{asked.out} is the same folder (inode {asked.inode})")
    elif asked.shared:
        yield Said(
            "fail", f"{asked.out} is not the same folder there ({one.sees.get('error', 'another file is in its place')})", fix
        )
    else:
        yield Said("ok", f"{asked.out} is not shared, and need not be: over ssh the launching host keeps the records")


def ports(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """Ranks there can reach those of the other hosts."""
    others = [other.name for other in every if other.name != one.name and not other.unreachable]
    mute = {other.name for other in every if unreached(other, every)}  # told of each by itself
    for name, why in one.closed.items():
        if name == one.name:
            yield Said("fail", why, "end the program that holds it, or choose another with --master-port")
            continue
        if name in mute:
            continue
        yield Said(
            "fail", f"{name} can't be reached: {why}", "open the ports of ip_local_port_range between the hosts in the firewall"
        )
    if others and not one.closed:
        yield Said("ok", f"{', '.join(others)} can be reached at the ports that ranks use")


def logins(one: Told, every: Sequence[Told], asked: Asked) -> Iterator[Said]:
    """ssh from there to the others, which only an mpirun that is started there needs."""
    for name, why in one.logins.items():
        if why is None:
            yield Said("ok", f"to {name} without a password")
        else:
            yield Said("absent", f"to {name}: {why}; scalelab needs none, only an mpirun that is started on {one.name} does")


NETWORK: dict[str, Check] = {
    "clock": clock, "shared folder": shared, "interfaces": interfaces, "variables": interface_variables, "nccl": nccl_variables,
    "threads": thread_variables, "visible GPUs": device_variables, "master": master, "ports": ports, "ssh": logins,
}  # fmt: skip
"""in the order in which they are told"""


def findings(every: Sequence[Told], asked: Asked) -> list[Finding]:
    """All that there is to say, host by host."""
    reached, found = [one for one in every if not one.unreachable], []
    for one in every:
        if one.unreachable is not None:
            fault = lost(one.name, one.unreachable)
            found.append(Finding(check=fault.check, host=one.name, status="fail", found=fault.found, fix=fault.todo))
            continue
        for name, check in {**MACHINE, **NETWORK}.items():
            for said in check(one, reached, asked):
                found.append(Finding(check=name, host=one.name, status=said.status, found=said.found, fix=said.fix))
    return found
