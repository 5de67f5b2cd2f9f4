"""tools/build-horovod: what it refuses, what it leaves behind, and whose turn it is. No test compiles."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from scalelab import strategies
from scalelab.errors import NotApplicable
from scalelab.strategies import ENGINES, Engine

TOOL = Path(__file__).parents[2] / "tools" / "build-horovod"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("build_horovod", str(TOOL))
    spec = importlib.util.spec_from_loader("build_horovod", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def program(folder: Path, name: str, body: str) -> Path:
    """An executable ``name`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return path


def build(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tool as a user runs it, for a Horovod that no cache holds."""
    values = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOROVOD_GPU_OPERATIONS": "test", **environment}
    return subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, env=values, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_the_version_says_what_it_is_built_for(builder: ModuleType, tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path / "none")}
    plain = builder.version("2.15.0+cu132", nothing)
    assert plain.startswith("0.28.1+torch2.15.0.cu132.gloo.p")
    assert plain != builder.version("2.11.0+cpu", nothing)
    assert ".nccl.p" in builder.version("2.15.0", {**nothing, "HOROVOD_GPU_OPERATIONS": "NCCL"})


def test_each_mpi_gets_a_wheel_of_its_own(builder: ModuleType, tmp_path: Path) -> None:
    """Open MPI's and MPICH's libraries are not interchangeable."""
    found = []
    for name in ("open", "mpich"):
        program(tmp_path / name, "mpicxx", f"print('g++ -l{name}')")
        found.append(builder.version("2.15.0", {"PATH": str(tmp_path / name)}))
    assert all(".gloo.mpi" in version for version in found)
    assert found[0] != found[1]


def test_an_mpi_that_came_as_a_wheel_into_this_environment_counts_for_none(builder: ModuleType, tmp_path: Path) -> None:
    own = sysconfig.get_path("scripts")
    assert builder.version("2.15.0", {"PATH": own}) == builder.version("2.15.0", {"PATH": str(tmp_path)})
    program(tmp_path / "open", "mpicxx", "print('g++')")
    built = builder.settings({"PATH": f"{own}:{tmp_path}/open"}, "0.28.1+gloo.mpi1")
    assert built["PATH"] == f"{tmp_path}/open:{own}", "CMake sees the system's first"


def test_what_is_missing_is_told_in_one_line_with_the_command_that_brings_it(tmp_path: Path) -> None:
    line = last_line(build(tmp_path, PATH=str(tmp_path / "none")))
    assert line == "build-horovod: missing: cmake, make, a C++ compiler (on Debian: tools/install-system-packages)"


def test_a_build_that_fails_leaves_no_wheel_and_says_where_its_words_are(tmp_path: Path) -> None:
    uv = program(tmp_path / "bin", "uv", "import sys; print('fatal error: no such thing'); sys.exit(1)")
    line = last_line(build(tmp_path / "cache", UV=str(uv)))
    assert "the build failed: fatal error: no such thing (all of it: " in line
    wheels = tmp_path / "cache" / "scalelab" / "wheels"
    assert Path(line.partition("all of it: ")[2].removesuffix(")")).parent == wheels
    assert sorted(path.name for path in wheels.iterdir()) == ["build-horovod.log", "lock"]


def test_the_words_of_cmake_and_of_a_compiler_are_found(builder: ModuleType) -> None:
    pip = "  error: subprocess-exited-with-error\n"
    cmake = (
        "-- Found Python\nCMake Error at CMakeLists.txt:3 (message):\n\n  Could NOT find NCCL\n-- Configuring incomplete, errors!"
    )
    assert builder.reason(pip + cmake) == "CMake Error at CMakeLists.txt:3 (message): Could NOT find NCCL"
    assert builder.reason(pip + "a.cc:1:2: error: no such type\nmake: *** [all] Error 2") == "a.cc:1:2: error: no such type"
    assert builder.reason("a\nKilled\n") == "Killed"


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "scalelab" / "wheels" / "building-left"
    left.mkdir(parents=True)
    uv = program(tmp_path / "bin", "uv", "import sys; sys.exit(1)")
    build(tmp_path, UV=str(uv))
    assert not left.exists()


def test_an_unknown_argument_is_refused() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--help"], capture_output=True, text=True, check=False)
    assert last_line(done) == "build-horovod: takes --name or nothing, not --help"


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = last_line(build(tmp_path / "file"))
    assert line.endswith("XDG_CACHE_HOME may name another folder")


def test_a_source_that_is_not_the_one_patched_is_refused(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("set(CMAKE_CXX_STANDARD 17)")
    with pytest.raises(builder.Failure, match=r"CMakeLists\.txt of Horovod 0\.28\.1 is not the file that this patches"):
        builder.patch(tmp_path, builder.PATCHES)


def test_only_one_at_a_time(builder: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with builder.alone(tmp_path):
            order.append("second")

    with builder.alone(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        said = ""
        for _ in range(300):  # until it has come to the lock, however busy the machine is
            said += capfd.readouterr().err
            if "waits for another one to finish" in said:
                break
            time.sleep(0.1)
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]
    assert "waits for another one to finish" in said


def test_a_wheel_in_the_cache_is_taken(builder: ModuleType, tmp_path: Path) -> None:
    flavour = builder.version("2.15.0", {"PATH": ""})
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    names = (f"horovod-{flavour}-{tag}-{tag}-linux_{machine}.whl" for machine in ("x86_64", "aarch64"))
    kept = [tmp_path / name for name in names]
    for path in kept:
        path.touch()
    assert builder.wheel(tmp_path, flavour) in kept


def test_an_engine_that_is_not_there_is_told_with_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "horovod", Engine("a_package_that_is_not_there", ENGINES["horovod"].install))
    with pytest.raises(NotApplicable, match="--engine horovod is not installed: `make engines` installs it"):
        strategies.load("ddp", "horovod")
