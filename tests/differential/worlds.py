"""Random tiny worlds: few blocks, so that preemption is frequent, and arrivals as close as steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.properties.small import blocks as bytes_of
from tests.scheduler.test_vllm_rule import tokens

CLASSES = [
    {"name": "late", "ttft": "2 ms", "priority": 2}, {"name": "soon", "ttft": "200 us", "priority": 0},
    {"name": "any", "priority": 1},
]  # fmt: skip
TENANTS = [{"name": "x"}, {"name": "y", "weight": 2}, {"name": "z", "weight": 0.5}]


@dataclass
class World:
    """Settings, and requests a row each."""

    settings: dict[str, Any]
    rows: list[tuple[float, int, int]]  # arrival s, prompt, output
    ids: list[list[int]] | None = None
    answers: list[list[int]] | None = None  # ids of the blocks that prompt and answer fill together
    after: list[int] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    session: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(len(self.rows))
        self.kind, self.tenant = (rng.integers(3, size=len(self.rows)).tolist() for _ in range(2))

    @property
    def block(self) -> int:
        return int(self.settings["kv.block"].split()[0])


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def drawn(rng: np.random.Generator, **fixed: Any) -> World:
    """A world of one replica; `fixed`: scheduler fields that are given."""
    count = int(rng.integers(2, 13))
    budget = int(pick(rng, 8, 16, 40, 64, 256))
    spec: dict[str, Any] = {
        "batching": pick(rng, "continuous", "decode_first", "prefill_first", "static"),
        "token_budget": budget, "prefill_chunk": budget, "max_batch": int(pick(rng, 1, 2, 3, 8)),
        "reserve": pick(rng, "prompt", "prompt", "prompt", "full"), "watermark": pick(rng, 0.0, 0.0, 0.1, 0.3),
        "queue": pick(rng, "fcfs", "fcfs", "shortest_first", "priority", "earliest_deadline", "fair"),
        "preemption": pick(rng, "recompute", "recompute", "swap_host"),
        "admission": pick(rng, "queue", "queue", "limit", "deadline"),
        "asynchronous": bool(rng.integers(4) == 0),
    } | fixed  # fmt: skip
    if spec["batching"] in ("decode_first", "static") and "prefill_chunk" not in fixed:
        spec["prefill_chunk"] = int(pick(rng, budget, max(1, budget // 2), max(1, budget // 5)))
    if spec["admission"] == "limit":
        spec["max_queue"] = int(rng.integers(4))
    if spec["preemption"] == "swap_host" and rng.integers(3) == 0:
        spec["swap_space"] = bytes_of(4)
    for name in ("token_budget", "prefill_chunk"):
        spec[name] = tokens(spec[name])
    size = int(pick(rng, 16, 16, 8, 4))
    settings = {f"scheduler.{name}": value for name, value in spec.items()}
    settings |= {"kv.block": tokens(size), "kv.l1": bytes_of(size / 16 * int(rng.integers(3, 13)))}
    settings |= {"slo.classes": CLASSES, "tenants": TENANTS}
    gap = float(pick(rng, 0.0, 1e-5, 1e-4, 1e-3))
    at = np.cumsum(rng.exponential(1.0, count) * gap).tolist()
    longest = 3 * size
    rows = [(time, int(rng.integers(1, longest)), int(rng.integers(1, longest))) for time in at]
    return World(settings, rows)


def chained(rng: np.random.Generator, world: World) -> World:
    """The same with ids of blocks: a prompt is new, or goes on from somewhere in an earlier request, its answer included."""
    world.ids, world.answers = [], []
    known: list[list[int]] = [[]]
    for place, (_, prompt, output) in enumerate(world.rows):
        past = known[int(rng.integers(len(known)))]
        past = past[: min(int(rng.integers(len(past) + 1)), prompt // world.block)]
        ids = past + [1000 * (place + 1) + at for at in range(len(past), (prompt + output) // world.block)]
        known.append(ids)
        world.ids.append(ids[: prompt // world.block])
        world.answers.append(ids[prompt // world.block :])
    return world


def in_sessions(rng: np.random.Generator, world: World) -> World:
    """The same in a closed loop: some requests wait for the end of an earlier one."""
    count = len(world.rows)
    world.after = [int(rng.integers(-1, row)) if row else -1 for row in range(count)]
    world.delay = [float(pick(rng, 0.0, 1e-5, 3e-4)) if after >= 0 else 0.0 for after in world.after]
    first: list[int] = []
    for row, after in enumerate(world.after):
        first.append(first[after] if after >= 0 else row)
    world.session = first
    return world
