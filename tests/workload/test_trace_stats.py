"""Statistics of traces against published figures and small cases by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.workload.prefix_reuse import leading_runs
from simulator.workload.stats import trace_stats

TRACES = Path(__file__).parents[2] / "traces"
EXPECTED = json.loads((Path(__file__).parent / "expected_stats.json").read_text())


SLOW = {"agentic_coding_sessions_80.jsonl.gz"}  # 47 MB of JSON


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in EXPECTED])
def test_stats_equal_the_reference(name: str) -> None:
    """Every figure of the whole traces, computed independently of this reader.

    Would catch: sample for population variance, a partial last bin, n / span, wrong percentiles, times in ms, an LRU
    that touches blocks first to last or evicts before it inserts; of sessions, calls of sub-agents left out.
    """
    found = trace_stats(TRACES / name)
    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]


def test_plain_csv_by_hand(tmp_path: Path) -> None:
    """Counts 2, 0, 0, 1 in whole seconds; the arrival at 4 s is in a bin that is not whole.

    mean 0.75, variance 5/4 - 9/16 = 0.6875, idc 0.92 (rounded); gaps 0, 3, 1: mean 4/3, variance 14/9, cv 0.935.
    Would catch: empty bins left out of the mean, the last bin counted, keys with too few bins.
    """
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n10,1,4\n10,2,4\n13,3,4\n14,6,5\n")
    stats = trace_stats(path)
    assert stats["arrivals"] == {
        "cv": 0.935, "idc1": 0.92, "n": 4, "rate": 0.75, "span_s": 4.0, "ties": 0.333,
    }  # fmt: skip
    assert stats["prompt_tokens"] == {"max": 6, "mean": 3, "min": 1, "p50": 2.5, "p90": 5.1, "p99": 5.9, "sum": 12}
    assert stats["rows"] == 4 and stats["file_order_sorted"] is True and "blocks_total" not in stats


def test_one_row_and_no_span(tmp_path: Path) -> None:
    """Ratios without a denominator are None. Would catch: NaN in JSON, a division by zero."""
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n1,2,3\n")
    expected = {"cv": None, "n": 1, "rate": None, "span_s": 0.0, "ties": None}
    assert trace_stats(path)["arrivals"] == expected
    path.write_text("arrival_s,input_tokens,output_tokens\n1,2,3\n1,2,3\n")
    assert trace_stats(path)["arrivals"] == expected | {"n": 2, "ties": 1.0}


def test_two_whole_bins_are_too_few(tmp_path: Path) -> None:
    """29 s hold two whole bins of 10 s, 30 s three. Would catch: a dispersion of two numbers in a report."""
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,2,3\n29,2,3\n")
    assert "idc10" not in trace_stats(path)["arrivals"]
    path.write_text("arrival_s,input_tokens,output_tokens\n0,2,3\n30,2,3\n")
    assert "idc10" in trace_stats(path)["arrivals"]


def test_order_is_reported(tmp_path: Path) -> None:
    """Would catch: order looked at after sorting."""
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n5,2,3\n1,2,3\n")
    assert trace_stats(path)["file_order_sorted"] is False


def test_years_without_arrivals(tmp_path: Path) -> None:
    """Ten thousand years between two rows take no memory. Would catch: an array with an element a second."""
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,2,3\n300000000000,2,3\n")
    assert trace_stats(path)["arrivals"]["idc60"] == 1.0


def test_lru_by_hand() -> None:
    """Capacity 2: [1 2 3] leaves {2, 1} with 1 most recent; [1 2 4] finds 1, 2 and leaves them; [2] is not leading
    but is present; [5 6] evicts both; [1] finds nothing.

    Would catch: blocks touched first to last (3 would stay, 1 would go), hits after a gap counted.
    """
    rows = [[1, 2, 3], [1, 2, 4], [2], [9, 1], [5, 6], [1]]
    assert leading_runs(rows, capacity=2) == [0, 2, 1, 0, 0, 0]
    assert leading_runs(rows, capacity=0) == [0, 2, 1, 0, 0, 1]
