"""The user's own functions: ``path/to/file.py:name`` in a flag becomes the object of that name.

Whatever is wrong in the user's file is told in one line with its file and line number. A file is executed
afresh at each load, under a module name made from its path, so two files of the same name never meet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from scalelab.errors import ScalelabError, nearest

LIBRARIES = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
"""Folders of code that is not the user's."""


def is_reference(text: str) -> bool:
    """Whether ``text`` means a user's file (``path/to/file.py:name``) and not a name in a registry."""
    return text.endswith(".py") or ".py:" in text


def load_symbol(reference: str, kind: str) -> Callable[..., Any]:
    """The callable that ``reference`` (``path/to/file.py:name``; a relative path starts at the cwd) names.

    ``kind`` says in the errors what it is for (``model``). The path may hold spaces, quotes and colons: the name
    is what follows the last ``.py:``. Raises ScalelabError: no such file, a syntax error, a file that raises when
    it is executed, a missing name (the nearest is offered), something that cannot be called.
    """
    match = re.fullmatch(r"(?s)(.+\.py):(\w+)", reference)
    if not match or not match[2].isidentifier():
        raise ScalelabError(f"{kind} {reference!r}: write path/to/file.py:name, the file and the name of a function in it")
    path, name = Path(match[1]).expanduser(), match[2]
    module = _execute(path, kind)
    if not hasattr(module, name):
        own = [
            key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__ and callable(value)
        ]
        listed = f"; it defines: {', '.join(own)}" if own else ""
        raise ScalelabError(f"{kind} {reference!r}: {path} has no '{name}'{nearest(name, own)}{listed}")
    symbol = getattr(module, name)
    if not callable(symbol):
        raise ScalelabError(f"{kind} {reference!r}: '{name}' is of type {type(symbol).__name__}, not a function")
    return symbol  # type: ignore[no-any-return]


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn what the user's code raises inside into one line: ``what``, then the exception, its file and line."""
    try:
        yield
    except ScalelabError:
        raise
    except (Exception, SystemExit) as error:
        # The deepest frame that is neither ours nor a library's is the line the user can mend.
        own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*LIBRARIES, "<"))]
        here = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        raise ScalelabError(f"{what}: {one_line(error)}{here}") from error


def one_line(error: BaseException) -> str:
    """``TypeError: what it says``, whitespace collapsed, at most 300 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return text if len(text) <= 300 else text[:297] + "..."


def _execute(path: Path, kind: str) -> ModuleType:
    """The module in the file at ``path``, executed. Raises ScalelabError."""
    try:
        source = path.read_bytes()
    except OSError as error:
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise ScalelabError(f"{kind}: the file {str(path)!r} cannot be read: {error.strerror}{where}") from None
    path = path.resolve()
    name = f"scalelab_user_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:16]}"
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ScalelabError(f"{kind}: {path}{f':{line}' if line else ''}: is not Python: {one_line(error)}") from None
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and typing look a class's module up there
    sys.path.insert(0, str(path.parent))  # a file may import its neighbours, as when Python runs it
    try:
        with blame(f"{kind}: {path} raises"):
            exec(code, vars(module))  # noqa: S102
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        if str(path.parent) in sys.path:
            sys.path.remove(str(path.parent))
    return module
