"""``scalelab report``: recorded runs as one page to read and to send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.summary import readable
from scalelab.cli.sweep.actions import results
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError, unknown
from scalelab.record.folder import write_atomic
from scalelab.record.study import StudyRecord
from scalelab.report import FORMATS, study, write
from scalelab.studies.running.keeping import FILE as STUDY
from scalelab.studies.running.keeping import RUNS, read
from scalelab.sweep.keeping import SWEEP

EXAMPLE = """  scalelab report
  scalelab report runs/20260101T120000Z-basic_cnn-ddp-1a2b3c zero3-4d5e6f -o compare.html
  scalelab report --format md -o report.md
  scalelab report studies/weak-scaling-1a2b3c4d -o weak-scaling.html"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser("report", "Show recorded runs as one self-contained page: no network, fit to be mailed.", EXAMPLE)
    parser.add_argument(
        "names",
        metavar="RUN",
        nargs="*",
        help="a run's folder, a unique part of its name, or latest; all runs when left out; or the folder of a study, or of a sweep",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default report.html, or report.FORMAT)")
    parser.add_argument("--format", metavar="|".join(FORMATS), help="default: what the file's name ends in, else html")
    parser.add_argument("--out", metavar="FOLDER", default="runs", help="folder that holds the runs (default runs)")
    parser.add_argument("--title", metavar="TEXT", help="the page's title")
    parser.add_argument("--question", metavar="TEXT", help="what was asked")
    add_common(parser)
    parsed = parser.parse(words)
    ending = Path(parsed.output or "").suffix.removeprefix(".")
    kind = parsed.format or (ending if ending in FORMATS else "html")
    if len(parsed.names) == 1 and (Path(parsed.names[0]) / STUDY).is_file():
        for flag, value in (("--title", parsed.title), ("--question", parsed.question)):
            if value is not None:
                raise ScalelabError(f"{flag} {value!r}: a study's page has its own; leave it away")
        return of_study(Path(parsed.names[0]), parsed.output, kind, parsed.json)
    if len(parsed.names) == 1 and (Path(parsed.names[0]) / SWEEP).is_file():
        return results([parsed.names[0], "-o", parsed.output or f"report.{kind}", *(["--json"] if parsed.json else [])])
    folders = list(readable(parsed.names, Path(parsed.out)))
    if not folders:
        raise ScalelabError(f"no runs in {parsed.out}; `scalelab train` or `scalelab demo` makes one")
    path = write(folders, Path(parsed.output or f"report.{kind}"), kind, parsed.title, parsed.question)
    if parsed.json:
        print(msgspec.json.encode({"report": str(path), "runs": [str(f) for f in folders]}).decode())
    else:
        console().print(f"{path}: {len(folders)} run{'s' * (len(folders) > 1)}, {path.stat().st_size / 1e6:.1f} MB", markup=False)
    return 0


def of_study(folder: Path, output: str | None, kind: str, as_json: bool) -> int:
    """The page of a study, made anew from its record, or its rows; the exit status."""
    if kind not in OF_STUDY:
        raise unknown("format of a study", kind, OF_STUDY)
    record = read(folder)
    assert record is not None, "the caller has seen it"
    path = Path(output or f"report.{kind}")
    if not path.parent.is_dir():
        raise ScalelabError(f"{path}: the folder {str(path.parent)!r} does not exist; make it, or choose another -o")
    OF_STUDY[kind](folder, record, path)
    if as_json:
        print(msgspec.json.encode({"report": str(path), "runs": [str(folder / RUNS / name) for name in record.runs]}).decode())
    else:
        console().print(f"{path}: study {record.study}, {path.stat().st_size / 1e6:.1f} MB", markup=False)
    return 0


OF_STUDY: dict[str, Callable[[Path, StudyRecord, Path], object]] = {
    "html": study.write,
    "csv": lambda folder, record, path: write_atomic(path, study.csv(record)),
}
