"""``scalelab study NAME``: a question of the field, answered by trainings that are planned, run and analysed together."""

from __future__ import annotations

import hashlib
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from scalelab.cli.flags import Parser, add_common, add_spec
from scalelab.cli.places.placing import add_placing, check_all, launcher_of
from scalelab.cli.study import on_slurm
from scalelab.cli.study.flags import FIXED, StudyParser, add_options, asked_for, repeats_of
from scalelab.cli.study.shown import show, show_plan, tell_failures, tell_plan
from scalelab.cli.study.watch import StudyWatch
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.record.folder import write_atomic
from scalelab.record.study import StudyRecord
from scalelab.report.study import csv, write
from scalelab.studies import STUDIES, load
from scalelab.studies.running import keeping, planning, running
from scalelab.studies.slurm.concluding import conclude_now
from scalelab.studies.study import Asked, Study

USAGE = """usage: scalelab study NAME [flags]

A study answers one question with several trainings: it plans them, runs them, goes on where it stopped, and writes a page.

studies:
{studies}

`scalelab study NAME --help` shows a study's flags, with an example. `--dry-run` shows its plan, and how long it may take.

example:
  scalelab study weak-scaling --quick --data digits
"""

CONCLUDE = "--conclude"
CONCLUDED = "  scalelab study --conclude studies/weak-scaling-1a2b3c4d --csv rows.csv"


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    if not words or words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:15} {load(name).question}" for name in STUDIES)
        print(USAGE.format(studies=listed), end="")
        return 0 if words else 2
    if words[0] == CONCLUDE:
        return conclude(words[1:])
    if words[0].startswith("-"):
        raise ScalelabError(f"which study? its name comes first, before {words[0]}: one of {', '.join(STUDIES)}")
    study = load(words[0])
    parsed = parser_of(study).parse(words[1:])
    repeats = repeats_of(study, parsed)
    for flag, path in (("--csv", parsed.csv), ("-o", parsed.report)):
        if path and not Path(path).parent.is_dir():
            raise ScalelabError(f"{flag} {path!r}: the folder does not exist; make it, or choose another")
        if path and Path(path).is_dir():
            raise ScalelabError(f"{flag} {path!r}: is a folder; name a file in it")
    err = console(to_stderr=True)
    if on_slurm.wanted(parsed):
        on_slurm.refuse_hosts(study)
        asked = on_slurm.asked_there(asked_for(study, parsed, Pool()), on_slurm.wishes_of(parsed))
        folder = Path(parsed.folder or default_folder(study, asked))
        return on_slurm.run(study, parsed, folder, asked, repeats, err, lambda place, found: finish(parsed, place, found, err))
    with launcher_of(parsed) as launcher:
        asked = asked_for(study, parsed, launcher)
        check_all(launcher, asked.base)
        folder = Path(parsed.folder or default_folder(study, asked))
        planned = planning.plan(launcher, study, asked, repeats, folder, teller(study, parsed, err))
        if parsed.dry_run:
            return show_plan(console(), planning.described(planned), parsed.json)
        tell_plan(err, planning.described(planned))
        with StudyWatch(err) as watch:
            try:
                record = running.carry_out(launcher, planned, watch)
            except KeyboardInterrupt:
                watch.stop()
                tell_interrupted(err, folder)
                raise
    return finish(parsed, folder, record, err)


def conclude(words: list[str]) -> int:
    """``study --conclude FOLDER``: the report of what was trained so far. The exit status."""
    parser = Parser(
        f"study {CONCLUDE}", "The report of a study from the trainings that there are; nothing is trained.", CONCLUDED
    )
    parser.add_argument("folder", metavar="FOLDER", help="the study's folder")
    add_copies(parser)
    add_common(parser)
    parsed = parser.parse(words)
    folder = Path(parsed.folder).resolve()
    return finish(parsed, folder, conclude_now(folder), console(to_stderr=True))


def add_copies(parser: Parser) -> None:
    """The flags for further files that a study writes."""
    parser.add_argument("--csv", metavar="FILE", help="the rows of its tables, too, as CSV")
    parser.add_argument("-o", "--report", metavar="FILE", help="a copy of the page")


def teller(study: Study, parsed: Namespace, err: Console) -> Callable[[str], None]:
    """Who is told the question, which is a part of what --dry-run shows, and then what is done before it."""
    shown = console() if parsed.dry_run and not parsed.json else err

    def say(line: str) -> None:
        asked = line == study.question
        (shown if asked else err).print(line, markup=False, style="bold" if asked else "dim")

    return say


def parser_of(study: Study) -> StudyParser:
    """The study's flags: its own first, then those of every training."""
    parser = StudyParser(f"study {study.name}", study.question, study.example)
    parser.add_argument("--quick", action="store_true", help="small and once: a first look within minutes")
    times = "seeds" if study.seeded else "repeats"
    what = "seeds of each point, counted from --seed" if study.seeded else "trainings of each point, interleaved"
    parser.add_argument(
        f"--{times}", dest="repeats", metavar="N", help=f"{what} (default {study.repeats}, with --quick 1); more extend a study"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and how long it may take; nothing is trained")
    parser.add_argument("--out", dest="folder", metavar="FOLDER", help="the study's folder: the same command goes on there")
    add_copies(parser)
    add_placing(parser, commands=False)
    on_slurm.add_slurm(parser)
    add_options(parser, study)
    add_spec(parser, leave_out=FIXED, several=tuple(study.varies))
    parser.set_study_defaults(study)
    add_common(parser)
    return parser


def default_folder(study: Study, asked: Asked) -> str:
    """``studies/NAME-…``: one for each question, so the same command finds its own trainings again."""
    digest = hashlib.sha256(msgspec.json.encode(keeping.identity(study, asked), order="sorted")).hexdigest()[:8]
    return f"studies/{study.name}-{digest}"


def finish(parsed: Namespace, folder: Path, record: StudyRecord, err: Console) -> int:
    """The page, the copies that were asked for, and what a terminal shows; the exit status."""
    page = write(folder, record)
    record.report = str(page)
    keeping.save(folder, record)
    if parsed.csv:
        write_atomic(Path(parsed.csv), csv(record))
    if parsed.report and Path(parsed.report).resolve() != page.resolve():
        shutil.copyfile(page, parsed.report)
    if parsed.json:
        print(msgspec.json.encode(record).decode())
    else:
        show(console(), record)
    tell_failures(err, record)
    return 0 if record.status == "completed" else 1


def tell_interrupted(err: Console, folder: Path) -> None:
    """How far it came, and how it goes on."""
    record = keeping.read(folder) if folder.is_dir() else None
    if record is not None:
        planned = [one for one in record.trainings if one.status != "refused"]
        done = sum(one.status == "completed" for one in planned)
        err.print(
            f"{done} of {len(planned)} trainings are finished and kept; the same command goes on with the rest", markup=False
        )
