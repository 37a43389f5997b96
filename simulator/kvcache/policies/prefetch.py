"""Prefetch: when pages move. It hides movement, it never lowers it.

    none    step = compute + moved / rate
    oracle  step = max(compute, moved / rate)
    any     max(compute, moved / rate) <= step <= compute + moved / rate

Far pages are what is read and not resident: moved = read * (1 - overlap) once the working set fits, else read - resident.
What a predictor does in between is simulated (`simulator.prefetch`); these are its bounds. Identity: nothing moves.
"""

from __future__ import annotations


def bounds(compute: float, moved: float, rate: float) -> tuple[float, float]:
    """(oracle, none): seconds of a step that computes so long and moves so many bytes."""
    return max(compute, moved / rate), compute + moved / rate


def moved(read: float, resident: float, overlap: float) -> float:
    """Bytes that a step fetches: new ones of the set if the set before is resident, else all that is not."""
    return read * (1.0 - overlap) if resident >= read else read - resident * overlap
