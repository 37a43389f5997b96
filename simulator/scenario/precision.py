"""Bytes of one element in each numeric format, for weights and for KV.

int8 and fp8 carry a scale per channel or tensor, which is nothing beside them; int4 a 16-bit scale for each group of 128
weights (AWQ, GPTQ), or for each 64 KV elements.
"""

from __future__ import annotations

WEIGHTS = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
KV = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 64}
EMBEDDINGS = 2.0  # checkpoints with quantised weights keep them in 16 bits
