"""References to the user's own functions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.userfile import blame, is_reference, load_symbol


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name", ["plain.py", "with space.py", 'it\'s "quoted".py', "a:b.py", "x.py:y.py", "naïve;$(touch x).py", "new\nline.py"]
)
def test_any_file_name_will_do(tmp_path, name):
    path = write(tmp_path / "my folder: 1" / name, "def f(): return 41 + 1\n")
    assert is_reference(f"{path}:f")
    assert load_symbol(f"{path}:f", "model")() == 42


def test_a_relative_path_starts_at_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path / "sub" / "m.py", "def f(): return __file__\n")
    monkeypatch.chdir(tmp_path)
    assert load_symbol("sub/m.py:f", "model")() == str(tmp_path / "sub" / "m.py")


@pytest.mark.parametrize("text", ["digits", "torchvision:resnet50", "timm:vit_tiny_patch16_224", "file.python:f", ""])
def test_names_of_registries_are_no_references(text):
    assert not is_reference(text)


def test_two_files_of_one_name_do_not_meet(tmp_path):
    one, two = (load_symbol(f"{write(tmp_path / k / 'm.py', f'def f(): return {k!r}')}:f", "model") for k in ("a", "b"))
    assert (one(), two()) == ("a", "b")
    assert one.__module__ != two.__module__


def test_a_file_may_define_dataclasses_and_import_its_neighbour(tmp_path):
    write(tmp_path / "neighbour_of_m.py", "X = 7\n")
    path = write(
        tmp_path / "m.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom neighbour_of_m import X\n"
        "@dataclass\nclass P:\n    v: int = X\ndef f(): return P().v\n",
    )
    before = list(sys.path)
    assert load_symbol(f"{path}:f", "model")() == 7
    assert sys.path == before


def test_a_changed_file_is_executed_anew(tmp_path):
    path = write(tmp_path / "m.py", "def f(): return 1\n")
    load_symbol(f"{path}:f", "model")
    write(path, "def f(): return 2\n")
    assert load_symbol(f"{path}:f", "model")() == 2


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("def f(:\n  pass\n", "f", ["m.py:1", "SyntaxError"]),
        ("x = 1\n\x00", "f", ["m.py", "is not Python"]),
        ("x = 1\n\ny = x / 0\n", "f", ["raises: ZeroDivisionError", "m.py:3"]),
        ("import no_such_library\n", "f", ["ModuleNotFoundError", "no_such_library", "m.py:1"]),
        ("import sys\nsys.exit('bye')\n", "f", ["SystemExit: bye", "m.py:2"]),
        ("raise ValueError('two\\nlines')\n", "f", ["ValueError: two lines"]),
        ("def build(): pass\ndef other(): pass\n", "biuld", ["has no 'biuld'", "did you mean 'build'?", "build, other"]),
        ("from os import getcwd\n", "f", ["has no 'f'"]),
        ("f = 3\n", "f", ["'f' is of type int, not a function"]),
    ],
)
def test_whatever_is_wrong_with_the_file_is_told_in_one_line(tmp_path, text, name, parts):
    modules = set(sys.modules)
    with pytest.raises(ScalelabError) as caught:
        load_symbol(f"{write(tmp_path / 'm.py', text)}:{name}", "model")
    message = str(caught.value)
    assert message.startswith("model")
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    if "raises" in message:
        assert set(sys.modules) == modules


@pytest.mark.parametrize("reference", ["m.py", "m.py:", "m.py:a-b", "m.py:1a", ".py:f"])
def test_a_reference_without_a_name_is_explained(reference):
    with pytest.raises(ScalelabError, match=r"write path/to/file\.py:name"):
        load_symbol(reference, "data")


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    (tmp_path / "d.py").mkdir()
    with pytest.raises(ScalelabError, match="No such file"):
        load_symbol(f"{tmp_path}/m.py:f", "data")
    with pytest.raises(ScalelabError, match="Is a directory"):
        load_symbol(f"{tmp_path}/d.py:f", "data")


def test_the_line_blamed_is_the_users_and_not_a_librarys(tmp_path):
    path = write(tmp_path / "m.py", "import json\ndef f():\n    return json.loads('{')\n")
    with pytest.raises(ScalelabError, match=r"m\.py:3\)$"), blame("it raises"):
        load_symbol(f"{path}:f", "data")()
