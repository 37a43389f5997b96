"""Codecs: KIVI, Mustafar, TurboESM."""

from __future__ import annotations

from simulator.experiments.headlines.finding import Finding, factor, world

CONTEXT = 4096


def kivi() -> list[Finding]:
    """LLaMA-2-7B on one A100 at the batch that fits."""
    plain, small = (world("llama-2-7b", "a100-80gb-sxm", f"kv.system={name}") for name in ("none", "kivi"))
    few, many = plain.fits(CONTEXT), small.fits(CONTEXT)
    where = f"llama-2-7b on one A100 80 GB, {CONTEXT:,} tokens, group 32, 128 tokens raw"
    memory = plain.held(few, CONTEXT) / small.held(few, CONTEXT)
    gain = (many / small.decode(many, CONTEXT)) / (few / plain.decode(few, CONTEXT))
    kept = f"weights stay, the KV of {few} sequences shrinks"
    return [
        Finding("kivi", "peak memory reduction incl. weights", memory, where, kept),
        Finding("kivi", "batch size", many / few, where, f"{many} sequences fit instead of {few}"),
        Finding("kivi", "throughput", gain, where, "a larger batch, the same bytes a step; published requests are shorter"),
    ]


def mustafar() -> list[Finding]:
    """LLaMA-2-7B on one A100 at the batch that fits."""
    plain, sparse = (world("llama-2-7b", "a100-80gb-sxm", f"kv.system={name}") for name in ("none", "mustafar"))
    few, many = plain.fits(CONTEXT), sparse.fits(CONTEXT)
    gain = (many / sparse.decode(many, CONTEXT)) / (few / plain.decode(few, CONTEXT))
    where = f"llama-2-7b on one A100 80 GB, {CONTEXT:,} tokens, decode at full memory"
    why = f"{many} sequences fit instead of {few}, at the bytes of before; {factor(gain)} needs a sparse kernel at bandwidth"
    return [Finding("mustafar", "tokens/s", gain, where, why)]


def turboesm() -> list[Finding]:
    """Three bits against 16, without metadata."""
    plain = world("llama-2-7b", "a100-80gb-sxm")
    bits = world("llama-2-7b", "a100-80gb-sxm", "kv.hbm_codec={k_bits: 3, v_bits: 3}")
    ratio = plain.sizes.blocks(160_000) / bits.sizes.blocks(160_000)
    why = "three bits of 16 give no more; the published baseline is probably 32 bits, of which 7.1 leaves 4.5 bits"
    return [Finding("turboesm", "memory reduction", ratio, "a baseline of 16 bits, no metadata", why)]


CHECKS = (kivi, mustafar, turboesm)
