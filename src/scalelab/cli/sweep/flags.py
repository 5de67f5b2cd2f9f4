"""The flags of a new sweep, and the sweep that they mean."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.numbers import positive, whole
from scalelab.cli.places.hosts import filled
from scalelab.errors import ScalelabError, unknown
from scalelab.launch.hosts import forwarding
from scalelab.launch.hosts.hostfile import hosts_of
from scalelab.record.folder import now
from scalelab.record.sweep import MetricRead, PlannedTask, SweepRecord
from scalelab.sweep import metric as metrics
from scalelab.sweep import planning, space
from scalelab.sweep.job import HIDDEN
from scalelab.sweep.metric import Metric
from scalelab.sweep.space import Axis, Range
from scalelab.sweep.standing import OWN_METRICS, goal_of

RECORDED = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIRTUAL_ENV",
    "CONDA_DEFAULT_ENV", "SLURM_CPUS_PER_TASK", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST",
)  # fmt: skip
"""variables that every task's record keeps, where they are set; `--env` adds to them"""
EXAMPLE = """  scalelab sweep --grid lr=0.1,0.01 --grid batch=128,512 --metric accuracy='accuracy (\\S+)' -- ./train {lr} {batch}
  scalelab sweep --grid lr=log:1e-4:1e-1 --grid width=16,32 --random 20 --repeats 3 -- python train.py {lr} {width} --seed {seed}
  scalelab sweep --list points.csv --slurm --max-running 8 --time 30 -- ./program --rate {rate}
  scalelab sweep status|resume|results|cancel sweeps/20260101T120000Z-train-1a2b3c"""


def parser() -> Parser:
    """The flags; the program and its arguments come after ``--``."""
    made = Parser(
        "sweep",
        "Run any program over many values of its arguments: here, over hosts, or as a Slurm array. {name} in the program's arguments "
        "is replaced by the parameter's value; {seed}, {task} and {repeat} are always there; {{ is a brace.",
        EXAMPLE,
    )
    _add_space(made)
    _add_kept(made)
    _add_where(made)
    made.add_argument("--out", metavar="FOLDER", help="the sweep's folder (default sweeps/TIME-PROGRAM-ID)")
    made.add_argument("--dry-run", action="store_true", help="print every command that would run, and start nothing")
    add_common(made)
    return made


def _add_space(made: Parser) -> None:
    group = made.add_argument_group("which values")
    many: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument("--grid", metavar="NAME=V,V", help="values, or log:LOW:HIGH, uniform:…, int:… with --random", **many)
    group.add_argument(
        "--zip", metavar="NAME=V,V", help="values that change together with those of the other --zip flags", **many
    )
    group.add_argument("--list", metavar="FILE", help="rows of a CSV or JSONL file, a parameter a column", **many)
    group.add_argument("--random", metavar="N", help="N combinations, drawn, instead of all")
    group.add_argument(
        "--repeats", metavar="N", default="1", help="times that each point is run, each with its own {seed} (default 1)"
    )
    group.add_argument("--seed", metavar="N", default="0", help="of the draws, and {seed} of the first repeat (default 0)")


def _add_kept(made: Parser) -> None:
    group = made.add_argument_group("what is kept")
    group.add_argument(
        "--metric", metavar="NAME=REGEX", action="append", default=[], help="a number in the output: the last match"
    )
    group.add_argument(
        "--metric-json", metavar="[NAME=]FILE:KEY.KEY", action="append", default=[],
        help="a number in a JSON file that the program writes; FILE -: in the last line of its output that is JSON",
    )  # fmt: skip
    group.add_argument("--minimize", metavar="NAME", help="the metric of which the least is the best")
    group.add_argument("--maximize", metavar="NAME", help="likewise, the most (default: the first metric; the least of a loss)")
    group.add_argument("--timeout", metavar="SECONDS", help="end a task that takes longer: it has failed")
    group.add_argument("--retries", metavar="N", default="0", help="times that a failed task is tried again at once (default 0)")
    group.add_argument("--env", metavar="NAME[=VALUE]", action="append", default=[], help="set for every task, and recorded")


def _add_where(made: Parser) -> None:
    group = made.add_argument_group("where it runs")
    group.add_argument("--jobs", metavar="N", help="tasks at once on this machine (default: as many as cores and GPUs allow)")
    group.add_argument("--cpus-per-task", metavar="N", help="cores of each task (default: those of the machine, shared out)")
    group.add_argument("--gpus-per-task", metavar="N", help="GPUs of each task (default: those of the machine, shared out)")
    group.add_argument(
        "--hosts", type=filled("--hosts"), metavar="FILE|H:N,H:N", help="over ssh, as many tasks at once as a host has slots"
    )
    group.add_argument("--slurm", action="store_true", help="as a Slurm array")
    group.add_argument("--max-running", metavar="N", help="Slurm: tasks at once")
    group.add_argument("--partition", metavar="NAME", help="Slurm: where")
    group.add_argument("--time", metavar="TIME", help="Slurm: the longest that a task may take, as sbatch has it")
    group.add_argument("--account", metavar="NAME", help="Slurm: who pays")
    group.add_argument(
        "--slurm-arg", metavar="OPTION", action="append", default=[], help="any option of sbatch: --slurm-arg=--mem=4G"
    )
    group.add_argument("--wait", action="store_true", help="Slurm: follow it to its end, and submit what did not fit at once")


MOST_JOBS = 4096
"""tasks at once: a process each, with two descriptors in the runner"""
ONLY_SLURM = ("max_running", "partition", "time", "account", "slurm_arg", "wait")


def asked(
    parsed: argparse.Namespace, argv: list[str], command: Sequence[str]
) -> tuple[SweepRecord, list[PlannedTask], list[str]]:
    """The sweep, its tasks, and what is to be noted. Raises ScalelabError for all that is wrong before anything starts."""
    if not argv:
        raise ScalelabError(
            "which program? it comes after --, with {name} for its arguments: scalelab sweep --grid lr=1,2 -- ./program {lr}"
        )
    rows = [space.listed(Path(path)) for path in parsed.list]
    axes = [space.grid(text) for text in parsed.grid] + ([space.zipped(parsed.zip)] if parsed.zip else []) + rows
    caught = [metrics.from_pattern(text) for text in parsed.metric] + [metrics.from_json(text) for text in parsed.metric_json]
    seed, repeats = whole("--seed", parsed.seed, 0), whole("--repeats", parsed.repeats)
    points = space.points(axes, None if parsed.random is None else whole("--random", parsed.random), seed)
    space.few(len(points) * repeats)
    names = _names(axes)
    listed = [name for axis in rows for name in axis.names]
    notes = planning.check(argv, names, listed, caught) + planning.notes(argv, repeats)
    place = placed(parsed)
    if place == "local":
        planning.findable(argv)
    goal, least = goal_of([one.name for one in caught], *_directed(parsed, caught))
    given = environment(parsed.env, place)
    cwd = os.getcwd()
    _text_alone(axes, given, cwd)
    tasks = planning.tasks(argv, points, repeats, seed)
    spread = placing(parsed, place)
    if not one_at_a_time(place, spread):
        planning.apart(caught, tasks)
    env = hidden(given)
    if place == "slurm":
        _refuse_secrets(given, env)
    return (
        SweepRecord(
            name=planning.called(argv),
            command=[*forwarding.recordable(command), "--", *argv],
            argv=argv,
            cwd=cwd,
            parameters=names,
            tasks=len(tasks),
            repeats=repeats,
            seed=seed,
            metrics=[MetricRead(**asdict(one)) for one in caught],
            goal=goal,
            least=least,
            timeout=None if parsed.timeout is None else positive("--timeout", parsed.timeout, "seconds"),
            retries=whole("--retries", parsed.retries, 0),
            env=env,
            recorded=[*RECORDED, *(name for name, value in env.items() if value != HIDDEN)],
            place=place,
            placing=spread,
            created=now(),
        ),
        tasks,
        notes,
    )


def environment(given: Sequence[str], place: str) -> dict[str, str]:
    """What is set for every task: what ``--env`` says; on other hosts also what is forwarded by itself. Raises ScalelabError."""
    if place == "hosts":
        return forwarding.forwarded(given, os.environ, [Path.home(), Path.cwd()])
    names = {text.partition("=")[0] for text in given}
    return {name: value for name, value in forwarding.forwarded(given, os.environ, []).items() if name in names}


def hidden(env: dict[str, str]) -> dict[str, str]:
    """The variables as a file may hold them: without the values of secrets."""
    return {name: HIDDEN if forwarding.is_secret(name, value) else value for name, value in env.items()}


def _refuse_secrets(given: Mapping[str, str], kept: Mapping[str, str]) -> None:
    """Raises ScalelabError for a secret that sbatch could not take along: one that no file keeps, and that this environment has not."""
    for name, value in given.items():
        if kept[name] == HIDDEN and os.environ.get(name) != value:
            raise ScalelabError(
                f"--env {name}=…: it looks like a secret, which no file keeps: export {name} here, and give --env {name}"
            )


def placed(parsed: argparse.Namespace) -> str:
    """local, hosts or slurm. Raises ScalelabError for flags that don't go together."""
    if parsed.hosts and parsed.slurm:
        raise ScalelabError("--hosts and --slurm: one of the two; Slurm chooses its own hosts")
    if parsed.jobs is not None and (parsed.hosts or parsed.slurm):
        raise ScalelabError(
            "--jobs is for this machine: " + ("give a host slots=N" if parsed.hosts else "--slurm has --max-running N")
        )
    for name in ONLY_SLURM:
        if getattr(parsed, name) and not parsed.slurm:
            raise ScalelabError(f"--{name.replace('_', '-')} is of --slurm; add that, or leave it away")
    return "hosts" if parsed.hosts else "slurm" if parsed.slurm else "local"


def placing(parsed: argparse.Namespace, place: str) -> dict[str, object]:
    """What the place is told. Raises ScalelabError."""
    numbers: dict[str, int | None] = {
        name: None if getattr(parsed, name) is None else whole(f"--{name.replace('_', '-')}", getattr(parsed, name), least)
        for name, least in (("cpus_per_task", 1), ("gpus_per_task", 0), ("max_running", 1))
    }
    if place == "local":
        numbers["jobs"] = at_once(parsed.jobs)
        return {name: numbers[name] for name in ("jobs", "cpus_per_task", "gpus_per_task")}
    shares: dict[str, object] = {name: numbers[name] for name in ("cpus_per_task", "gpus_per_task")}
    if place == "hosts":
        hosts_of(parsed.hosts)
        path = Path(parsed.hosts).expanduser()
        return {"hosts": str(path.resolve()) if path.is_file() else parsed.hosts, **shares}
    texts = {name: getattr(parsed, name) for name in ("partition", "time", "account", "slurm_arg")}
    return {**shares, "max_running": numbers["max_running"], **texts}


def one_at_a_time(place: str, spread: Mapping[str, Any]) -> bool:
    """Whether no two tasks run at once, as far as was asked for."""
    if place == "hosts":
        return sum(one.slots for one in hosts_of(spread["hosts"])) == 1
    return bool(spread["jobs" if place == "local" else "max_running"] == 1)


def at_once(text: str | None) -> int | None:
    """How many tasks ``--jobs`` allows at once. Raises ScalelabError."""
    return None if text is None else whole("--jobs", text, most=MOST_JOBS)


def _text_alone(axes: Sequence[Axis | Range], env: Mapping[str, str], cwd: str) -> None:
    planning.encodable("this folder", cwd)
    for name, value in env.items():
        planning.encodable(f"--env {name}", value)
    for axis in axes:
        if isinstance(axis, Axis):
            for row in axis.rows:
                for name, value in zip(axis.names, row, strict=True):
                    planning.encodable(f"parameter {name!r}", value)


def _names(axes: Sequence[Axis | Range]) -> list[str]:
    return [name for axis in axes for name in ((axis.name,) if isinstance(axis, Range) else axis.names)]


def _directed(parsed: argparse.Namespace, caught: Sequence[Metric]) -> tuple[str | None, str | None]:
    known = [one.name for one in caught]
    for name in known:
        if known.count(name) > 1 or name in OWN_METRICS:
            raise ScalelabError(
                f"metric {name!r} is there twice; give the other a name of its own: --metric NAME=…, --metric-json NAME=FILE:…"
            )
    if parsed.minimize is not None and parsed.maximize is not None:
        raise ScalelabError("--minimize and --maximize: one of the two; it says what the best task is")
    chosen = parsed.minimize or parsed.maximize
    if chosen is not None and chosen not in known and chosen not in OWN_METRICS:
        raise unknown("metric", chosen, [*known, *OWN_METRICS])
    return parsed.minimize, parsed.maximize
