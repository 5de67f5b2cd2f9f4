"""The errors that users read."""

from __future__ import annotations

from scalelab.errors import RunError, ScalelabError, nearest, unknown


def test_exit_statuses_tell_a_wrong_command_from_a_failed_run() -> None:
    assert (ScalelabError.exit_status, RunError.exit_status) == (2, 1)


def test_the_nearest_name_is_offered_only_when_it_is_near() -> None:
    assert nearest("zero4", ["ddp", "zero3"]) == " (did you mean 'zero3'?)"
    assert nearest("quicksort", ["ddp", "zero3"]) == ""


def test_an_unknown_name_lists_every_valid_one() -> None:
    message = str(unknown("strategy", "dpp", iter(["ddp", "zero3"]), " or a file"))
    assert message == "unknown strategy 'dpp' (did you mean 'ddp'?); valid: ddp, zero3 or a file"
