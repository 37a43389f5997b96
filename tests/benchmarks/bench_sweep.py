"""Sweeps: what a second worker gives, and what a point costs beside its simulation. Prints; asserts nothing.

64 points of the 7B model with a pool. The wall time of a sweep includes the start of its workers. The overhead of a
point is (workers x wall time - time inside simulations) / points, with the simulations timed in the workers themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from simulator.experiments.studies.sweep import sweep

BASE = Path(__file__).parents[2] / "scenarios" / "pool_7b.yaml"
POINTS = 64


def study(tokens: int) -> dict[str, Any]:
    """A point per link bandwidth; `tokens` of output set how long a run takes."""
    return {
        "name": "bench",
        "base": str(BASE),
        "axes": {
            "cluster.gpus.link.bandwidth": {"from": "16 GB/s", "to": "256 GB/s", "n": POINTS, "scale": "log"},
            "workload.synthetic.output.tokens": [f"{tokens} tokens"],
        },
    }


def timed(tokens: int, jobs: int, folder: Path) -> tuple[float, float]:
    """(wall time, time inside simulations)."""
    began = perf_counter()
    sweep(study(tokens), folder, jobs=jobs)
    wall = perf_counter() - began
    return wall, sum(json.loads(path.read_text())["wall_s"] for path in (folder / "runs").iterdir())


def test_two_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a check: one line."""
    one, inside = timed(256, 1, tmp_path / "1")
    two, inside_two = timed(256, 2, tmp_path / "2")
    with capsys.disabled():
        print(
            f"\n{POINTS} points: {one:.1f} s on one worker, {two:.1f} s on two: {one / two:.2f} times as fast; "
            f"simulations {inside:.1f} s and {inside_two:.1f} s"
        )


def test_overhead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a check: one line."""
    wall, inside = timed(8, 1, tmp_path)
    with capsys.disabled():
        print(f"\noverhead {1e3 * (wall - inside) / POINTS:.1f} ms a point on one worker (its start included)")
