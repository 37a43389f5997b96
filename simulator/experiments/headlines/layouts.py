"""Layouts: DuoAttention, MoA, Apriel-H1, TPLA."""

from __future__ import annotations

from simulator.experiments.headlines.finding import Finding, factor, world

MHA = ("llama-2-7b", 0.25)
GQA = ("llama-3-8b", 0.5)


def duoattention() -> list[Finding]:
    """At the longest context that full attention holds on the GPU, batch 1."""
    found = []
    for part, (model, share) in enumerate((MHA, GQA)):
        shares = f"kv.layout.groups.retrieval.share={share}", f"kv.layout.groups.streaming.share={1 - share}"
        plain = world(model, "a100-80gb-sxm")
        duo = world(model, "a100-80gb-sxm", "kv.system=duoattention", *shares)
        longest = plain.sizes.l1_blocks * plain.sizes.block_tokens - 16
        context = f"{model} on one A100 80 GB at {longest:,} tokens, the longest that full attention holds"
        memory = plain.held(1, longest) / duo.held(1, longest)
        why = f"weights stay whole, KV falls to {share:g} of the heads and a window"
        found.append(Finding("duoattention", "memory reduction", memory, context, why, part=part))
        speed = plain.decode(1, longest) / duo.decode(1, longest)
        why = f"attention reads {share:g} of the bytes, the rest of the step is as before; a second kernel is not counted"
        found.append(Finding("duoattention", "decode speedup", speed, context, why, part=part))
    return found


def moa() -> list[Finding]:
    """At the batch that fits, contexts of 8,192 tokens."""
    plain, half = (world("llama-2-7b", "a100-80gb-sxm", f"kv.system={name}") for name in ("none", "moa"))
    batch, context = plain.fits(8192), 8192
    where = "llama-2-7b on one A100 80 GB, 8,192 tokens, the batch that memory allows"
    memory = plain.held(batch, context) / half.held(batch, context)
    more = half.fits(context)
    gain = (more / half.decode(more, context)) / (batch / plain.decode(batch, context))
    why = f"half of the KV gives at most {factor(gain)}: the published gain contains the baseline's implementation"
    kept = f"at equal batch, weights included: half of the KV of {batch} sequences goes"
    return [Finding("moa", "GPU memory reduction", memory, where, kept), Finding("moa", "decode throughput", gain, where, why)]


def apriel_h1() -> list[Finding]:
    """A 15B model of 50 layers, 16,384 tokens, at the batch that fits."""
    shape = (
        "model.layers=50", "model.hidden=5120", "model.heads=32", "model.kv_heads=8", "model.head_dim=128",
        "model.intermediate=14336", "model.vocab=131072", "cluster.gpus.count=1",
    )  # fmt: skip
    plain = world("llama-2-13b", "h100-80gb-sxm", *shape)
    hybrid = world(
        "llama-2-13b", "h100-80gb-sxm", *shape, "kv.system=apriel-h1", "kv.layout.groups.mamba.state=1 MiB"
    )  # fmt: skip
    context = 16384
    few, many = plain.fits(context), hybrid.fits(context)
    gain = (many / hybrid.decode(many, context)) / (few / plain.decode(few, context))
    where = "15B of 50 layers, 8 KV heads of 128, one H100, 16,384 tokens, 1 MiB of state a Mamba layer, decode at full memory"
    why = f"{many} sequences fit instead of {few}, and a step reads two fifths of each; prompts, which gain less, are left out"
    return [Finding("apriel-h1", "inference throughput", gain, where, why)]


def tpla() -> list[Finding]:
    """Attention of a decode step over 32,768 tokens on two ranks; heads of DeepSeek-V3 (128) and Kimi-K2 (64)."""
    found = []
    for number, heads in enumerate((128, 64)):
        shape = (
            "model.weights=fp8", f"model.heads={heads}", f"model.kv_heads={heads}", "cluster.gpus.memory=2000 GB",
        )  # fmt: skip
        whole = world("deepseek-v3", "h200-141gb-sxm", *shape, count=2)
        parts = world("deepseek-v3", "h200-141gb-sxm", *shape, "kv.system=tpla", count=2)
        gain = whole.attention(32768) / parts.attention(32768)
        where = f"two tensor-parallel H200 with memory enough for the weights, {heads} heads, attention alone"
        bound = "FLOPs then bound it" if parts.steps.attention_is_compute else "bytes still bound it"
        why = f"a rank reads half of the latent with all heads, and {bound}; the all-reduce of outputs is not in it"
        found.append(Finding("tpla", "decode speedup", gain, where, why, number=number))
    return found


CHECKS = (duoattention, moa, apriel_h1, tpla)
