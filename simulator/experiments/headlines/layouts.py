"""Layouts: DuoAttention, MoA, Apriel-H1, TPLA, Block Transformer, CCA, SQA."""

from __future__ import annotations

from simulator.experiments.headlines.finding import Finding, factor, over, world

MHA = ("llama-2-7b", 0.25)
GQA = ("llama-3-8b", 0.5)
LONG = (100_000, 320_000)  # tokens of the prompts of their README


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
        long = LONG[part]
        gain = plain.prompt(long) / duo.prompt(long)
        why = "windows of the streaming heads save their part of the attention; projections and MLP stay"
        where = f"{model} on one A100 80 GB, a prompt of {long:,} tokens"
        found.append(Finding("duoattention", "prefill speedup", gain, where, why, part=part))
    packed = world(
        GQA[0], "a100-80gb-sxm", "kv.system=duoattention", "model.weights=int8",
        "kv.hbm_codec={k_bits: 4, v_bits: 4, group: 128, meta_bits: 32}",
    )  # fmt: skip
    why = "8-bit weights and half of the heads in 4 bits with scales fill HBM; activations of so long a prompt take more"
    where = f"{GQA[0]} on one A100 80 GB, half of the heads full, scales and zeros for groups of 128"
    found.append(Finding("duoattention", "context", packed.longest() / 1e6, where, why))
    return found


def block_transformer() -> list[Finding]:
    """At full memory, the same number of parameters; equal perplexity asks for more of them, which takes some of the gain."""
    contexts = (2048, 8192)
    plain, block = (world("llama-3.2-1b", "h100-80gb-sxm", f"kv.system={name}") for name in ("none", "blocktransformer"))
    gains = over(block.throughput(context) / plain.throughput(context) for context in contexts)
    where = f"llama-3.2-1b on one H100, contexts of {contexts[0]:,} and {contexts[1]:,}, full memory, as many parameters"
    why = "an eighth of the KV, so eight times the batch, and half of the layers run every fourth token"
    return [Finding("blocktransformer", "throughput", gains, where, why)]


def cca() -> list[Finding]:
    """A prompt of 16,384 tokens with KV for all heads, attention FLOPs falling with the compression of the queries."""
    scales, prompt = (0.5, 0.25, 0.125), 16384
    plain = world("llama-2-7b", "h100-80gb-sxm").prompt(prompt)
    asked = (f"kv.layout.groups.latent.flops_scale={scale}" for scale in scales)
    gains = over(plain / world("llama-2-7b", "h100-80gb-sxm", "kv.system=cca", one).prompt(prompt) for one in asked)
    where = f"llama-2-7b on one H100, a prompt of {prompt:,}; attention FLOPs of a half to an eighth, as that is not stated"
    why = "attention is a smaller part of a prompt of this model than of the unnamed one; smaller projections are not counted"
    return [Finding("cca", "prefill latency reduction", gains, where, why)]


def sqa() -> list[Finding]:
    """Prompts, which are bound by compute, with a half and a quarter of the query heads."""
    model, prompts, heads = "llama-2-7b", (32_768, 200_000), (0.5, 0.25)
    plain = world(model, "a100-80gb-sxm")
    few = [world(model, "a100-80gb-sxm", "kv.system=sqa", f"kv.layout.query_heads={one}") for one in heads]
    gains = over(plain.prompt(prompt) / one.prompt(prompt) for one in few for prompt in prompts)
    where = (
        f"{model} on one A100, prompts of 32K and 200K, a half and a quarter of the query heads, as the variant is not stated"
    )
    why = "FLOPs of attention fall with the heads; at 200K they are most of a prompt, at 32K half of it"
    return [Finding("sqa", "throughput", gains, where, why)]


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


CHECKS = (duoattention, moa, apriel_h1, tpla, block_transformer, cca, sqa)
