"""The summary as a person reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import simulate
from simulator.experiments.render import bound_sentence, number, percent, seconds, size, summary_text


@pytest.fixture
def summary(scenario: Path) -> dict:
    return simulate(scenario).summary


@pytest.mark.parametrize("width", [80, 120])
def test_summary_fits_the_terminal(width: int, summary: dict, monkeypatch: pytest.MonkeyPatch):
    """Would catch: lines that wrap in a common terminal, or that no eye follows in a wide one."""
    monkeypatch.setenv("COLUMNS", str(width))
    summary["warnings"] = ["offered load exceeds capacity " * 6]
    lines = summary_text(summary, Path("results/tiny-01234567")).splitlines()
    assert max(map(len, lines)) <= min(width, 100)
    text = "\n".join(lines)
    for shown in ("TTFT", "Where the time", "KV tiers", "coverage", "USD per million", "results in", "warning: offered"):
        assert shown in text


def test_summary_is_plain_without_a_terminal(summary: dict):
    """Would catch: escape sequences in a log file; a name taken for markup."""
    text = summary_text(summary | {"name": "[bold]x[/bold] :smile:"}, None)
    assert text.startswith("[bold]x[/bold] :smile:\n")
    assert "\x1b" not in text


def test_parts_of_the_time_add_up(summary: dict):
    """Would catch: shares taken of something else than the mean request's time."""
    text = summary_text(summary, None)
    block = text.split("Where the time")[1].split("\n\n")[0].splitlines()[1:]
    shares = [float(line.split()[3].rstrip("%").lstrip("<")) for line in block]
    assert len(shares) == sum(1 for value in summary["stall"].values() if value)
    assert sum(shares) == pytest.approx(100, abs=0.5 * len(shares))


def test_nothing_finished(summary: dict):
    """Would catch: a crash, or "None" and "nan" shown, where a number does not exist."""
    for key in ("throughput", "goodput", "prefetch", "kv_access", "stall", "energy"):
        summary[key] = dict.fromkeys(summary[key])
    summary["latency"] = {key: dict.fromkeys(row) for key, row in summary["latency"].items()}
    summary["cost"]["usd_per_million_output_tokens"] = None
    summary["simulation"]["mean_batch"] = None
    text = summary_text(summary | {"bound_by": "arrivals"}, None)
    assert "None" not in text and "nan" not in text
    ttft = next(line for line in text.splitlines() if "TTFT" in line)
    assert ttft.split() == ["TTFT", "-", "-", "-", "-"]


def test_keys_of_later_versions_do_no_harm(summary: dict):
    """Would catch: a renderer that breaks when the summary grows, or when a part of it is absent."""
    summary |= {"new": {"x": 1}}
    summary["stall"]["recompute_s"] = 1.0
    summary["tiers"]["ssd"] = {"capacity_bytes": 1e12, "peak_bytes": None, "mean_bytes": 0.0, "new": 3}
    assert "recompute" in summary_text(summary, None)
    assert summary_text({"name": "x"}, None)


def test_bound_sentence():
    """Would catch: the queue counted as service, so that an overloaded system seems bound by nothing."""
    parts = {"queue_s": 6.0, "hbm_s": 3.0, "dma_s": 1.0}
    sentence = bound_sentence({"bound_by": "hbm", "stall": parts})
    assert sentence.startswith("bound by hbm (HBM bandwidth): 75% of the mean request's time in service")
    assert "60% of its time is spent in the queue" in sentence
    assert "queue" not in bound_sentence({"bound_by": "hbm", "stall": parts | {"queue_s": 0.1}})


def test_units():
    """Would catch: digits or prefixes off by one, rounding to 0 % or 100 % of what is not."""
    assert [seconds(value) for value in (None, 0.0, 3.2e-7, 0.0105, 1.0, 119.0, 150.0, 1e5)] == [
        "-", "0 s", "320 ns", "10.5 ms", "1 s", "119 s", "2.5 min", "27.8 h",
    ]  # fmt: skip
    assert [size(value) for value in (0, 999, 1.5e3, 12e9, 2.56e17)] == ["0 B", "999 B", "1.5 kB", "12 GB", "256 PB"]
    shares = (None, 0, 1e-5, 0.051, 0.5, 0.978, 0.99999, 1)
    assert [percent(value) for value in shares] == ["-", "0%", "<0.1%", "5.1%", "50%", "97.8%", ">99.9%", "100%"]
    assert [number(value) for value in (None, 0.0, 0.0123, 12.34, 99.99, 12345.6)] == [
        "-", "0", "0.0123", "12.3", "100", "12,346",
    ]  # fmt: skip
