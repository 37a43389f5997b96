"""The README is run: its Python example, and the tables it shows."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from analysis.side_by_side import replace_section, table
from simulator import Scenario, simulate

ROOT = Path(__file__).parents[1]
ARMS = ("gpu_only", "gpu_only_l1", "cxl_nospec", "cxl_next_layer", "quickstart")


def test_python_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a public name, column or result that the README still shows but the program no longer has."""
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 3 and failed == 0


@pytest.mark.parametrize("load", ["recorded", "at_once"])
def test_tables_are_what_the_program_prints(load: str) -> None:
    """Would catch results that moved without `make table`, and a table edited by hand."""
    settings = (f"workload.trace.arrivals={load}",)
    summaries = [simulate(Scenario.load(ROOT / f"scenarios/{arm}.yaml", settings)).summary for arm in ARMS]
    text = (ROOT / "README.md").read_text()
    assert replace_section(text, load, table(summaries)) == text
