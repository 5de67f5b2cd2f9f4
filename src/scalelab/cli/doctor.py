"""``scalelab doctor``: what is fit for training, and what is not."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.numbers import whole
from scalelab.cli.places.hosts import filled, interface
from scalelab.cli.terminal import console, shown
from scalelab.doctor import diagnosing
from scalelab.doctor.diagnosing import Wanted
from scalelab.doctor.findings import Diagnosis, Finding, Status
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.forwarding import forwarded
from scalelab.launch.hosts.hostfile import hosts_of
from scalelab.record import text

EXAMPLE = """  scalelab doctor
  scalelab doctor --hosts h1:4,h2:4
  scalelab doctor --slurm --nodes 4 --partition gpu --out /shared/runs"""
MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "bold red"),
    "absent": ("–", "dim"),
}
"""what a status is shown as, and its style"""
WIDTH, LAST_PORT = 100, 65535


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status: 1 where something fails."""
    parser = _parser()
    parsed = parser.parse(words)
    if parsed.slurm and parsed.hosts:
        raise ScalelabError("--hosts and --slurm: one of the two; Slurm's nodes are looked at by --slurm")
    for flags, given in ((("nodes", "partition", "slurm_arg"), "--slurm"), (("ssh_arg", "env"), "--hosts")):
        for name in flags:
            if getattr(parsed, name) not in (None, []) and not getattr(parsed, given[2:]):
                raise ScalelabError(f"--{name.replace('_', '-')}: means something with {given} only; leave it out")
    found = _diagnosis(parsed)
    if parsed.json:
        print(msgspec.json.encode(found).decode())
    else:
        show(console(), found)
    return 0 if found.fit else 1


def _parser() -> Parser:
    parser = Parser("doctor", "What is fit for training, and what is not, each with its fix.", EXAMPLE)
    group = parser.add_argument_group("where it looks (default: this machine)")
    group.add_argument(
        "--hosts", type=filled("--hosts"), metavar="FILE|H1:4,H2:4", help="hosts over ssh, each by itself and each pair"
    )
    group.add_argument("--slurm", action="store_true", help="Slurm's limits, and some of its nodes, by one srun")
    group.add_argument("--nodes", metavar="N", type=partial(whole, "--nodes"), help="with --slurm: how many nodes (default 2)")
    group.add_argument("--partition", metavar="NAME", help="with --slurm: of which partition")
    group.add_argument(
        "--slurm-arg", metavar="ARG", action="append", default=[], help="with --slurm: passed to srun (repeatable)"
    )
    group.add_argument("--ssh-arg", metavar="ARG", action="append", default=[], help="with --hosts: passed to ssh (repeatable)")
    group.add_argument(
        "--env", metavar="KEY[=VALUE]", action="append", default=[], help="with --hosts: as ranks would get it (repeatable)"
    )
    parser.add_argument("--interface", type=interface, metavar="NAME|SUBNET", help="over which hosts are to reach each other")
    parser.add_argument("--out", metavar="FOLDER", default="runs", help="folder for runs: who shares it? (default runs)")
    parser.add_argument(
        "--master-port",
        metavar="PORT",
        type=partial(whole, "--master-port", most=LAST_PORT),
        help="one more port that has to be free on the first host, and open to the others",
    )
    add_common(parser)
    return parser


def _diagnosis(parsed: argparse.Namespace) -> Diagnosis:
    wanted = Wanted(os.environ, parsed.out, parsed.interface, parsed.master_port)
    if parsed.hosts:
        given = forwarded(parsed.env, os.environ, (Path.home(), Path()))
        targets = [replace(place, env=given.copy()) for place in hosts_of(parsed.hosts)]  # TMPDIR is heeded there, as by train
        if "MASTER_ADDR" in os.environ:
            given.setdefault("MASTER_ADDR", os.environ["MASTER_ADDR"])
        return diagnosing.hosts(targets, replace(wanted, environment=given), parsed.ssh_arg)
    if parsed.slurm:
        args = [*([f"--partition={parsed.partition}"] if parsed.partition else []), *parsed.slurm_arg]
        return diagnosing.nodes(parsed.nodes or 2, args, wanted)
    return diagnosing.local(wanted)


def show(out: Console, found: Diagnosis) -> None:
    """A table, host by host, the links, and what is to be mended."""
    width = min(WIDTH, out.width)
    for host in dict.fromkeys(one.host for one in found.findings):
        table = _table(width)
        for one in found.findings:
            if one.host == host:
                _add(table, one)
        out.print(f"{host}", style="bold", markup=False)
        out.print(table, width=width)
        out.print()
    if found.links:
        out.print("between hosts: under a second of plain TCP each, so only roughly", style="bold", markup=False)
        out.print(_links(found), width=width)
        out.print()
    bad = [one for one in found.findings if one.status == "fail"]
    known = sum(one.status == "warn" for one in found.findings)
    said = f"{text.counted(len(bad), 'fault')} to mend" if bad else "fit"
    warned = f", {text.counted(known, 'warning')}" if known else ""
    out.print(said + warned)


def _table(width: int) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, width=width)
    table.add_column(no_wrap=True, width=4)
    table.add_column(no_wrap=True, width=14)
    table.add_column(overflow="fold", ratio=1)
    return table


def _add(table: Table, one: Finding) -> None:
    mark, style = MARKS[one.status]
    fix = f"\n[bold]→[/bold] {escape(one.fix)}" if one.fix else ""
    table.add_row(f"[{style}]{mark}[/{style}]", escape(one.check), escape(one.found) + fix)


def _links(found: Diagnosis) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("from", "to", "bandwidth", "n", "there and back", "n"):
        table.add_column(name, justify="left" if name in ("from", "to") else "right", no_wrap=True)
    for link in found.links:
        rate, trip = link.bytes_per_second, link.round_trip_seconds
        bandwidth = shown(rate, lambda value: text.prefixed(8 * value, "bit/s"))
        table.add_row(link.source, link.target, bandwidth, str(rate.n), shown(trip, text.seconds), str(trip.n))
    return table
