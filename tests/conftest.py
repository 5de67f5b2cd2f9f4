"""What all tests share: one preloaded server for every training of the session, and the command line on top of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scalelab import cli
from scalelab.launch.pool import Pool
from scalelab.record.schema import TrainRecord
from tests import support
from tests.trainings import Reference, completed

STRAY = re.compile(
    "COLUMNS|LINES|NO_COLOR|FORCE_COLOR|TZ|LANG|LC_.*|GIT_.*|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_.*|GROUP_RANK|"
    "(SCALELAB|SLURM|SBATCH|OMPI|PMIX?|MPI|TORCHELASTIC)_.*"
)
"""variables that change what is shown, or make a test a process of some cluster: of the terminal, the place, the job that tests run in"""


def pytest_configure() -> None:
    """Tests find the same environment everywhere, with UTF-8."""
    for name in filter(STRAY.fullmatch, list(os.environ)):
        del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"


@pytest.fixture(autouse=True)
def _environment_as_it_was(_own_cache: None) -> Iterator[None]:
    """What a test, or a library in it, sets in this process is not the next one's."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache of data sets; worker processes inherit that, and find this package."""
    os.environ["SCALELAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def pool(_own_cache: None) -> Iterator[Pool]:
    """One warm server: a training costs half a second instead of the import of torch."""
    with Pool() as pool:
        pool.warm()
        yield pool


@pytest.fixture(scope="session")
def reference(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What others are held against: a small training, run once in the session for each set of values."""
    seen: dict[str, tuple[Path, TrainRecord]] = {}

    def once(**values: object) -> tuple[Path, TrainRecord]:
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            out = tmp_path_factory.mktemp("reference")
            seen[key] = out, completed(pool, out, **values)
        return seen[key]

    return once


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a user reads on stderr; fails the test when it is not one line of ours."""
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("scalelab: ")
        return lines[0].removeprefix("scalelab: ")


Command = Callable[..., Ended]


@pytest.fixture
def command(pool: Pool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """``command("train", "--steps", 3)``: the real command line in this process, on the session's warm server."""
    for module in support.STARTERS:
        monkeypatch.setattr(f"scalelab.cli.{module}.Pool", lambda: contextlib.nullcontext(pool))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*words: object) -> Ended:
        capfd.readouterr()
        status = cli.main([str(word) for word in words])
        return Ended(status, *capfd.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
