"""What every page of ours is set in: one HTML file that needs nothing else, no network, no server, no font, no style from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from scalelab import __version__
from scalelab.report.chart import Chart

HERE = Path(__file__).parent
LIMIT = 2_000_000
"""bytes of a page at most: it is to be mailed"""


def fill(template: str, content: dict[str, Any], drawn: Sequence[Chart], **data: Any) -> str:
    """The page that ``template`` makes of ``content``, with its figures; ``data`` is what its script reads beside them."""
    plotly, script, css = asset("plotly-basic.min.js"), asset("page.js"), asset("page.css")
    embedded = embed({"charts": [asdict(chart) for chart in drawn], "confusions": [], **data})
    return _template(template).render(
        **content,
        version=__version__,
        charts=drawn,
        policy=policy([plotly, script]),
        plotly=Markup(plotly),  # noqa: S704 - our own files, not a user's text
        script=Markup(script),  # noqa: S704
        css=Markup(css),  # noqa: S704
        data=embedded,
    )


def _template(name: str) -> Template:
    # StrictUndefined: a name that the template expects and nobody gives is an error here, not a hole in the page.
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["together"] = together
    return environment.get_template(name)


def together(line: str) -> str:
    """``line`` with hard spaces where a line must not break: ``ddp × 2``, ``81 %``."""
    return line.replace(" × ", "\u00a0×\u00a0").replace(" %", "\u00a0%")


@cache
def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that lets exactly ``scripts`` run, and nothing be loaded or sent."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    # Styles are inline because the figures' library sets them; data: and blob: are the images it saves on request.
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {hashes}; {rest}"


def embed(value: Any) -> Markup:
    """``value`` as JSON that is safe inside ``<script type="application/json">``; what is not finite becomes null."""
    body = json.dumps(_finite(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Markup(body)  # noqa: S704 - every character that HTML could read is escaped above


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
