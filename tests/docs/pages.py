"""The documentation read as what a person would type: fenced blocks, and the directives above them.

    ```console     lines that start with `$ ` are commands, the others are what they print
    ```bash        every line is a command
    ```python      a file; its first line, `# NAME.py`, names it (```yaml likewise, and ```text whose first line is `# NAME.txt`)

`<!-- test: … -->` before a block says what the reader does not see: `exit 2` (the status of its last command),
`needs NAME` (an environment variable), `skip, WHY`, `with FLAGS` (added to its first command: what takes minutes is tried small),
`on cluster` or `on slurm` (its commands are typed on h0 of the test cluster of that name, in the same folder; there they have no
state but files: each is a process of its own); several are parted by `; `.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("benchmarks.md",)
"""pages that a program writes, and that hold no commands to type"""
BLOCK = re.compile(r"(?:<!-- test: (?P<directive>[^>]*?) -->\s*\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
FILE = re.compile(r"# (?P<name>[\w.-]+\.(?:py|ya?ml|txt))\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the directive above it."""

    language: str
    body: str
    directive: str

    def says(self, word: str) -> str | None:
        """What stands after ``word`` in the directive: ``2`` for ``exit 2``; None where it does not say that."""
        parts = (part for part in self.directive.split("; ") if part.startswith((f"{word} ", f"{word}, ")))
        return next((part.removeprefix(word).lstrip(", ") for part in parts), None)

    @property
    def commands(self) -> list[tuple[str, str]]:
        """(command, what is printed after it), in order; none for a file."""
        if self.language == "bash":
            joined = self.body.replace("\\\n", " ")
            return [(line, "") for line in joined.splitlines() if line.strip() and not line.startswith("#")]
        if self.language != "console":
            return []
        parts = re.split(r"^\$ ", self.body, flags=re.M)
        assert not parts[0].strip(), f"output before the first command: {parts[0]!r}"
        found = []
        for part in parts[1:]:
            lines = part.splitlines()
            count = next(place for place, line in enumerate(lines, 1) if not line.endswith("\\"))
            command = " ".join(line.removesuffix("\\").strip() for line in lines[:count])
            found.append((command, "\n".join(lines[count:])))
        return found

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it is one."""
        match = FILE.match(self.body)
        return match["name"] if match and self.language in ("python", "yaml", "text") else None


def pages() -> list[Path]:
    """Every page that people read."""
    return [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in GENERATED)]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that have a language, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["body"], match["directive"] or "") for match in found]
