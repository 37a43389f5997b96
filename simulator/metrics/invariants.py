"""The invariants that are checked in a run under `--check` (design section 4). Each failure names its invariant.

They read what was recorded and what the components counted, and change no number.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.recorder import ABORTED, FINISHED, REJECTED, STATUS, Recorder
from simulator.metrics.steps import PARTS, Steps
from simulator.metrics.traffic import Traffic

RELATIVE = 1e-9


class InvariantError(Exception):
    """The simulator contradicts itself: a bug."""


def require(name: str, holds: bool | np.bool_, message: str) -> None:
    if not holds:
        raise InvariantError(f"{name}: {message}")


def close(a: float, b: float) -> bool:
    return abs(a - b) <= RELATIVE * max(abs(a), abs(b), 1e-12)


def check_requests(columns: dict[str, NDArray[Any]]) -> None:
    """INV-REQUESTS and INV-TOKENS' order: every request ends once, and its times are in order."""
    status = columns["status"]
    ended = sum(int((status == STATUS[kind]).sum()) for kind in (FINISHED, REJECTED, ABORTED))
    require("INV-REQUESTS", ended == len(status), f"{len(status)} arrived, {ended} ended")
    done = status == STATUS[FINISHED]
    times = [columns[name][done] for name in ("arrival_s", "admitted_s", "first_token_s", "finished_s")]
    for earlier, later in pairwise(times):
        require("INV-TOKENS", np.all(earlier <= later), "a request's times are out of order")


def check_tokens(
    recorder: Recorder, steps: Steps, prompt: NDArray[np.int64], output: NDArray[np.int64], elsewhere: int = 0
) -> None:  # fmt: skip
    """INV-TOKENS: tokens given out are those asked for; prompts are computed once, and again after preemptions only. Other
    replicas gave out the first token of `elsewhere` requests."""
    done = np.array(recorder.status) == FINISHED
    given_up = [tokens for _, _, tokens, _ in recorder.aborted]
    emitted, asked = int(steps.rows.sum()) + elsewhere, int(output[done].sum()) + sum(given_up)
    require("INV-TOKENS", emitted == asked, f"{asked} tokens asked for, {emitted} given out")
    gaps = int(steps.decodes.sum()) + sum(not within for *_, within in recorder.gaps)
    expected = int((output[done] - 1).sum()) + sum(max(0, tokens - 1) for tokens in given_up)
    require("INV-TOKENS", gaps == expected, f"{expected} gaps between tokens expected, {gaps} recorded")
    computed, needed = int(steps.prefill.sum()) + sum(recorder.cached_tokens), int(prompt[done].sum())
    if not recorder.spans and not recorder.aborted:
        require("INV-TOKENS", computed == needed, f"{needed} prompt tokens, {computed} computed or found in the prefix cache")
    require("INV-TOKENS", computed >= needed, f"{needed} prompt tokens, only {computed} computed or found in the prefix cache")


def check_attribution(columns: dict[str, NDArray[Any]]) -> None:
    """INV-ATTRIBUTION: the parts of each TTFT and each end-to-end time sum to the whole."""
    for whole, prefix in (("ttft_s", "ttft_"), ("e2e_s", "")):
        total = columns[f"{prefix}queue_s"] + sum(columns[f"{prefix}{part}_s"] for part in PARTS)
        if not prefix and "transfer_s" in columns:
            total = total + columns["transfer_s"]
        off = np.abs(total - columns[whole]) > RELATIVE * np.maximum(columns[whole], columns["finished_s"] * 1e-3)
        off &= ~np.isnan(columns[whole])
        require("INV-ATTRIBUTION", not off.any(), f"{int(off.sum())} requests whose {whole} is not the sum of its parts")


def check_steps(steps: Steps) -> None:
    """INV-ATTRIBUTION on steps: parts sum to durations, steps do not overlap."""
    total = sum(steps.parts.values())
    require(
        "INV-ATTRIBUTION",
        np.allclose(total, steps.duration, rtol=RELATIVE, atol=0),
        "a step is not the sum of its parts",
    )
    for name, part in steps.parts.items():
        require("INV-ATTRIBUTION", np.all(part >= 0), f"a step has a negative {name} part")
    starts = steps.end[:-1]
    following = steps.runs["start"][steps.run[1:]]
    begins = np.concatenate([[True], steps.run[1:] != steps.run[:-1]])[1:]
    require("INV-TOKENS", np.all(following[begins] >= starts[begins]), "steps overlap")


def check_capacity(name: str, used: NDArray[Any], capacity: float) -> None:
    """INV-CAPACITY: occupancy within capacity at every step."""
    peak = float(used.max(initial=0))
    require("INV-CAPACITY", peak <= capacity * (1 + RELATIVE), f"{name} holds {peak:g} of {capacity:g}")


def check_traffic(traffic: Traffic) -> None:
    """INV-PREFETCH, INV-BYTES, INV-RATES; INV-COHERENCE: no page gets its home in L3 without being written there."""
    t = traffic
    require(
        "INV-PREFETCH",
        t.proposed == t.issued + t.dropped,
        f"proposed {t.proposed} is not issued {t.issued} + dropped {t.dropped}",
    )
    ended = t.in_time + t.late + t.useless + t.in_flight
    require("INV-PREFETCH", t.issued == ended, f"issued {t.issued}, of which {ended} are accounted for")
    read = t.demand + t.in_time + t.late
    require("INV-BYTES", t.asked == read, f"{t.asked} far pages asked for, {read} read")
    require("INV-BYTES", t.moved >= t.demand + t.in_time + t.late, f"{t.moved} pages moved, {read} used")
    for name, total in (
        ("near", t.near), ("kept", t.l2_hits), ("demand", t.demand), ("in_time", t.in_time), ("late", t.late),
        ("useless", t.useless),
    ):  # fmt: skip
        found = sum(getattr(group, name) for group in t.groups)
        require("INV-BYTES", not t.groups or found == total, f"{total} {name} pages, of the layer groups {found}")
    sent = t.written_bytes + t.backlog_bytes
    require(
        "INV-BYTES",
        close(sent, t.sent_bytes),
        f"{t.sent_bytes:g} bytes given to write-back, {sent:g} written or waiting",
    )
    homed = t.homed * t.page_bytes
    require("INV-COHERENCE", close(homed, t.sent_bytes), f"{homed:g} bytes moved home to L3, {t.sent_bytes:g} written back")
    for stage, rate, capacity in t.rates:
        require("INV-RATES", rate <= capacity * (1 + RELATIVE), f"{stage} carries {rate:g} B/s of {capacity:g}")


def check_shares(columns: dict[str, NDArray[Any]], traffic: Traffic, stall: float) -> None:
    """INV-BYTES: what is charged to requests is all that was read from far memory, by fate, and all waits for it."""
    t = traffic
    totals = {"demand": t.demand, "in_time": t.in_time, "late": t.late, "wasted": t.useless}
    sums = {f"far_{name}_bytes": pages * t.page_bytes for name, pages in totals.items()} | {"far_stall_s": stall}
    for name, total in sums.items():
        charged = float(columns[name].sum())
        fits = abs(charged - total) <= 1e-7 * total + 1e-12  # differences of running sums
        require("INV-BYTES", fits, f"{name} of all requests is {charged!r}, of the run {total!r}")


def check_little(recorder: Recorder, columns: dict[str, NDArray[Any]], presence: float, gaps: float) -> None:
    """INV-LITTLE: the integral of the number in system, as the engine counted it, is the sum of the sojourns; that of the
    number between first and last token, from the gaps between tokens, the sum of those times."""
    done = columns["status"] == "finished"
    sojourns = float((columns["finished_s"] - columns["arrival_s"])[done].sum())
    sojourns += sum(at - float(columns["arrival_s"][request]) for request, at, _, _ in recorder.aborted)
    require("INV-LITTLE", close(presence, sojourns), f"integral of the number in system {presence!r}, sojourns {sojourns!r}")
    decoding = float((columns["finished_s"] - columns["first_token_s"])[done].sum())
    decoding += sum(last - recorder.first_token[request] for request, _, tokens, last in recorder.aborted if tokens)
    message = f"gaps between tokens sum to {gaps!r} s, the times from first to last token to {decoding!r} s"
    require("INV-LITTLE", abs(gaps - decoding) <= RELATIVE * max(decoding, sojourns), message)
