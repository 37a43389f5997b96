"""Resolved parts of synthetic workloads - rates that vary, chats of several turns - and of what is kept between turns.

`simulator/workload` and `simulator/kvcache/prefix.py` say what they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Varying:
    """What arrival processes with a varying rate need beside `rate`; the neutral values are not used."""

    amplitude: float = 0.0  # diurnal: (highest rate - mean) / mean
    period: float = 0.0  # s
    peak: float = 0.0  # requests/s
    at: float = 0.0  # s
    over: float = 0.0  # s
    rates: tuple[float, ...] = ()  # requests/s
    dwell: tuple[float, ...] = ()  # s


NOT_VARYING = Varying()


@dataclass(frozen=True)
class ReuseRules:
    """Of a prefix cache: how long what nobody uses stays where, s."""

    partial: bool = False  # the last, partial block of a prompt is reused, too
    demote_after: float = inf  # L1 to L3
    drop_after: float = inf  # forgotten


VLLM_RULES = ReuseRules()


@dataclass(frozen=True)
class Level:
    """One level of a tree of shared prefixes."""

    tokens: int
    count: int  # children of every node above


@dataclass(frozen=True)
class Chats:
    """Sessions of several turns."""

    turns: float  # mean; geometric
    think: float  # mean, s
    think_cv: float
    most: int  # tokens of a prompt and its answer
    fixed: bool = False  # every session has `turns` turns
    prefixes: tuple[Level, ...] = ()
    skew: float = 0.0  # 0: all children are drawn alike
