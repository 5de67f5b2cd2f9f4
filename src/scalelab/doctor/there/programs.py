"""What programs and libraries of this host say of themselves, each asked in a process of its own."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

Run = Callable[[list[str], float], tuple[int, str]]
"""(a program and its arguments, seconds that it may take) → exit status, what it printed"""
PATIENCE = 60.0
"""seconds that a library may take to be imported on a busy host"""
TORCH = """
import json, torch, torch.distributed as dist
there = dist.is_available()
found = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "devices": torch.cuda.device_count()}
found["names"] = [torch.cuda.get_device_name(n) for n in range(found["devices"])]
names = ("gloo", "nccl", "mpi", "ucc", "xccl")
found["backends"] = [n for n in names if there and getattr(dist, f"is_{n}_available", lambda: False)()]
if there: found["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if "nccl" in found["backends"] and found["devices"] else None
try:
    import horovod.torch as hvd
    found["horovod"] = {"gloo": bool(hvd.gloo_built()), "mpi": bool(hvd.mpi_built()), "nccl": bool(hvd.nccl_built())}
except Exception as error:
    found["horovod"] = {"error": str(error)}
print("\\n" + json.dumps(found))
"""
DEEPSPEED = """
import json, deepspeed
print("\\n" + json.dumps({"version": deepspeed.__version__}))
"""
MPIS = {
    "Open MPI": "Open MPI",
    "OpenRTE": "Open MPI",
    "HYDRA": "MPICH (Hydra)",
    "Intel(R) MPI": "Intel MPI",
    "mvapich": "MVAPICH",
}
"""what their mpiexec says of itself, and whose it is"""


def tell(question: dict[str, Any]) -> dict[str, Any]:
    """What can be asked, at once: {"torch", "deepspeed", "mpi", "gpus"}, each with an "error" where it does not work.

    Who is interrupted ends the programs that were asked, and does not wait for them.
    """
    started: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(len(ASKED)) as threads:
        try:
            asked = {name: threads.submit(ask, partial(_run, started)) for name, ask in ASKED.items()}
            return {name: future.result() for name, future in asked.items()}
        except BaseException:
            for program in started:
                program.kill()
            raise


def torch(run: Run) -> dict[str, Any]:
    """Version, backends, devices; Horovod's too, which is imported with it."""
    return _python(run, "torch", TORCH)


def deepspeed(run: Run) -> dict[str, Any] | None:
    """Version, and the operations that were built when it was installed; None where it is not."""
    spec = importlib.util.find_spec("deepspeed")
    if spec is None:
        return None
    return {
        **_python(run, "deepspeed", DEEPSPEED),
        "built": _built(Path(spec.origin or "").parent / "git_version_info_installed.py"),
    }


def mpi(run: Run) -> dict[str, Any] | None:
    """Where mpiexec is, and whose; None where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    path = shutil.which("mpiexec", path=places) or shutil.which("mpirun", path=places)
    if path is None:
        return None
    done = run([path, "--version"], 10.0)
    said = next((whose for words, whose in MPIS.items() if words.lower() in done[1].lower()), None)
    return {"path": path, "whose": said, "said": next(iter(done[1].splitlines()), "")}


def gpus(run: Run) -> dict[str, Any] | None:
    """What nvidia-smi tells of GPUs and the links between them; None where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "name,memory.total,driver_version,compute_mode"
    status, said = run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], 15.0)
    if status:
        return {"error": next(iter(said.splitlines()), f"nvidia-smi ended with {status}")}
    rows = [[word.strip() for word in line.split(",")] for line in said.splitlines() if line.strip()]
    return {"rows": rows, "links": links(run(["nvidia-smi", "topo", "-m"], 15.0)[1])}


def links(matrix: str) -> dict[str, str]:
    """{"GPU0-GPU1": "NV4"} of the matrix that ``nvidia-smi topo -m`` prints."""
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", matrix).splitlines() if "GPU" in line]
    if not lines:
        return {}
    names = [word for word in lines[0] if word.startswith("GPU") and word[3:].isdigit()]
    rows = {line[0]: line[1:] for line in lines[1:] if line[0] in names}
    return {f"{a}-{b}": rows[a][names.index(b)] for a in rows for b in names if names.index(a) < names.index(b) < len(rows[a])}


def _built(path: Path) -> list[str]:
    """The operations that DeepSpeed's own file of its build lists as made. It is read, not run."""
    try:
        lines = path.read_text().splitlines()
        text = next(line.partition("=")[2] for line in lines if line.startswith("installed_ops="))
        return [name for name, made in ast.literal_eval(text).items() if made]
    except (OSError, StopIteration, ValueError, SyntaxError):
        return []


def _python(run: Run, package: str, code: str) -> dict[str, Any]:
    """The JSON that ends a program's output, or {"error"}; ``package``: what it is about."""
    if importlib.util.find_spec(package) is None:
        return {"error": f"no {package} for {sys.executable}"}
    status, said = run([sys.executable, "-c", code], PATIENCE)
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    if status == 0 and last.startswith("{"):
        found: dict[str, Any] = json.loads(last)
        return found
    return {"error": last or f"import {package} ended with {status}"}


def _run(started: list[subprocess.Popen[str]], line: list[str], seconds: float) -> tuple[int, str]:
    """Exit status, and what was printed: to standard output, or to standard error where it failed. The program is added to ``started``."""
    pipe = subprocess.PIPE
    try:
        program = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace")
    except OSError as error:
        return 127, str(error)
    started.append(program)
    with program:
        try:
            said, complained = program.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            program.kill()
            return 124, f"no answer within {seconds:g} seconds"
    return program.returncode, said if program.returncode == 0 else complained or said


ASKED: dict[str, Callable[[Run], Any]] = {"torch": torch, "deepspeed": deepspeed, "mpi": mpi, "gpus": gpus}
