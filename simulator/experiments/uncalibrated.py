"""What to think of the times of a GPU that nobody measured for us: how far off its constants may be.

It takes the constants of the measured part most like it (its file in the catalogue says which). `MEDIAN` and `P95` are how
much the constants of one measured part change the step times of another, over decode and prefill steps of two models on four
parts: `python -m analysis.calibration.defaults` computes them, and a test holds them to that.
"""

from __future__ import annotations

from simulator.scenario.resolved import Gpu

MEDIAN, P95 = 6.0, 15.0  # percent of a step time


def warning(gpu: Gpu) -> str:
    """The sentence for one part; empty for one that was measured."""
    if gpu.calibrated:
        return ""
    return (
        f"uncalibrated: the efficiencies of {gpu.name} are defaults, not measurements of this part; step times may be off "
        f"by {MEDIAN:.0f} % (median), {P95:.0f} % (p95)"
    )


def uncertainty(gpu: Gpu) -> dict[str, float] | None:
    """The same as numbers, in percent; None for a measured part."""
    return None if gpu.calibrated else {"median_pct": MEDIAN, "p95_pct": P95}
