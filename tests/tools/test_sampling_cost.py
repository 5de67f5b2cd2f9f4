"""What benchmarks/resources.py reads of the thread that samples."""

from __future__ import annotations

import importlib.util

from tests.docs.pages import ROOT


def test_the_thread_that_samples_tells_by_its_own_clock_what_a_sample_costs() -> None:
    spec = importlib.util.spec_from_file_location("resources_benchmark", ROOT / "benchmarks" / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.by_its_clock(2)
    assert found.n == 2
    assert 0 < found.median < benchmark.GOAL, "of a second, where one sample a second is taken"
