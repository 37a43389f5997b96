"""Selections: IndexCache, TidalDecode, BLASST, Double Sparsity, NOSA, FASA, DELTA; a shorter prompt: SemToken."""

from __future__ import annotations

from simulator.experiments.headlines.finding import Finding, factor, over, world
from simulator.kvcache.policies.prefetch import bounds, moved

INDEX_HEADS, INDEX_DIM = 64, 128  # DeepSeek's lightning indexer
FP8 = 2.0  # products in 8 bits run so much faster


def indexcache() -> list[Finding]:
    """A MoE of 30B with a latent of 512 + 64, batch 1, 200,000 tokens: an indexer in every layer, or in every fourth."""
    model, context = "qwen3-30b-a3b", 200_000
    latent = ("model.kv_latent=512", "model.rope_dim=64", "kv.system=indexcache")
    probe = world(model, "h100-80gb-sxm", *latent).steps.model
    flops = INDEX_HEADS * INDEX_DIM / FP8 / (probe.heads * (probe.query_dim + probe.head_dim) / 2)
    given = (*latent, f"kv.selection.index_flops={flops}")
    every = world(model, "h100-80gb-sxm", *given, "kv.selection.select_every=1")
    fourth = world(model, "h100-80gb-sxm", *given)
    where = f"{model} with a latent for the unnamed model, H100, {context:,} tokens, batch 1, FP8 indexer of 64 heads"
    prefill = every.prompt(context) / fourth.prompt(context)
    decode = every.decode(1, context) / fourth.decode(1, context)
    seconds = f"{every.prompt(context):.1f} s become {fourth.prompt(context):.1f} s"
    left = 1e3 * (every.decode(1, context) - fourth.decode(1, context))
    slower = f"at the bandwidth of HBM the scans save {left:.2f} ms of a step; the published step saves more: its indexer "
    return [
        Finding("indexcache", "prefill speedup", prefill, where, f"{seconds}: three quarters of the indexer's FLOPs go"),
        Finding("indexcache", "decode speedup", decode, where, slower + "kernels (scores, top-k) run far below bandwidth"),
    ]


def tidaldecode() -> list[Finding]:
    """LLaMA-2-7B on one A100 at 10K, 32K and 100K, batch 1: the largest gain."""
    roles = ("kv.selection.dense_layers=2", "kv.selection.select_every=15")
    plain = world("llama-2-7b", "a100-80gb-sxm")
    sparse = world("llama-2-7b", "a100-80gb-sxm", "kv.system=tidaldecode", *roles)
    gains = {context: plain.decode(1, context) / sparse.decode(1, context) for context in (10_000, 32_000, 100_000)}
    said = ", ".join(f"{factor(gain)} at {context // 1000}K" for context, gain in gains.items())
    where = "2 full layers and 2 selections in 32 layers, batch 1"
    why = f"by bytes {said}; reading single tokens and choosing them runs below bandwidth, and is not counted"
    return [Finding("tidaldecode", "decode latency reduction", max(gains.values()), where, why)]


def blasst() -> list[Finding]:
    """Attention alone, where it takes nearly all of the time."""
    plain, prefill, decode = (
        world("llama-3.1-8b", "h100-80gb-sxm", *settings)
        for settings in ((), ("kv.system=blasst", "kv.selection.v_fraction=0.253"), ("kv.system=blasst",))
    )
    where = "attention alone, long context, on one H100; the published V fractions"
    first = plain.prompt_attention(65536) / prefill.prompt_attention(65536)
    second = plain.attention(65536) / decode.attention(65536)
    return [
        Finding("blasst", "prefill speedup", first, where, "scores are computed, a quarter of the products with V remains"),
        Finding("blasst", "decode speedup", second, where, "all of K and 0.268 of V are read: the bound by bytes, 1 / 0.634"),
    ]


def doublesparsity() -> list[Finding]:
    """Attention alone at a sixteenth of the tokens and of the channels."""
    plain, sparse = (world("llama-2-7b", "a100-80gb-sxm", f"kv.system={name}") for name in ("none", "doublesparsity"))
    gain = plain.attention(65536) / sparse.attention(65536)
    where = "attention alone, long context, on one A100"
    why = "1/16 of the tokens and 1/32 of all bytes as labels are read; more than that needs a baseline below bandwidth"
    contexts = (2048, 16384)
    steps = over(plain.decode(plain.fits(one), one) / sparse.decode(plain.fits(one), one) for one in contexts)
    filled = "llama-2-7b on one A100 80 GB, 2,048 and 16,384 tokens, the batch that memory allows"
    rest = "weights and the rest of a step stay; single tokens are gathered at full bandwidth here, and top-k costs nothing"
    reads = 1.0 / (sparse.steps.selection.fraction or 1.0)
    crossing = "256K tokens in host memory, labels in HBM, no overlap in time, nothing kept from step to step"
    offloaded = "only the selected tokens cross the link: one in sixteen; the baseline moves all of them"
    return [
        Finding("doublesparsity", "attention speedup", gain, where, why),
        Finding("doublesparsity", "end-to-end speedup", steps, filled, rest),
        Finding("doublesparsity", "decode speed with offloading", reads, crossing, offloaded),
    ]


def fasa() -> list[Finding]:
    """Attention that reads 18.9 % of the tokens and an index of all."""
    context, kept, indexes = 16384, 0.189, (1 / 16, 1 / 4)
    plain = world("qwen2.5-7b", "a100-80gb-sxm")
    tokens = f"kv.selection.tokens={round(kept * context)} tokens"
    sparse = (world("qwen2.5-7b", "a100-80gb-sxm", "kv.system=fasa", tokens, f"kv.selection.index={one}") for one in indexes)
    gains = over(plain.attention(context) / one.attention(context) for one in sparse)
    where = f"attention alone, qwen2.5-7b on one A100, {context:,} tokens, an index of a sixteenth to a quarter of KV"
    why = "bytes of the kept tokens and of the slice of every key that is scored; the size of the slice is not stated"
    return [Finding("fasa", "speedup", gains, where, why)]


def delta() -> list[Finding]:
    """Decode with a fifth of the tokens attended to, as published, on a reasoning model at full memory."""
    contexts = (8192, 32768)
    plain = world("qwen2.5-7b", "a100-80gb-sxm")
    sparse = world("qwen2.5-7b", "a100-80gb-sxm", "kv.selection={kind: pages, fraction: 0.2}")
    alone = over(plain.decode(1, one) / sparse.decode(1, one) for one in contexts)
    full = over(plain.decode(plain.fits(one), one) / sparse.decode(plain.fits(one), one) for one in contexts)
    where = "qwen2.5-7b on one A100 80 GB, 8K and 32K tokens, batches from 1 to what memory allows; layer roles are not stated"
    why = "a fifth of the reads; how much of a step they are depends on the batch, which is not stated"
    return [Finding("delta", "end-to-end speedup", over((*alone, *full)), where, why)]


def semtoken() -> list[Finding]:
    """A prompt of 2.4 times fewer tokens, without the encoder that finds them."""
    prompts = (2048, 32768)
    plain = world("llama-2-7b", "a100-80gb-sxm")
    short = world("llama-2-7b", "a100-80gb-sxm", "kv.system=semtoken", "kv.retention.pre_cost=0")
    scale = short.steps.policies.retention.prompt_scale
    gains = over(plain.prompt(prompt) / short.prompt(round(scale * prompt)) for prompt in prompts)
    where = "llama-2-7b on one A100, prompts of 2,048 and 32,768, no cost of the encoder and no output"
    why = "fewer tokens take that much less, attention its square; the published gain contains the encoder and the output"
    return [Finding("semtoken", "speedup", gains, where, why)]


def nosa() -> list[Finding]:
    """A 1B model, 32,768 tokens, 4,096 selected: offloaded with a large batch against all KV in HBM with a small one."""
    context, budget, link = 32768, 4096, 30e9
    sparse = ("kv.selection.kind=pages", f"kv.selection.tokens={budget} tokens", "kv.block=64 tokens")
    near = world("llama-3.2-1b", "a100-80gb-sxm", *sparse)
    token = near.sizes.block_bytes / near.sizes.block_tokens
    batch, larger = near.fits(context), near.sizes.l1_blocks * near.sizes.block_tokens // budget
    fetched = larger * moved(budget * token, budget * token, 0.8)
    best, _ = bounds(near.decode(larger, context), fetched, link)
    gain = (larger / best) / (batch / near.decode(batch, context))
    where = f"llama-3.2-1b, one A100 80 GB, {context:,} tokens, {budget:,} selected, a link of 30 GB/s, perfect overlap in time"
    why = (
        f"at an overlap of 0.8 each sequence fetches {0.2 * budget * token / 1e6:.0f} MB a step, so the link bounds {larger} "
        f"sequences; the gain needs HBM for far fewer than the {batch} that fit here, or a higher overlap"
    )
    return [Finding("nosa", "decode throughput", gain, where, why)]


CHECKS = (indexcache, tidaldecode, blasst, doublesparsity, nosa, fasa, delta, semtoken)
