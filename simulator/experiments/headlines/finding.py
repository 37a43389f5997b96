"""What a check of a headline gives, and the steps and capacities that checks are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from simulator.kvcache.geometry import Geometry, geometry
from simulator.scenario import Scenario
from simulator.scheduler.policy_steps import PolicySteps

CHUNK = 8192  # tokens of a prompt in a step


@dataclass(frozen=True)
class Finding:
    system: str
    metric: str  # as in the catalogue
    simulated: float | tuple[float, float]  # in the unit of the headline; two: over a range of what was not stated
    assumed: str  # conditions that the sources do not state
    why: str
    number: int = 0  # of several headlines with the same metric
    part: int = 0  # of a headline with several values


@dataclass(frozen=True)
class World:
    """One replica under one KV system: its steps and its capacity."""

    steps: PolicySteps
    sizes: Geometry
    weights: float  # bytes, all GPUs
    block: float  # bytes of a block of KV memory
    price: float  # USD: the GPUs and a host

    def decode(self, batch: int, context: int, shared: int = 0) -> float:
        """Seconds of a step of `batch` equal sequences, of which the first `shared` tokens are common."""
        units = self.steps.law.units(np.full(batch, context))
        if batch > 1 and self.steps.policies.read == "once":
            units += self.steps.shared_units(shared, batch * shared)
        return self.steps.base(batch, batch) + self.steps.unit_time(batch) * units

    def attention(self, context: int) -> float:
        """Seconds of decode attention alone, one sequence."""
        return self.steps.unit_time(1) * self.steps.law.units(np.array([context]))

    def prompt(self, tokens: int) -> float:
        """Seconds of a prompt, in chunks."""
        total = 0.0
        for past in range(0, tokens, CHUNK):
            take = min(CHUNK, tokens - past)
            total += self.steps.base(take, 0) + self.steps.layers * self.steps.prefill_attention([(take, past)]).time
        return total

    def prompt_attention(self, tokens: int) -> float:
        """Seconds of attention over a whole prompt, one layer."""
        return self.steps.prefill_attention([(tokens, 0)]).time

    def fits(self, context: int) -> int:
        """Sequences of that length that KV memory holds."""
        return self.sizes.l1_blocks // self.sizes.blocks(context)

    def longest(self) -> int:
        """Tokens of the longest sequence that KV memory holds."""
        low, high = 0, 2 * self.sizes.l1_blocks * self.sizes.block_tokens
        while self.sizes.blocks(high) <= self.sizes.l1_blocks:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.sizes.blocks(middle) <= self.sizes.l1_blocks else (low, middle)
        return low

    def throughput(self, context: int) -> float:
        """Tokens/s of decode at full memory."""
        batch = self.fits(context)
        return batch / self.decode(batch, context)

    def held(self, batch: int, context: int) -> float:
        """Bytes of weights and KV."""
        return self.weights + batch * self.sizes.blocks(context) * self.block


@lru_cache(maxsize=64)
def world(model: str, gpu: str, *settings: str, count: int = 1) -> World:
    """A replica of a model of the catalogue; `settings` as of `--set`, the KV system among them."""
    fixed = {"dist": "fixed", "tokens": "1 tokens"}
    document: dict[str, Any] = {
        "name": "headline",
        "workload": {"synthetic": {"requests": 1, "arrivals": {"process": "at_once"}, "input": fixed, "output": fixed}},
        "model": {"type": model, "max_context": "4000000 tokens"},
        "cluster": {"gpus": {"type": gpu, "count": count}},
    }
    resolved = Scenario.from_dict(document, ".", set=settings).resolved
    sizes, gpus = geometry(resolved), resolved.gpus
    price = gpus.count * gpus.gpu.price + resolved.cost.host_price
    return World(PolicySteps(resolved), sizes, resolved.weights_per_gpu * gpus.count, sizes.block_bytes, price)


def over(values: Iterable[float]) -> tuple[float, float]:
    """The range of what a scan gives."""
    found = list(values)
    return min(found), max(found)


def factor(value: float) -> str:
    return f"{value:.2f}x"
