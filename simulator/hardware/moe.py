"""Mixture of experts: how many experts a step touches, and where its tokens go.

Routing is uniform and independent: every token goes to k different ones of E experts. Of a batch of T tokens an expert is
left out with probability (1 - k/E)^T, so a step touches on average

    distinct = E (1 - (1 - k/E)^T)

and streams that many experts' weights; T k rows are spread evenly over them. Expert parallelism deals the experts out over n
GPUs: each holds E/n, touches distinct/n of them, and computes T k / n rows, with T the tokens of all GPUs of the group.
Trained routers are less even: fewer distinct experts in small batches, a busiest GPU above the mean in large ones. Neither is
modelled.

The products of all touched experts run in one kernel (grouped): their tiles share the waves over the SMs. It finds the rows
of an expert by their index (fused: hidden states are not copied to experts), writes a result for every row, and one more
kernel sums those over the experts of a token.

Exchange, where the group is larger than the tensor-parallel ranks (data-parallel replicas in lock step, each with its own
tokens): an all-gather of the hidden states brings every GPU all tokens, a reduce-scatter sends the sums back. Together they
move what one all-reduce of the group's hidden states moves, and every one of the two has its own latency; nccl-tests count
both by the same bus bandwidth. Inside a tensor-parallel group every rank has all tokens already, and the all-reduce that ends
the layer sums over experts as it sums over slices.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.hardware import collective
from simulator.hardware.gemm import gemm
from simulator.hardware.operator import Operator
from simulator.hardware.precision import conversion_seconds, for_precision
from simulator.scenario.resolved import Gpu, Model


def distinct_experts(experts: int, per_token: int, tokens: float) -> float:
    """Mean number of experts that `tokens` tokens touch."""
    missed: float = (1.0 - per_token / experts) ** tokens
    return experts * (1.0 - missed)


def grouped_product(gpu: Gpu, name: str, groups: float, rows: float, columns: float, inner: float, model: Model) -> Operator:
    """`rows` rows in all, spread evenly over `groups` matrices of `inner` x `columns` weights, in one kernel."""
    device = for_precision(gpu, model.weights)
    work = gemm(device, name, rows, columns, inner, model.weight_bytes, groups=groups)
    convert = groups * conversion_seconds(gpu, model.weights, rows / groups, columns, inner) if rows else 0.0
    return replace(work, compute_s=work.compute_s + convert) if convert else work


def exchange(gpu: Gpu, group: int, message: float) -> float:
    """Seconds to bring `message` bytes of hidden states (of the whole group) to all GPUs and the sums back."""
    if group == 1:
        return 0.0
    latency = collective.all_reduce(gpu, group, 0.0)
    return collective.all_reduce(gpu, group, message) + latency
