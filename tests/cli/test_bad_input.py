"""One line that says what is wrong and what to do, the right exit status, nothing half-written left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.conftest import Command, Ended
from tests.trainings import DATA_FLAGS, FLAGS, completed, only_run

MENDABLE: list[tuple[list[object], tuple[str, ...]]] = [
    (["--modle", "x"], ("unknown flag '--modle'", "did you mean '--model'?")),
    (["--zzz"], ("unknown flag '--zzz'", "--help")),
    (["extra"], ("'extra' is not expected here",)),
    (["--model"], ("--model", "expected one argument")),
    (["--model", "basic_cn"], ("unknown model 'basic_cn' (did you mean 'basic_cnn'?)", "resnet18", "torchvision:NAME")),
    (["--model", "torchvision:resnet19"], ("torchvision:resnet18",)),
    (["--model", "nowhere.py:build"], ("nowhere.py", "cannot be read")),
    (["--data", "cifar11"], ("unknown data", "did you mean 'cifar10'?", "digits", "synthetic")),
    (["--strategy", "ddpp"], ("unknown strategy 'ddpp' (did you mean 'ddp'?)", "zero3")),
    (["--strategy", "fsdp"], ("is called zero3 here",)),
    (["--strategy", "single", "--workers", 2], ("one process", "--workers 1")),
    (["--optimizer", "sdg"], ("unknown optimizer 'sdg' (did you mean 'sgd'?)", "adamw")),
    (["--schedule", "cosin"], ("unknown schedule 'cosin' (did you mean 'cosine'?)", "one-cycle")),
    (["--precision", "fp8"], ("--precision 'fp8'", "fp32, bf16, fp16, fp64")),
    (["--strategy", "ddp", "--workers", 5], ("--batch 24 does not divide over 5 workers", "20 or 25")),
    (["--strategy", "ddp", "--workers", 2, "--accumulate", 5], ("--accumulate 5", "4 or 6")),
    (["--strategy", "ddp", "--workers", 2, "--micro-batch", 5], ("--micro-batch 5", "4 or 6")),
    (["--batch-per-worker", 3, "--batch", 3], ("twice", "give one")),
    (["--workers", 0], ("--workers '0'", "at least 1")),
    (["--workers", -1], ("--workers '-1'", "at least 1")),
    (["--workers", "two"], ("--workers 'two'", "expected a whole number")),
    (["--batch", 1000], ("--batch 1000 is more than the 96 training samples", "at most 96")),
    (["--lr", 0], ("--lr '0'", "more than 0")),
    (["--model-arg", "width"], ("--model-arg 'width'", "KEY=VALUE")),
    (["--model-arg", "width=[3"], ("--model-arg 'width=[3': cannot be read as YAML",)),
    (["--model-arg", "width=2020-02-31"], ("day is out of range",)),
    (["--model-arg", "widht=3"], ("widht", "did you mean 'width'?")),
    (["--image-size", 4], ("8x8", "4x4")),
    (["--spec", "nowhere.yaml"], ("nowhere.yaml: no such spec file",)),
    (["--resume", "nowhere"], ("no run matches 'nowhere'", "runs list")),
    (["--data", "cifar10", "--data-dir", "/nowhere/at/all"], ("/nowhere/at/all",)),
    (["--device", "tpu"], ("--device 'tpu'", "auto, cpu, cuda")),
]


@pytest.mark.parametrize(
    ("words", "parts"), MENDABLE, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_what_the_user_can_mend(command: Command, tmp_path: Path, words: list[object], parts: tuple[str, ...]) -> None:
    ended = command("train", *FLAGS, "--out", tmp_path / "runs", *words)
    assert ended.status == 2
    for part in parts:
        assert part in ended.error
    assert ended.out == ""
    assert not (tmp_path / "runs").exists()


def test_cuda_where_there_is_none(command: Command, tmp_path: Path) -> None:
    import torch

    words = ["--data", "digits", "--device", "cuda", "--strategy", "ddp", "--batch-per-worker", 4]
    ended = command("train", *words, "--workers", torch.cuda.device_count() + 1, "--out", tmp_path / "r")
    assert ended.status == 2
    assert "use --device cpu" in ended.error
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command_name", ["verify", "explain", "demo", "report", "runs"])
def test_unknown_flags_of_every_command(command: Command, command_name: str) -> None:
    ended = command(command_name, "--jsno")
    assert ended.status == 2
    assert "did you mean '--json'?" in ended.error


def test_an_unknown_command(command: Command) -> None:
    ended = command("trian")
    assert ended.status == 2
    assert "unknown command 'trian' (did you mean 'train'?)" in ended.error


def test_debug_shows_the_traceback(command: Command) -> None:
    ended = command("train", "--workers", 0, "--debug")
    assert ended.status == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("scalelab: --workers")


USER_MODELS = {
    "def build(num_classes): raise ValueError('my own bug')": ("my own bug", ":1"),
    "def build(num_classes): return 3": ("must return a torch.nn.Module, not int",),
    "def build(num_classes)": ("is not Python", ":1"),
    "def other(num_classes): pass": ("has no 'build'", "it defines: other"),
    "build = 3": ("not a function",),
    "from torch import nn\ndef build(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(192, 7))": ("[2, 7]", "[2, 4]"),
    "from torch import nn\ndef build(num_classes): return nn.Conv2d(1, 4, 3)": ("cannot take images of 3x8x8",),
    "from torch import nn\ndef build(num_classes): return nn.Flatten()": ("[2, 192]",),
    "import nothing_like_it\ndef build(num_classes): pass": ("nothing_like_it", ":1"),
}


@pytest.mark.parametrize("source", USER_MODELS)
def test_a_users_model_that_is_wrong(command: Command, tmp_path: Path, source: str) -> None:
    (tmp_path / "own.py").write_text(source)
    ended = command("train", *DATA_FLAGS, "--model", f"{tmp_path}/own.py:build", "--out", tmp_path / "runs")
    assert ended.status == 2
    for part in USER_MODELS[source]:
        assert part in ended.error
    assert not (tmp_path / "runs").exists()


USER_DATA = {
    "def load(): raise OSError('no such tape')": "no such tape",
    "def load(): return 3": "own.py",
    "import numpy as np\nx = np.zeros((48, 3, 8, 8), np.float32); y = np.zeros(48, np.int64)\ndef load(): return (x, y), (x, y)": "uint8",
    "import numpy as np\nx = np.zeros((48, 3, 8, 8), np.uint8); y = np.full(48, -1)\ndef load(): return (x, y), (x, y)": "-1",
}


@pytest.mark.parametrize("source", USER_DATA)
def test_users_data_that_is_wrong(command: Command, tmp_path: Path, source: str) -> None:
    (tmp_path / "own.py").write_text(source)
    ended = command("train", "--data", f"{tmp_path}/own.py:load", "--batch", 24, "--out", tmp_path / "runs")
    assert ended.status == 2
    assert USER_DATA[source] in ended.error
    assert not (tmp_path / "runs").exists()


def test_data_that_is_an_empty_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = command("train", "--data", "cifar10", "--data-dir", tmp_path / "file", "--out", tmp_path / "runs")
    assert ended.status == 2
    assert f"{tmp_path}/file" in ended.error


def parquet(folder: Path, images: list[bytes], labels: list[int]) -> None:
    """A data set in the hub's layout."""
    folder.mkdir()
    table = pa.table({"img": [{"bytes": body, "path": None} for body in images], "label": labels})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")


def png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_that_does_not_decode_is_named_by_row(command: Command, tmp_path: Path) -> None:
    parquet(tmp_path / "data", [png(), png(), b"not an image", png()], [0, 1, 2, 3])
    ended = command("train", "--data", "cifar10", "--data-dir", tmp_path / "data", "--batch", 2, "--out", tmp_path / "runs")
    assert ended.status == 2
    assert "row 2" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_label_outside_the_classes(command: Command, tmp_path: Path) -> None:
    parquet(tmp_path / "data", [png()] * 4, [0, 1, 10, 3])
    ended = command("train", "--data", "cifar10", "--data-dir", tmp_path / "data", "--batch", 2, "--out", tmp_path / "runs")
    assert ended.status == 2
    assert "10" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("out", ["a-file", "a-file/below", "/proc/nothing"])
def test_an_output_folder_that_cannot_be_made(command: Command, tmp_path: Path, out: str) -> None:
    (tmp_path / "a-file").write_text("in the way")
    ended = command("train", *FLAGS, "--out", tmp_path / out)
    assert ended.status == 2
    assert told(ended).startswith("scalelab: --out ")
    assert "cannot be made there" in told(ended)


def told(ended: Ended) -> str:
    """The error's one line; lines before it said what was about to run, one after it may say how to go on."""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("scalelab: ")]
    return line


SPOILT = """
from torch import nn
class Net(nn.Sequential):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.calls == 10 else 1.0)
def build(num_classes):
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


def test_a_loss_that_becomes_nan_stops_at_its_step_and_keeps_the_last_good_checkpoint(command: Command, tmp_path: Path) -> None:
    (tmp_path / "spoilt.py").write_text(SPOILT)
    words = [*DATA_FLAGS, "--model", f"{tmp_path}/spoilt.py:build", "--strategy", "ddp", "--workers", 2, "--probe-steps", 0]
    ended = command("train", *words, "--epochs", 9, "--out", tmp_path / "runs")
    assert ended.status == 1
    assert "the loss became nan at step 10: try a lower --lr" in told(ended)
    assert f"its last checkpoint is kept: scalelab train --resume {only_run(tmp_path / 'runs')}" in ended.err
    folder = only_run(tmp_path / "runs")
    record = records.load(folder)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.expected
    assert (record.steps, len(record.losses)) == (9, 9)
    assert all(np.isfinite(record.losses))
    assert command("train", "--resume", folder, "--epochs", 3).status == 0  # calls are counted anew: from step 9 to 12
    assert records.load(folder).attempts[-1].first_step == 8


def test_a_nan_at_once(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--lr", 1e30, "--epochs", 2, "--out", tmp_path / "runs", "--json")
    assert ended.status == 1
    assert "the loss became" in told(ended)
    assert not list(only_run(tmp_path / "runs").rglob("*.tmp"))


GREEDY = """
import torch
from torch import nn
class Net(nn.Sequential):
    def forward(self, x):
        if self.training:
            torch.empty(10**15)
        return super().forward(x)
def build(num_classes):
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


@pytest.mark.parametrize("source", [GREEDY, GREEDY.replace("torch.empty(10**15)", "bytearray(10**15)")], ids=["torch", "python"])
def test_out_of_memory_says_what_to_change(command: Command, tmp_path: Path, source: str) -> None:
    (tmp_path / "greedy.py").write_text(source)
    ended = command("train", *DATA_FLAGS, "--model", f"{tmp_path}/greedy.py:build", "--out", tmp_path / "runs")
    assert ended.status == 1
    assert "out of memory: lower --micro-batch" in told(ended)
    assert records.load(only_run(tmp_path / "runs")).status == "failed"


def test_an_unknown_key_in_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("modle: basic_cnn\n")
    ended = command("train", "--spec", tmp_path / "spec.yaml", "--out", tmp_path / "runs")
    assert ended.status == 2
    assert f"{tmp_path}/spec.yaml: unknown key 'modle' (did you mean 'model'?)" in ended.error


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["runs", "shwo"], "unknown action 'shwo' (did you mean 'show'?)"),
        (["runs", "show", "nowhere"], "no run matches 'nowhere'"),
        (["runs", "compare", "one"], "compare takes two runs, not 1"),
        (["runs", "export", "xlsx"], "xlsx"),
        (["report", "nowhere"], "no run matches 'nowhere'"),
        (["report"], "no runs in"),
        (["demo", "--steps", 0], "--steps 0: expected a whole number, at least 1"),
        (["demo", "--steps", "many"], "many"),
        (["demo", "-o", "/nowhere/at/all/report.html"], "the folder does not exist"),
        (["verify", "--strategy", "ddpp"], "unknown strategy 'ddpp' (did you mean 'ddp'?)"),
        (["verify", "--strategy", "ddp", "zero3", "--batch", 33], "nearest: 32 or 34"),
    ],
)
def test_the_other_commands(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command(*words)
    assert ended.status == 2
    assert part in ended.error
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_damaged_is_named_and_the_rest_listed(command: Command, pool: Pool, tmp_path: Path) -> None:
    completed(pool, tmp_path)
    (tmp_path / "20200101T000000Z-broken-000000").mkdir()
    (tmp_path / "20200101T000000Z-broken-000000" / "record.json").write_text("{")
    ended = command("runs", "list", "--out", tmp_path)
    assert ended.status == 0
    assert "basic_cnn" in ended.out
    assert "broken-000000/record.json" in ended.err


def test_a_name_of_two_lines_makes_no_error_of_two(command: Command, tmp_path: Path) -> None:
    ended = command("runs", "show", "two\nlines", "--out", tmp_path)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "two\\nlines" in ended.err
