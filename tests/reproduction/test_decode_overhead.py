"""The authors' decode overheads and access latency: what the search found, found again, and what it says."""

from __future__ import annotations

import json

import pytest

from analysis.reproduction.decode_overhead import FILE, MEAN_ACCESS, SPECULATION, STATED, step, text, world

SHIPPED = json.loads(FILE.read_text())


def row(found: dict, name: str) -> dict:
    return next(one for one in found["rows"] if one["prefetch"] == name)


def test_the_search_finds_it_again() -> None:
    """LLaMA-2 70B, batch 16, run again: the same to 1e-6 (another numpy may sum in another order).

    Would catch: results that were typed in, a model that has changed since they were written.
    """
    again, shipped = world("llama-2-70b", 16), SHIPPED["worlds"][0]
    for one in again["rows"]:
        other = row(shipped, one["prefetch"])
        for key, value in one.items():
            assert value == (pytest.approx(other[key], rel=1e-6, abs=1e-9) if isinstance(value, float) else other[key])
    for key in ("gpu_only_step_s", "l1_gib", "coverage_for_reported", "service_us_for_reported"):
        assert again[key] == pytest.approx(shipped[key], rel=1e-6)


@pytest.mark.parametrize("found", SHIPPED["worlds"], ids=lambda found: f"{found['model']}-{found['batch']}")
def test_both_overheads_come_from_no_stated_coverage(found: dict) -> None:
    """+28.4 % without prefetch is reached; the stated coverage of 94.7 % then leaves 2 to 3 %, not 8.2 %: over 90 % of the
    stall is hidden instead of 71 %. For +8.2 % coverage must be near 74 %, or a call of the predictor take 8 to 31 us.

    Would catch: a prefetcher that hides what it never fetched; demand that is delayed by prefetches.
    """
    assert row(found, "none")["overhead"] == pytest.approx(0.284, abs=0.015)
    stated = row(found, "stated (statistical)")
    assert 0.01 < stated["overhead"] < 0.03 < SPECULATION and stated["stall_hidden"] > 0.9
    assert row(found, "next_layer")["overhead"] < 0.25 * stated["overhead"]
    assert row(found, "as published")["overhead"] == pytest.approx(row(found, "none")["overhead"], rel=1e-9)
    assert 0.7 < found["coverage_for_reported"] < 0.78
    assert 5.0 < found["service_us_for_reported"] < 40.0


def test_what_it_takes_leaves_the_reported_overhead() -> None:
    """The coverage and the service time that were found, run again: +8.2 % within half a point.

    Would catch: a bisection that converged to an end of its range.
    """
    found = SHIPPED["worlds"][0]
    near = ["model=llama-2-70b", "scheduler.max_batch=16", f"kv.l1={found['l1_gib']} GiB"]
    coverage, calls = found["coverage_for_reported"], found["service_us_for_reported"]
    for prefetch in (STATED.replace("0.947", str(coverage)), f"{STATED[:-1]}, service: {calls} us}}"):
        time, _ = step([*near, f"prefetch={prefetch}"])
        assert time / found["gpu_only_step_s"] - 1.0 == pytest.approx(SPECULATION, abs=0.005)


def test_383_ns_is_below_the_latency_of_hbm() -> None:
    """No mean access is below one from HBM, and that takes longer than 383 ns: not reachable, whatever link and predictor.

    Would catch: a mean over accesses that leaves out those to HBM, or that counts a page as free because it was prefetched.
    """
    rows = SHIPPED["access"]
    assert min(one["mean_s"] for one in rows) >= min(one["floor_s"] for one in rows) > MEAN_ACCESS
    for link in ("pcie-gen4-x16", "cxl-2.0-x16-speckv"):
        assert {one["prefetch"] for one in rows if one["link"] == link} == {"stated", "oracle", "none"}
    assert "383" in text(SHIPPED)
