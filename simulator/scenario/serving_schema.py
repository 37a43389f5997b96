"""The sections of who is served how: `scheduler`, `slo` with its classes, `tenants`."""

from __future__ import annotations

from math import inf
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ValidationInfo, field_validator, model_validator

from simulator.scenario.parts import Label, Positive, PositiveSize, Rate, Section, Time, Whole, default, known
from simulator.scenario.quantities import Count, Flag, Number, Tokens, refuse, refuse_all

Share = Annotated[float, Number(least=0, most=1)]
TokenCount = Annotated[int, Tokens()]
S = TypeVar("S", bound=Section)


def unique(section: S, field: str) -> S:
    """The section, if no two of the list `field` have one name."""
    names = [part.name for part in getattr(section, field)]
    again = next((at for at, name in enumerate(names) if name in names[:at]), None)
    if again is not None:
        raise refuse(f"{names[again]!r} is there twice", at=(field, str(again), "name"))
    return section


# other names in use for the same rules
ALIASES = {
    "batching": {
        "vllm_v1": "continuous", "chunked_prefill": "continuous", "vllm_v0": "prefill_first", "sarathi": "decode_first",
        "request_level": "static",
    },
    "queue": {
        "fifo": "fcfs", "sjf": "shortest_first", "shortest_job_first": "shortest_first", "edf": "earliest_deadline",
        "earliest_deadline_first": "earliest_deadline", "vtc": "fair",
    },
    "preemption": {"swap": "swap_host", "host": "swap_host", "pool": "swap_pool"},
}  # fmt: skip


class Scheduler(Section):
    batching: Literal["continuous", "decode_first", "prefill_first", "static"] = default(
        "continuous", "continuous: vLLM V1; decode_first: Sarathi; prefill_first: vLLM V0; static: whole batches"
    )
    max_batch: Whole = 64
    token_budget: TokenCount = default("2048 tokens", "of a step: decodes first, the rest prefill")
    prefill_chunk: TokenCount | None = default(None, "most tokens of one prompt in a step; default: token_budget")
    reserve: Literal["prompt", "full"] = "prompt"
    watermark: Share = default(0.01, "share of all blocks kept free at admission")
    asynchronous: Annotated[bool, Flag()] = default(False, "the next step is planned while this one runs")
    engine: Label | None = default(None, "host overhead of a serving engine in the catalogue")
    host_overhead: Time | None = default(None, "per step; default 0 s")
    host_per_sequence: Time | None = default(None, "per token that a step gives out; default 0 s")
    queue: Literal["fcfs", "shortest_first", "priority", "earliest_deadline", "fair", "fair_far"] = default(
        "fcfs", "order of those that wait; priority, earliest_deadline: by slo.classes; fair: by tenants"
    )
    preemption: Literal["recompute", "swap_host", "swap_pool"] = default(
        "recompute", "where blocks run out: compute again, or copy to the host or to a pool that holds nothing else"
    )
    swap_space: PositiveSize | None = default(None, "swap_host: host memory per GPU; default 4 GiB")
    admission: Literal["queue", "limit", "deadline"] = default(
        "queue", "limit: reject what finds max_queue waiting; deadline: what cannot meet its TTFT for the prompts before it"
    )
    max_queue: Annotated[int, Count(0)] | None = default(None, "limit: most requests that wait")

    @field_validator(*ALIASES, mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        return ALIASES[str(info.field_name)].get(value, value) if isinstance(value, str) else value

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else known("engines", value)

    @model_validator(mode="after")
    def _used(self) -> Scheduler:
        problems: list[tuple[tuple[str, ...], str]] = []
        if self.swap_space is not None and self.preemption != "swap_host":
            message = f"preemption: {self.preemption} does not use swap_space; remove it or write preemption: swap_host"
            problems.append((("swap_space",), message))
        if self.max_queue is not None and self.admission != "limit":
            message = f"admission: {self.admission} does not use max_queue; remove it or write admission: limit"
            problems.append((("max_queue",), message))
        if self.max_queue is None and self.admission == "limit":
            problems.append((("admission",), "limit needs max_queue; write for example max_queue: 100"))
        if problems:
            raise refuse_all(problems)
        return self


class SloClass(Section):
    """Requests of one kind; which ones they are is in the trace (column `class`), or drawn by `share`."""

    name: Label
    ttft: Time | None = None
    tpot: Time | None = None
    weight: Positive = default(1, "of a request in goodput.weighted_attainment")
    priority: Annotated[float, Number()] = default(0, "queue: priority; lower goes first")
    share: Positive = default(1, "of the requests whose class is not recorded, relative to the other classes")


class Slo(Section):
    ttft: Time | None = default(None, "of requests without a class of their own")
    tpot: Time | None = None
    classes: tuple[SloClass, ...] = default((), "each with its own limits")

    @model_validator(mode="after")
    def _names(self) -> Slo:
        return unique(self, "classes")


class TenantPart(Section):
    """Whose a request is: recorded in the trace (column `tenant`), or drawn by `share`."""

    name: Label
    share: Positive = default(1, "of the requests whose tenant is not recorded, relative to the others")
    weight: Positive = default(1, "what the tenant is entitled to, relative to the others: in fair queues and on the fabric")
    flows: Literal["each", "together"] = default("each", "which of its flows on the fabric the weight is of")
    bandwidth: Rate | None = default(None, "most raw KV bytes/s that cross the fabric for it in the long run; default: any")
    burst: PositiveSize | None = default(None, "raw bytes that may do so at once; default: 0.1 s of bandwidth")

    @model_validator(mode="after")
    def _used(self) -> TenantPart:
        if self.burst is not None and self.bandwidth in (None, inf):
            raise refuse("burst is of a tenant with a bandwidth; remove it or write bandwidth: 10 GB/s", at=("burst",))
        return self
