"""The page's second half: how numbers were measured, where, with which specs, and what went wrong."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from scalelab.record import text
from scalelab.record.schema import Environment, TrainRecord, VerifyRecord
from scalelab.report.chart import Runs, colour
from scalelab.report.table import Row

Named = list[tuple[str, list[str]]]
TRACEBACK_CHARACTERS = 20_000

DEFINITIONS: dict[str, str] = {
    "throughput": "images trained on per second over all workers; the time of a step is its slowest worker's. "
    "Evaluation is not in it.",
    "median, ±, interval": "median of blocks of 10 steps (neighbouring steps are not independent); "
    "± is the scaled median absolute deviation; the interval is the 95 % percentile bootstrap of the median (Efron 1979), "
    "of fewer than eight blocks Student's (1908). "
    "It holds within one run: another run may differ by more.",
    "speedup": "throughput over that of the base: the run of strategy single on the same task with the same threads per worker. "
    "Its interval joins both runs' intervals on a logarithmic scale (Zou & Donner 2008). "
    "A difference is claimed only where it excludes 1.",
    "efficiency": "speedup / workers. None is claimed for oversubscribed runs: more workers' threads than cores.",
    "exposed communication": "what the network adds to a step: the step's time minus that of the same step "
    "with communication off. "
    "Hidden communication runs behind compute, and costs no time.",
    "peak memory": "the largest number of bytes one worker held at any time.",
    "accuracy": "share of the test images whose most likely class is the true one, each counted once, after the last epoch.",
}
VERIFIED = (
    "the largest relative difference of per-step loss, final parameters and buffers from one process on the same global batches"
)

# Keys of TrainRecord.method under the words of the table.
METHODS = {
    "images_per_second": "throughput",
    "step_seconds": "step time",
    "compute_seconds": "compute",
    "communication_seconds": "communication",
    "communication_seconds.total": "communication in all",
    "communication_seconds.exposed": "exposed communication",
    "communication_seconds.hidden": "hidden communication",
    "data_wait_seconds": "waiting for data",
    "memory_bytes": "peak memory",
    "bytes_sent": "bytes sent",
    "model.flops_per_image": "FLOPs of an image",
    "resources": "resources",
}


def methods(records: Sequence[TrainRecord], verify: VerifyRecord | None) -> Named:
    """(name, texts): what the name means, then what the records say was done, each text once."""
    found: dict[str, list[str]] = {name: [definition] for name, definition in DEFINITIONS.items()}
    if verify:
        settings = f"{verify.steps} steps of batch {verify.batch} in {verify.precision}, tolerance {verify.tolerance:g}"
        found["largest difference"] = [f"{VERIFIED}: {verify.model} on {verify.data}, {settings}.", *verify.notes]
    for record in records:
        for key, method in record.method.items():
            texts = found.setdefault(METHODS.get(key, key.replace("_", " ")), [])
            if method not in texts:
                texts.append(method)
    return list(found.items())


def remarks(runs: Runs) -> Named:
    """(run, its notes) for the runs that have some; one entry for notes that all share."""
    noted = [(row.label, list(record.notes)) for row, record in runs if record.notes]
    if len(noted) > 1 and len({tuple(notes) for _, notes in noted}) == 1:
        return [("these runs" if len(noted) < len(runs) else "all runs", noted[0][1])]
    return noted


def failures(runs: Runs) -> list[dict[str, Any]]:
    """The runs that did not complete, with what ended them."""
    return [_failure(place, row, record) for place, (row, record) in enumerate(runs) if record.status != "completed"]


STATUS_TEXT = {
    "queued": "its job waits in the queue of a cluster: it has not trained yet, or will go on",
    "running": "still training when this report was made: its figures are those so far",
    "interrupted": "ended by its user; its figures are those until then",
    "lost": "its processes are gone and left no last word",
    "failed": "failed, and left no reason",
}


def _failure(place: int, row: Row, record: TrainRecord) -> dict[str, Any]:
    failure = record.failure
    rank = f"rank {failure.rank}" if failure and failure.rank is not None else ""
    host = f"on {failure.host}" if failure and failure.host else ""
    done = f"after {record.steps} step{'s' if record.steps != 1 else ''}"
    trace = failure.traceback.strip() if failure else ""
    return {
        "label": row.label,
        "colour": colour(place),
        "status": record.status,
        "error": failure.error if failure else STATUS_TEXT.get(record.status, ""),
        "where": " ".join(part for part in (rank, host, done) if part),
        "traceback": f"…\n{trace[-TRACEBACK_CHARACTERS:]}" if len(trace) > TRACEBACK_CHARACTERS else trace,
    }


def environments(runs: Runs) -> list[dict[str, Any]]:
    """The distinct environments with the runs made in each; the command, threads and backend differ by design and stand apart."""
    found: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, (_, record) in enumerate(runs):
        found.setdefault(tuple(environment_facts(record.environment)), []).append(place)
    return [
        {
            "runs": ", ".join(runs[place][0].label for place in places),
            "facts": [
                *facts,
                ("backend", _joined(runs[place][1].environment.backend or "none (one worker)" for place in places)),
                ("threads per worker", _joined(str(runs[place][1].derived.threads) for place in places)),
            ],
        }
        for facts, places in found.items()
    ]


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def environment_facts(environment: Environment) -> list[tuple[str, str]]:
    """(name, value) of what a machine and its software are; what is unknown is left out."""
    facts = []
    for host in environment.hosts:
        parts = [
            host.processor,
            f"{host.cores} cores" if host.cores else "",
            text.size(host.memory_bytes) if host.memory_bytes else "",
            *host.devices,
        ]
        facts.append((f"host {host.name}", ", ".join(part for part in parts if part)))
    facts += [
        ("device", environment.device),
        ("system", environment.system),
        ("versions", ", ".join(f"{name} {version}" for name, version in environment.versions.items())),
        ("git commit", environment.git_commit or ""),
    ]
    return [(name, value) for name, value in facts if value]


def commands(records: Sequence[TrainRecord]) -> list[str]:
    """The distinct command lines, quoted as a shell would need them, each on one line."""
    lines = (shlex.join(record.environment.command).replace("\n", "\\n") for record in records if record.environment.command)
    return list(dict.fromkeys(lines))


def specs(runs: Runs) -> list[dict[str, str]]:
    """Every run's spec as YAML."""
    return [
        {
            "label": row.label,
            "run": record.run,
            "colour": colour(place),
            "yaml": yaml.safe_dump(record.spec, sort_keys=False, allow_unicode=True).rstrip(),
        }
        for place, (row, record) in enumerate(runs)
    ]


def differing(records: Sequence[TrainRecord]) -> list[tuple[str, list[str]]]:
    """(key, value per run) of the spec's keys in which runs differ."""
    if len(records) < 2:
        return []
    keys = dict.fromkeys(key for record in records for key in record.spec)
    table = [(key, [_value(record.spec.get(key)) for record in records]) for key in keys]
    return [(key, values) for key, values in table if len(set(values)) > 1]


def _value(value: Any) -> str:
    return text.ABSENT if value is None else str(value)
