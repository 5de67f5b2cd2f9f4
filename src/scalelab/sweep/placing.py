"""Where the tasks of a sweep run when the launching process hands them out: on this machine, or on hosts over ssh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalelab.launch.hosts.channel import SILENT
from scalelab.launch.hosts.hostfile import hosts_of
from scalelab.launch.hosts.pausing import Pausing
from scalelab.record.sweep import SweepRecord
from scalelab.sweep import crew as crews
from scalelab.sweep import keeping, running
from scalelab.sweep.crew import Crew
from scalelab.sweep.job import Job
from scalelab.sweep.running import Watching


def local(folder: Path, placing: dict[str, Any]) -> list[Crew]:
    """The one crew of this machine."""
    told = {name: placing.get(name) for name in ("jobs", "cpus_per_task", "gpus_per_task")}
    return [Crew("this machine", crews.here(), {"folder": str(folder.resolve()), "silence": None, **told}, folder)]


def hosts(folder: Path, placing: dict[str, Any]) -> list[Crew]:
    """A crew on each host, with as many tasks at once as it has slots. Raises ScalelabError for what names no hosts."""
    shares = {name: placing.get(name) for name in ("cpus_per_task", "gpus_per_task")}
    told = {"folder": None, "silence": SILENT, **shares}
    return [
        Crew(place.host, crews.there(place), {**told, "jobs": place.slots}, folder, dict(place.env))
        for place in hosts_of(placing["hosts"])
    ]


PLACES: dict[str, Callable[[Path, dict[str, Any]], list[Crew]]] = {"local": local, "hosts": hosts}
"""the places where this process hands out the tasks; Slurm does so itself (``slurm.py``)"""


def run(folder: Path, sweep: SweepRecord, jobs: list[Job], watch: Watching) -> None:
    """Run jobs of the sweep in ``folder``, which this process holds, whichever way they end.

    Raises ScalelabError, before anything ran, where there is no crew; RunError where none is left; KeyboardInterrupt after all tasks
    were ended.
    """
    made = PLACES[sweep.place](folder, sweep.placing)
    pausing = Pausing(lambda: made)
    try:
        running.greet(made)
        keeping.mark_launcher(folder)
        watch.ready()
        running.carry_out(made, jobs, watch)
    finally:
        for one in made:
            one.hang_up()
        for one in made:
            one.close()
        pausing.close()
        keeping.unmark_launcher(folder)
