"""Serving systems: Hydragen, InstInfer, PrfaaS, RetrievalAttention."""

from __future__ import annotations

from simulator import catalog
from simulator.experiments.headlines.finding import Finding, World, over, world

SHORT, LONG, SUFFIX, BATCH = 1024, 16384, 64, 1024
SSD = 7e9  # bytes/s of a PCIe Gen4 x4 drive
FLASH = (9.6e9, 76.8e9)  # bytes/s inside: a drive of 8 channels at 1.2 GB/s to four at 2.4 (ONFI 4 and 5, recalled)
FULL = (1 / 8, 1 / 4, 1 / 3)  # full-attention layers of published hybrids: one in eight, in four, in three
OUTPUTS = (256, 1024)  # tokens
PROMPT = 32_768  # tokens: the length that the published rates of KV are at
HYBRID, STATE = "qwen3-235b-a22b", 2**20  # stands in for an internal model; bytes of state a linear layer, assumed
WAN = 100e9 / 8  # bytes/s, published
HOST_RAM = (50e9, 300e9)  # bytes/s: gathered at random to streamed


def hydragen() -> list[Finding]:
    """A 13B model on eight A100, batch 1,024: a shared prefix of 1,024 and of 16,384 tokens, suffixes of 64."""
    once = world("llama-2-13b", "a100-80gb-sxm", "kv.system=hydragen", count=8)
    times = {prefix: once.decode(BATCH, prefix + SUFFIX, prefix) for prefix in (SHORT, LONG)}
    each = {prefix: once.decode(BATCH, prefix + SUFFIX) for prefix in (SHORT, LONG)}
    where = f"llama-2-13b on 8 A100, batch {BATCH:,}, suffixes of {SUFFIX} tokens; the baseline reads the prefix for each"
    drop, baseline = (100 * (one[SHORT] / one[LONG] - 1.0) for one in (times, each))
    gain = each[LONG] / times[LONG]
    flops = "the bytes of a prefix vanish, its FLOPs stay, and grow with batch and prefix"
    most = -0.01 * _published("hydragen", "throughput change when prefix 1K -> 16K")
    more, step = times[LONG] - times[SHORT], times[SHORT]
    spent = (1.0 - most) / most * more - step  # host time a step that would make the drop that of the headline
    added = f"{1e3 * more:.1f} ms on a step of {1e3 * step:.1f} ms without a host"
    said = f"{flops}: {added}; with {1e3 * spent:.0f} ms of it {100 * most:.0f} %"
    return [
        Finding("hydragen", "end-to-end throughput", gain, where, f"decode steps at {LONG:,} tokens: {flops}"),
        Finding("hydragen", "throughput change when prefix 1K -> 16K", drop, where, said),
        Finding("hydragen", "baseline throughput change when prefix 1K -> 16K", baseline, where, "each sequence reads it all"),
    ]


def instinfer() -> list[Finding]:
    """Decode with attention in the drives against pages of all KV that cross the link of an SSD."""
    model, gpu, batch, context = "opt-13b", "a6000-48gb", 32, 4096
    plain = world(model, gpu)
    read = batch * context * plain.steps.model.kv_bytes_per_token
    crossing = plain.steps.base(batch, batch) + read / SSD
    drives = (
        f"kv.placement.compute={{at: near_data, memory: 4 TB, bandwidth: {inside / 1e9} GB/s, link: {SSD / 1e9} GB/s}}"
        for inside in FLASH
    )
    gains = over(crossing / world(model, gpu, one).decode(batch, context) for one in drives)
    where = (
        f"{model} on one A6000, {batch} sequences of {context:,} tokens; pages of the baseline cross {SSD / 1e9:.0f} GB/s, the "
        f"drives read {FLASH[0] / 1e9:.3g} to {FLASH[1] / 1e9:.3g} GB/s inside, as that is not stated"
    )
    why = "the gain is the bandwidth of flash inside the drives over that of their link, which crossing pages share"
    return [Finding("instinfer", "throughput", gains, where, why)]


def prfaas() -> list[Finding]:
    """Prompts on H200, the rest on H20, against H20 for both. Fluid: instances of eight GPUs, the best split, no queues.

    With p and d instance-seconds of H20 for a prompt and its output, prompts r times faster on H200 and m instances of H200
    for one of H20, the remote pool adds m * r of H20's work, at most all prompts: throughput rises by min(m * r, p / d).
    """
    gain, equal = (_published("prfaas", metric) for metric in ("serving throughput", "throughput at equal cost"))
    gains, faster, rates = [], [], []
    for share in FULL:
        near, far = _hybrid("h20-96gb", share), _hybrid("h200-141gb-sxm", share)
        pool = ((100.0 + gain) / (100.0 + equal) - 1.0) * near.price / far.price
        slow, quick = near.prompt(PROMPT), far.prompt(PROMPT)
        model = near.steps.model
        shipped = PROMPT * share * model.kv_bytes_per_token + (1.0 - share) * model.layers * STATE
        faster.append(100.0 * (1.0 - (quick + shipped / WAN) / slow))
        rates.append(8e-9 * shipped / quick)
        gains += [100.0 * min(pool * slow / quick, slow * near.throughput(PROMPT) / output) for output in OUTPUTS]
    least, most = over(rates)
    where = (
        f"{HYBRID} with one in three to one in eight layers of full attention for the internal model, eight H200 or H20 in FP8 "
        f"(uncalibrated) an instance, prompts of {PROMPT:,}, "
    )
    sized = f"{OUTPUTS[0]:,} to {OUTPUTS[1]:,} tokens of output; H200 as many as the published gain at equal cost implies"
    why = "a remote pool adds its speed in prompts, at most all of the local prompt work: long outputs leave less to move"
    unloaded = f"without queues; an H200 instance makes {least:.0f} to {most:.0f} Gbit/s of KV, so the link adds little"
    return [
        Finding("prfaas", "serving throughput", over(gains), where + sized, why),
        Finding("prfaas", "P90 TTFT", over(faster), where + "100 Gbit/s", unloaded),
    ]


def _published(system: str, metric: str) -> float:
    return float(next(one for one in catalog.load("kv_systems", system).about["headlines"] if one["metric"] == metric)["value"])


def _hybrid(gpu: str, share: float) -> World:
    shares = f"kv.layout.groups.attention.share={share}", f"kv.layout.groups.linear.share={1 - share}"
    state = f"kv.layout.groups.linear.state={STATE} B"
    return world(HYBRID, gpu, "model.weights=fp8", "kv.system=prfaas", *shares, state, count=8)


def retrievalattention() -> list[Finding]:
    """A token at 131,072 of context: the GPU's step and what the host reads, without the search's own time."""
    context = 131_072
    steps = over(
        world(
            "llama-3-8b", "rtx-4090", "kv.system=retrievalattention",
            f"kv.placement.compute={{at: host, memory: 1 TB, bandwidth: {speed / 1e9} GB/s, link: 25 GB/s, latency: 0 s}}",
        ).decode(1, context)
        for speed in HOST_RAM
    )  # fmt: skip
    where = (
        f"llama-3-8b on one RTX 4090, host memory read at {HOST_RAM[0] / 1e9:.0f} to {HOST_RAM[1] / 1e9:.0f} GB/s, a search "
        f"that costs its bytes"
    )
    why = "bytes explain a fraction: the rest is the vector search on the CPU, which is not stated and is an input (latency)"
    return [
        Finding("retrievalattention", "time per token", steps, where, why),
        Finding("retrievalattention", "time per token", steps, where, why, number=1),
    ]


CHECKS = (hydragen, instinfer, prfaas, retrievalattention)
