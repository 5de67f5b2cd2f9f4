"""The documentation's own tools: the schemas are fresh and true, a report has its picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from tests import support
from tests.conftest import Command
from tests.docs.pages import ROOT

SCHEMAS = ROOT / "docs" / "schema"


def tool(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *map(str, words)], capture_output=True, text=True, timeout=60
    )


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


def faults(value: Any, part: dict[str, Any], whole: dict[str, Any], at: str = "$") -> list[str]:
    """Where ``value`` is not what the JSON Schema says: the keywords that msgspec writes, and no key beyond the named ones."""
    if "$ref" in part:
        return faults(value, whole["$defs"][part["$ref"].rpartition("/")[2]], whole, at)
    if "anyOf" in part:
        found = [faults(value, one, whole, at) for one in part["anyOf"]]
        return [] if [] in found else min(found, key=len)
    if "enum" in part:
        return [] if value in part["enum"] else [f"{at}: {value!r} is none of {part['enum']}"]
    kind = part.get("type")
    if kind and not KINDS[kind](value):
        return [f"{at}: {value!r} is not of type {kind}"]
    if isinstance(value, dict) and "properties" in part:
        known = part["properties"]
        wrong = [f"{at}.{key}: missing" for key in part.get("required", []) if key not in value]
        wrong += [f"{at}.{key}: not in the schema" for key in value if key not in known]
        return wrong + [fault for key in value if key in known for fault in faults(value[key], known[key], whole, f"{at}.{key}")]
    if isinstance(value, list):
        types = part.get("prefixItems") or [part["items"] or {}] * len(value) if "items" in part or "prefixItems" in part else []
        return [
            fault
            for place, (one, type_) in enumerate(zip(value, types, strict=False))
            for fault in faults(one, type_, whole, f"{at}[{place}]")
        ]
    return []


KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def valid(text: str, name: str) -> None:
    whole = schema(name)
    assert not faults(json.loads(text), whole, whole)


def test_the_schemas_are_those_of_the_types() -> None:
    done = tool("make-schema", "--check")
    assert done.returncode == 0, done.stderr


def test_a_document_that_breaks_its_schema_is_seen() -> None:
    whole = schema("step")
    good = {
        "step": 1,
        "epoch": 1,
        "batch": 8,
        "learning_rate": 0.1,
        "loss": 2.0,
        "seconds": 0.1,
        "data_seconds": 0.0,
        "bytes_sent": None,
    }
    assert not faults(good, whole, whole)
    assert faults({**good, "loss": "2"}, whole, whole)
    assert faults({**good, "more": 1}, whole, whole)
    assert faults({k: v for k, v in good.items() if k != "step"}, whole, whole)


@pytest.fixture
def runs(tmp_path: Path, command: Command) -> Path:
    """Two real runs: one that completed, and one that failed."""
    out = tmp_path / "runs"
    assert (
        command(
            "train", "--out", out, "--strategy", "ddp", "--workers", 2, "--steps", 24, "--probe-steps", 2, "--name", "good"
        ).status
        == 0
    )
    assert command("train", "--out", out, "--steps", 12, "--lr", 1e30, "--name", "bad").status == 1
    return out


def test_what_a_run_leaves_and_prints_is_as_its_schema_says(runs: Path, command: Command) -> None:
    for folder in runs.iterdir():
        valid((folder / "record.json").read_text(), "train")
        valid(json.dumps(yaml.safe_load((folder / "spec.yaml").read_text())), "spec")
        for line in (folder / "steps.jsonl").read_text().splitlines():
            valid(line, "step")
    valid(command("runs", "show", "good", "--out", runs, "--json").out, "train")
    for record in json.loads(command("runs", "list", "--out", runs, "--json").out):
        valid(json.dumps(record), "train")
    valid(command("runs", "compare", "good", "bad", "--out", runs, "--json").out, "comparison")


def test_what_verify_prints_is_as_its_schema_says(command: Command) -> None:
    valid(command("verify", "--strategy", "ddp", "--json").out, "verify")


def test_what_the_demo_prints_is_as_its_schema_says(tmp_path: Path, command: Command) -> None:
    done = command("demo", "--steps", 6, "--out", tmp_path / "runs", "-o", tmp_path / "report.html", "--json")
    valid(done.out, "demo")


def test_a_report_has_its_picture(runs: Path, command: Command, tmp_path: Path) -> None:
    support.browser()
    report, picture = tmp_path / "report.html", tmp_path / "report.png"
    assert command("report", "--out", runs, "-o", report).status == 0
    done = tool("screenshot", report, picture, "--width", 900, "--height", 700)
    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image:
        assert image.size == (900, 700)
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20, "a blank page"


def test_the_picture_in_the_readme_is_small() -> None:
    assert os.path.getsize(ROOT / "docs" / "images" / "report.png") <= 400_000


def test_the_gpu_benchmark_runs_on_a_cpu_too_and_replaces_only_its_results(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    words = "--device cpu --rounds 1 --steps 6 --only zero3 --set model=basic_cnn data=digits train_limit=256 batch=32 --write"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words.split(), str(page)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "| zero3 | " in page.read_text()
    assert "None yet" not in page.read_text()
    assert page.read_text().startswith("# On a GPU\n\nWith one CUDA device")
    assert page.read_text().count("<!-- results: ") == 1


def test_the_gpu_benchmark_says_when_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "use --device cpu" in done.stderr
