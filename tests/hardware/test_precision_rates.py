"""Products in eight bits against those in sixteen."""

from __future__ import annotations

from simulator import step_model


def test_eight_bits_double_the_rate_of_large_products() -> None:
    """Peak rate and operands a byte both double, so a product that fills the tensor cores takes half as long.

    Catches operands of tiles that are still counted in 16 bits: fp8 would then be no faster than their bandwidth lets
    16 bits be. The tolerance is for what does not change: waves, the start and end of a tile.
    """
    times = {
        name: sum(
            operator.compute_s
            for operator in step_model("h100-80gb-sxm", "llama-2-70b", 2, weights=name).layer_operators(8192)
            if operator.flops > 0
        )
        for name in ("bf16", "fp8")
    }
    assert 0.45 < times["fp8"] / times["bf16"] < 0.55
