"""``scalelab explain`` at the terminal and for machines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from scalelab import strategies
from scalelab.strategies.formulas.explanation import Explained
from tests.conftest import Command
from tests.docs.test_tools import valid
from tests.trainings import VERIFY_FLAGS


def test_a_thousand_workers_take_one_process(command: Command) -> None:
    began = time.monotonic()
    ended = command("explain", "zero3", "--workers", 1024, "--batch", 4096, "--json")
    assert ended.status == 0, ended.err
    found = msgspec.json.decode(ended.out, type=Explained)
    assert (found.workers, found.derived.micro_batch) == (1024, 4)
    assert found.total_sent > 4 * found.model.bytes  # of 1024 parts most are padding for so small a model
    assert time.monotonic() - began < 60


def test_the_document_is_as_its_schema_says(command: Command) -> None:
    flags = [*VERIFY_FLAGS, "--workers", 2, "--batch-norm", "sync", "--count", "--json"]
    ended = command("explain", "zero1", *flags)
    assert ended.status == 0, ended.err
    valid(ended.out, "explain")
    found = msgspec.json.decode(ended.out, type=Explained)
    assert found.total_sent == pytest.approx(sum(part.bytes for part in found.sent))
    assert found.counted is not None
    assert found.counted.bytes_sent.median == pytest.approx(found.total_sent, rel=0.02)
    assert found.counted.memory.tensors is not None


def test_the_table_says_what_when_and_by_which_formula(command: Command) -> None:
    out = command("explain", "zero2", *VERIFY_FLAGS, "--workers", 4, "--shard", 2, "--accumulate", 2).out
    for part in (
        "all-gather",
        "m · (s-1)/s · P",
        "2 (r-1)/r · G/s",
        "s = 2",
        "r = 2",
        "gloo has none of its own",
        "sources: ZeRO",
    ):
        assert part in out
    assert (
        "gloo" not in command("explain", "zero2", *VERIFY_FLAGS, "--workers", 4, "--device", "cuda").out.partition("over nccl")[2]
    )


def test_one_process_sends_nothing(command: Command) -> None:
    ended = command("explain", "single", *VERIFY_FLAGS)
    assert ended.status == 0
    assert "nothing is sent" in ended.out


def test_the_spec_file_may_name_the_strategy(command: Command, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("strategy: zero1\nworkers: 3\nbatch: 24\n")
    found = json.loads(command("explain", "--spec", tmp_path / "spec.yaml", "--json").out)
    assert (found["strategy"], found["workers"]) == ("zero1", 3)


def test_deepspeeds_json_is_shown_with_the_users_own_merged(command: Command, tmp_path: Path) -> None:
    if not strategies.installed("deepspeed"):
        pytest.skip("missing: engine deepspeed (`make engines` installs it)")
    (tmp_path / "own.json").write_text('{"zero_optimization": {"reduce_bucket_size": 12345}}')
    flags = [*VERIFY_FLAGS, "--engine", "deepspeed", "--workers", 2, "--deepspeed-config", tmp_path / "own.json"]
    assert '"reduce_bucket_size": 12345' in command("explain", "zero2", *flags).out
    assert json.loads(command("explain", "zero2", *flags, "--json").out)["config"]["gradient_clipping"] == 0.0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "which strategy? `scalelab explain NAME`"),
        (["zero4"], "unknown strategy 'zero4'"),
        (["fsdp"], "is called zero3 here"),
        (["ddp", "zero1"], "'zero1' is not expected here"),
        (["dp"], "needs two or more"),
        (["zero3", "--workers", "3", "--shard", "2"], "does not divide --workers 3"),
        (["ddp", "--batch", "33"], "nearest: 32 or 34"),
        (["ddp", "--offload"], "has no such option"),
        (["pipeline", "--workers", "40", "--batch", "40"], "can't be cut into 40 stages"),
        (["single", "--steps", "3"], "unknown flag '--steps'"),
    ],
)
def test_what_can_not_be_explained_is_told_in_one_line(command: Command, words: list[str], part: str) -> None:
    ended = command("explain", *words)
    assert ended.status == 2
    assert part in ended.error


def test_a_strategy_without_formulas_says_how_to_give_them(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from scalelab.strategies.base import Strategy\nclass Mine(Strategy):\n    def wrap(self, model):\n        return model\n"
    )
    ended = command("explain", f"{tmp_path}/mine.py:Mine", *VERIFY_FLAGS)
    assert ended.status == 2
    assert "has no formulas: give its class a classmethod explain(facts)" in ended.error
