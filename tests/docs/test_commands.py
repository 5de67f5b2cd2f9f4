"""Every command in the documentation works as printed, and prints what the page says."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalelab import cli
from scalelab.launch.pool import Pool
from tests import support
from tests.cluster import needs
from tests.cluster.host import Host
from tests.docs.pages import Block, blocks, pages

COVERED = {
    "it is how one gets here": "installing: make test does it first; and `scalelab demo`, which docs/demo.md runs with fewer steps",
    "it takes minutes on all of CIFAR-10": "the figures on the page were made by it",
    "it takes a minute on the test cluster": "tests/cluster/test_study_slurm.py and tests/studies/test_every_study.py train it, smaller",
    "it needs a GPU": "tests/docs/test_tools.py tries the script on the CPU",
    "the hosts are the reader's": "docs/hosts.md and docs/doctor.md type such commands on the test cluster",
    "it builds Horovod": ".ci/run runs it before every test; tests/tools/test_build_horovod.py covers what goes wrong",
    "it takes a preemption": "tests/cluster/test_slurm_faults.py preempts a training, and more",
    "Chromium": "tests/docs/test_tools.py takes a picture where there is a browser",
}
"""why a block may be skipped, and what covers it instead"""


def programs() -> str:
    """PATH with scalelab's own before all others."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Iterator[tuple[Path, Pool]]:
    """The folder that all pages are typed in, and a warm server that was started there: torch is imported once for all of them."""
    folder, before = tmp_path_factory.mktemp("typed"), Path.cwd()
    os.chdir(folder)
    with Pool() as pool:
        pool.warm()
        pool.env["PATH"] = programs()
        os.chdir(before)
        yield folder, pool


@pytest.fixture
def here(desk: tuple[Path, Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to type in. What the page leaves there is put away, into the test's own folder."""
    folder, pool = desk
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", programs())
    for module in support.STARTERS:
        monkeypatch.setattr(f"scalelab.cli.{module}.Pool", lambda: contextlib.nullcontext(pool))
    yield folder
    for left in folder.iterdir():
        shutil.move(left, tmp_path)


Shell = Callable[[str], tuple[int, str]]
"""runs a command; its status and all that it prints"""
CLUSTERS = {"cluster": (), "slurm": needs.SLURM}
"""where a block may be typed instead: fixtures, and the programs that each needs"""


@pytest.mark.timeout(600)  # pages that type on the test cluster
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_works_as_printed(
    page: Path, here: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    unmet = []
    for block in blocks(page):
        variable, place = block.says("needs"), block.says("on")
        lacking = place and needs.lacking(*CLUSTERS[place])
        if (variable and not os.environ.get(variable)) or lacking:
            unmet.append(lacking or f"${variable}")
        elif place:
            type_in(block, here, on(request.getfixturevalue(place).h0, here))
        elif block.says("skip") is None:
            type_in(block, here, lambda command: run(command, capfd))
    if unmet:
        support.missing(f"{unmet[0]}, for {len(unmet)} block(s) of {page.name}; all others ran")


def type_in(block: Block, here: Path, shell: Shell) -> None:
    """Write the block's file, or run its commands and compare what they print."""
    if block.file:
        (here / block.file).write_text(block.body)
    expected = int(block.says("exit") or 0)
    commands, smaller = block.commands, block.says("with")
    for place, (command, shown) in enumerate(commands, 1):
        status, printed = shell(f"{command} {smaller}" if smaller and place == 1 else command)
        assert status == (expected if place == len(commands) else 0), f"$ {command}\nexit status {status}\n{printed}"
        for line in shown.splitlines():
            assert same(line, printed), f"$ {command}\nthe page shows\n    {line}\nbut it printed\n{printed}"


def run(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """A command's status and all that it prints. `scalelab` runs in this process, everything else in a shell."""
    words = [os.path.expandvars(word) for word in shlex.split(command)]
    if words[0] == "scalelab" and not {"|", ">", "&&"} & set(words) and "$" not in "".join(words) and "*" not in command:
        capfd.readouterr()
        status = cli.main(words[1:])
        printed = capfd.readouterr()
        return status, printed.out + printed.err
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


PATIENCE = 300
"""seconds for a command; all hosts of the test cluster share the machine's cores with whatever else runs there"""


def on(host: Host, folder: Path) -> Shell:
    """A shell on a host of the test cluster, in a folder that all its hosts see."""

    def type_there(command: str) -> tuple[int, str]:
        done = host.run(["bash", "-c", command], env={"COLUMNS": "140"}, cwd=folder, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    return type_there


def same(line: str, printed: str) -> bool:
    """Whether a line of the page is in what was printed. Errors must be equal; figures and names of runs may differ."""
    if line.startswith("scalelab: ") and "runs/" not in line:
        start, gap, end = line.partition("…")  # what depends on the machine is left out
        return any(one == line or (gap and one.startswith(start) and one.endswith(end)) for one in printed.splitlines())
    if not line.strip(" ┏━┳┓┡╇┩├─┼┤└┴┘"):  # a table's rules are as long as its figures
        return True
    label = re.split(r"\d|  |[│┃|\[–→…]", line.strip("│┃ "))[0].strip(" ┏┡└├─━")
    return label in printed


def test_an_error_on_a_page_must_be_the_one_that_is_printed() -> None:
    assert same("scalelab: --batch 65 does not divide", "one\nscalelab: --batch 65 does not divide\n")
    assert not same("scalelab: --batch 65 does not divide", "scalelab: --batch 65 is odd\n")
    assert not same("scalelab: --batch 65", "scalelab: --batch 65 is odd\n")
    assert same("scalelab: it raises (…/broken.py:3)", "scalelab: it raises (/a/broken.py:3)\n")


def test_figures_on_a_page_may_differ_but_not_their_names() -> None:
    assert same("throughput     7,125 images/s", "throughput   9 images/s")
    assert not same("thruput     7,125 images/s", "throughput   9 images/s")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        why = block.says("skip")
        assert why is None or why in COVERED, f"{page.name}: {block.directive}"
        for part in filter(None, block.directive.split("; ")):
            assert part.startswith(("exit ", "needs ", "with ", "skip, ", "on ")), f"{page.name}: unknown directive {part!r}"
        assert block.says("on") in (None, *CLUSTERS), f"{page.name}: {block.directive}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_python_and_yaml_on_a_page_are_files_that_its_commands_use(page: Path) -> None:
    found = blocks(page)
    typed = " ".join(command for block in found for command, _ in block.commands)
    for block in found:
        if block.language in ("python", "yaml"):
            assert block.file, f"{page.name}: a {block.language} block without a first line '# NAME'"
            assert block.file in typed, f"{page.name}: no command uses {block.file}"
