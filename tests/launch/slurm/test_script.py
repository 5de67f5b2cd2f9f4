"""Batch scripts: what stands in them reaches the commands as it was, whatever it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.request import Request
from scalelab.launch.slurm.script import Script, filename, option_quoted

HOSTILE = 'a\'; echo foo "x" $HOME `id` ü %j #5'


def test_a_script_is_what_a_person_would_write(tmp_path: Path) -> None:
    request = Request(4, 8, 2, 8, "gpu", "1:00:00", "lab", ("--qos=high", "--exclusive"), "night", stop_seconds=60)
    text = Script(request, Path("/work"), Path("/runs/a/out.txt"), [["python", "-m", "x"]], ["A job."]).text()
    assert text.splitlines() == [
        "#!/bin/bash", "# A job.", "#SBATCH --job-name=night", "#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=8",
        "#SBATCH --cpus-per-task=2", "#SBATCH --gpus-per-node=8", "#SBATCH --partition=gpu", "#SBATCH --time=1:00:00",
        "#SBATCH --account=lab", "#SBATCH --signal=B:USR1@60", "#SBATCH --qos=high", "#SBATCH --exclusive",
        "#SBATCH --output=/runs/a/out.txt", "", "cd -- /work", "exec python -m x",
    ]  # fmt: skip


def test_words_and_folders_arrive_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    words = [HOSTILE, "-rf", "two\nlines", ""]
    program = "import json, os, sys; print(json.dumps([os.getcwd(), os.environ['X'], sys.argv[1:]]))"
    script = Script(Request(), folder, folder / "out", [[sys.executable, "-c", program, *words]], environment={"X": HOSTILE})
    (tmp_path / "job.sh").write_text(script.text())
    done = subprocess.run(["bash", tmp_path / "job.sh"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [str(folder), HOSTILE, words]


def test_a_line_break_can_not_become_an_option() -> None:
    for values in ({"partition": "a\n#SBATCH --x"}, {"name": "a\rb"}, {"args": ("--comment=a\nb",)}):
        with pytest.raises(ScalelabError, match="can't hold a line break"):
            Request(**values)  # type: ignore[arg-type]
    with pytest.raises(ScalelabError, match="can't hold a line break"):
        filename(Path("/runs/a\nb"))


def test_what_is_no_option_of_sbatch_is_refused() -> None:
    with pytest.raises(ScalelabError, match="an option of sbatch begins with -"):
        Request(args=("qos=high",))


def test_a_path_is_no_pattern_for_slurm() -> None:
    assert filename(Path("/a/%j")) == "/a/%%j"
    with pytest.raises(ScalelabError, match="backslash"):
        filename(Path("/a\\b"))


def test_options_are_quoted_where_they_must_be() -> None:
    assert option_quoted("--output=/a/b") == "--output=/a/b"
    assert option_quoted('--comment=a "b" #5') == '--comment="a \\"b\\" #5"'
