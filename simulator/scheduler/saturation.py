"""How many requests a second one replica can serve: a closed form from the step model, for `stability.utilization`.

With a full batch of B places each taken again at once, every sequence advances by a token a step, and a request of `prompt` and
`output` tokens keeps a place for `output` steps: c = B / output prompts are computed a step, fewer where the token budget does
not hold them beside the decodes. With t the time of such a step, c / t requests end a second. B is `max_batch`, or as many
sequences as KV has room for. With c < 1, t is the mean over steps with a prompt and without.

    prefill_first  t = the step of all decodes + those of the prompts alone
    static         a batch of B in the time of its prompts and of as many decode steps as its longest output has on average

Far memory: pages that do not fit L1 cross the path each step, beside the step where something is prefetched, after it else; of
drawn page sets that fit L1 and L2 only what is new in them, (1 - overlap) every `refresh` steps.
An estimate from means: lengths vary, preemption and prefix reuse are not in it, nor swaps, nor requests that end early.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.hardware.gpu import StepModel
from simulator.hardware.pool import FarPath
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policies.far import far_reads
from simulator.kvcache.selection import tokens_read
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.policy_steps import PolicySteps

MOST_OUTPUTS = 4096  # of a static batch: quantiles of the outputs


@dataclass
class Saturated:
    """One replica with all places taken."""

    model: StepModel
    scenario: ScenarioResolved
    geometry: Geometry
    path: FarPath | None

    def rate(self, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> float:
        """Requests/s of requests with these tokens."""
        spec, mean_prompt, mean_output = self.scenario.scheduler, float(prompt.mean()), max(1.0, float(output.mean()))
        held = self.geometry.blocks(int(mean_prompt + (mean_output if spec.reserve == "full" else mean_output / 2)))
        blocks = self.geometry.l1_blocks + (0 if self.scenario.parks else self.geometry.l3_blocks)
        near = self.geometry.l1_blocks // self.geometry.near_blocks
        places = max(1.0, min(spec.max_batch, near, blocks // max(1, held)))
        context = mean_prompt + mean_output / 2
        if spec.batching == "static":
            return places / self._static(places, mean_prompt, output)
        whole = max(1, round(mean_prompt))
        if spec.batching == "prefill_first":
            together = max(1, spec.token_budget // whole)
            prompts = self._step(0.0, 0.0, [whole] * together if whole <= spec.token_budget else [whole]) / together
            if mean_output <= 1.0:
                return 1.0 / prompts
            started = places / (mean_output - 1.0)
            return started / (self._step(places, context, []) + started * prompts)
        started = min(places / mean_output, spec.token_budget / (mean_output - 1.0 + mean_prompt))
        decodes, rest = started * (mean_output - 1.0), round(started % 1.0 * whole)
        if started >= 1.0 or decodes + whole > spec.token_budget:  # pieces of prompts in every step
            return started / self._step(decodes, context, [whole] * int(started) + [rest] * (rest > 0))
        low, high = self._step(decodes, context, []), self._step(decodes, context, [whole])
        return started / (low + started * (high - low))

    def _step(self, decodes: float, context: float, prompts: list[int]) -> float:
        """Seconds of a step; a prompt longer than the budget takes several."""
        model, budget = self.model, self.scenario.scheduler.token_budget
        tokens = round(decodes) + sum(prompts)
        if tokens == 0:
            return 0.0
        steps = max(1, -(-tokens // budget))
        kernels = (decodes > 0) + bool(prompts)
        each = -(-tokens // steps)
        time = steps * model.base(each, max(1, round((decodes + len(prompts)) / steps)), kernels)
        read = self._read(context)
        time += model.unit_time(each) * decodes * model.reads_of([round(read)])
        if prompts and not model.one_kernel:
            time += model.passes(each) * model.prefill_attention([(tokens, 0) for tokens in prompts]).time
        if self.path is not None and decodes and not self.scenario.parks:
            moving = self._far_blocks(decodes, context, read) * self.geometry.block_bytes / self.path.read_rate
            prefetch = self.scenario.prefetch
            ahead = prefetch.depth > 0 and prefetch.coverage > 0
            time = max(time, moving) if ahead else time + moving
        return time

    def _far_blocks(self, decodes: float, context: float, read: float) -> float:
        """Blocks' worth of pages that cross the path in a step of so many decodes, each of which reads `read` tokens."""
        sizes, chosen = self.geometry, self.scenario.kv.selection
        stored, share = context, read / context  # what is selected is spread evenly
        if isinstance(self.model, PolicySteps):
            stored = sizes.held(context)
            share = float(far_reads(self.scenario).ratios(np.array([round(context)]))[1][0])
        every, near = decodes * stored / sizes.block_tokens, float(sizes.l1_blocks)
        if chosen.kind == "pages":
            near += sizes.l2_bytes / sizes.block_bytes
            if near > share * every:  # the sets stay near; what comes new into them is among the other pages
                share *= (1.0 - chosen.overlap) / chosen.refresh / max(1.0 - share, 1e-9)
        return max(0.0, every - near) * share

    def _read(self, context: float) -> float:
        """Tokens that a decode reads of a context, the mean over the layers; all, where the step model itself selects."""
        selection = self.scenario.kv.selection
        if isinstance(self.model, PolicySteps):
            return context
        if selection.kind == "pages":
            return float(tokens_read(selection, np.array([round(context)]), self.geometry.block_tokens, self.model.layers))
        return min(context, float(selection.budget)) if selection.kind == "budget" else context

    def _static(self, places: float, prompt: float, output: NDArray[np.int64]) -> float:
        """Seconds of a batch: how many still decode after each step, from the distribution of outputs."""
        outputs = np.sort(output)
        if len(outputs) > MOST_OUTPUTS:
            outputs = outputs[np.linspace(0, len(outputs) - 1, MOST_OUTPUTS).astype(int)]
        time = self._step(0.0, 0.0, [max(1, round(prompt))] * round(places))
        step = np.arange(1, int(outputs[-1]))
        beyond = 1.0 - np.searchsorted(outputs, step, side="right") / len(outputs)  # P(output > step)
        left = places * beyond
        happens = 1.0 - (1.0 - beyond) ** places  # that the batch has such a step
        for at, alive in zip(step.tolist(), left.tolist()):
            chance = float(happens[at - 1])
            if chance < 1e-3:
                break
            time += chance * self._step(max(1.0, alive), prompt + at, [])
        return time
