"""What is wrong with the hosts, as a table."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab.launch.hosts.checks import Fault
from scalelab.record.text import harmless


def show(err: Console, faults: tuple[Fault, ...]) -> None:
    """A row for each fault; a host's name stands once. One fault alone is a line, which the error says itself."""
    if len(faults) < 2:
        return
    table = Table(title="What is wrong with the hosts", title_justify="left")
    for column in ("host", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    before = ""
    for fault in faults:
        host = fault.host if fault.host != before else ""
        table.add_row(*(escape(harmless(text)) for text in (host, fault.check, fault.found, fault.todo)))
        before = fault.host
    err.print(table)
