"""What a planned step takes: the attention of its prompt pieces, and a step of replicas that share their experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from simulator.scheduler.planning import PlannedReplica, StepPlan


def attention_beside(replica: PlannedReplica, plan: StepPlan) -> tuple[float, float]:
    """Seconds a layer, (bound by FLOPs, bound by HBM), that prompt pieces add to the attention of the decodes.

    Where one kernel runs both, the contexts of the decodes count.
    """
    model = replica.model
    if not plan.work:
        return 0.0, uneven(replica)
    attention = model.prefill_attention(plan.work, contexts=replica.contexts() if model.one_kernel else ())
    return (attention.time, 0.0) if attention.bound == "compute" else (0.0, attention.time)


def uneven(replica: PlannedReplica, ahead: int = 0) -> float:
    """Seconds a layer that decodes alone take longer because of their longest, where a kernel does not split it; in the step
    that comes `ahead` of the next."""
    model = replica.model
    if not model.one_kernel or model.model.window:
        return 0.0
    return model.decode_imbalance([context + ahead for context in replica.contexts()])


@dataclass(frozen=True)
class SharedStep:
    """A step of replicas in lock step: its duration, the time parts of the slowest, and what draws power (their mean)."""

    duration: float
    compute: float
    hbm: float
    collective: float
    launch: float
    host: float
    streaming: float  # HBM s at full rate
    computing: float  # tensor-core s at full rate

    @property
    def columns(self) -> tuple[float, ...]:
        return astuple(self)


def shared_step(replicas: Sequence[PlannedReplica], plans: Sequence[StepPlan | None]) -> SharedStep:
    """A replica without a plan runs a dummy step of one token."""
    model = replicas[0].model
    steps = [(plan.decodes + plan.tokens, plan.rows) if plan else (1, 1) for plan in plans]
    shared, dummy = model.mean_tokens(steps), model.reads_of([1])
    slowest, longest, streaming, computing = (0.0,) * 4, -1.0, 0.0, 0.0
    for replica, plan, (count, rows) in zip(replicas, plans, steps, strict=True):
        context = plan.context if plan else dummy
        kernels = (plan.decodes > 0) + bool(plan.work) if plan else 1
        parts = model.shared_parts(count, rows, kernels, shared)
        compute, hbm = (model.layers * part for part in attention_beside(replica, plan)) if plan else (0.0, 0.0)
        decode = model.unit_time(count) * context
        load, unit = model.load(count, rows), model.unit_load()
        streaming += (load[0] + unit[0] * context + hbm) / len(plans)
        computing += (load[1] + unit[1] * context + compute) / len(plans)
        if model.attention_is_compute:
            compute += decode
        else:
            hbm += decode
        if parts.total + compute + hbm > longest:
            longest = parts.total + compute + hbm
            slowest = (parts.compute + compute, parts.hbm + hbm, parts.collective, parts.launch)
    host = model.host_time(max(plan.rows if plan else 1 for plan in plans))
    return SharedStep(sum(slowest) + host, *slowest, host, streaming, computing)
