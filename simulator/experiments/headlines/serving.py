"""Serving systems: Hydragen, InstInfer, PrfaaS, Recycled Attention."""

from __future__ import annotations

from simulator.experiments.headlines.finding import Finding, factor, world

SHORT, LONG, SUFFIX, BATCH = 1024, 16384, 64, 1024


def hydragen() -> list[Finding]:
    """A 13B model on eight A100, batch 1,024: a shared prefix of 1,024 and of 16,384 tokens, suffixes of 64."""
    once = world("llama-2-13b", "a100-80gb-sxm", "kv.system=hydragen", count=8)
    times = {prefix: once.decode(BATCH, prefix + SUFFIX, prefix) for prefix in (SHORT, LONG)}
    each = {prefix: once.decode(BATCH, prefix + SUFFIX) for prefix in (SHORT, LONG)}
    where = f"llama-2-13b on 8 A100, batch {BATCH:,}, suffixes of {SUFFIX} tokens; the baseline reads the prefix for each"
    drop, baseline = (100 * (one[SHORT] / one[LONG] - 1.0) for one in (times, each))
    gain = each[LONG] / times[LONG]
    flops = "the bytes of a prefix vanish, its FLOPs stay, and grow with batch and prefix"
    return [
        Finding("hydragen", "end-to-end throughput", gain, where, f"decode steps at {LONG:,} tokens: {flops}"),
        Finding("hydragen", "throughput change when prefix 1K -> 16K", drop, where, flops),
        Finding("hydragen", "baseline throughput change when prefix 1K -> 16K", baseline, where, "each sequence reads it all"),
    ]


def instinfer() -> list[Finding]:
    """What the drives would have to read for the published gain over pages that cross a link of 7 GB/s."""
    plain = world("opt-13b", "a6000-48gb")
    token = plain.steps.model.kv_bytes_per_token
    batch, context, link, published = 32, 4096, 7e9, 11.1
    read = batch * context * token
    computing = plain.steps.base(batch, batch)
    needed = read / ((computing + read / link) / published - computing)
    where = "opt-13b on one A6000, 32 sequences of 4,096 tokens; pages of the baseline cross 7 GB/s without overlap"
    why = (
        f"the drives' internal bandwidth is not stated; {factor(published)} needs {needed / 1e9:.0f} GB/s over all of them, "
        f"{needed / link:.0f} times the link"
    )
    return [Finding("instinfer", "throughput", None, where, why)]


def prfaas() -> list[Finding]:
    """Sizes of pools, models and requests are not stated."""
    dense, hybrid, used = 59.93, 4.66, 13  # published: Gbit/s of KV of a prefill instance at 32K tokens; % of 100 Gbit/s
    needed = used * dense / hybrid
    why = f"pools, model and requests are internal; a dense model of the same speed would need {needed:.0f} % of the link"
    return [Finding("prfaas", "serving throughput", None, "none: the case study is internal", why)]


def recycled() -> list[Finding]:
    why = "the headline is about quality at equal speed, which is not simulated"
    return [Finding("recycled", "task performance", None, "", why)]


CHECKS = (hydragen, instinfer, prfaas, recycled)
