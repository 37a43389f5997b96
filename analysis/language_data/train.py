"""Real key and value tensors: a small decoder-only transformer trained on the token stream of `tokens.py`.

    python -m analysis.language_data.train simulator/prefetch/data/python_reference.npy.gz training.npy OUT

Eight layers of width 512, four heads of 128 with rotary embeddings, RMSNorm, SwiGLU (26 M parameters), trained for some
minutes on one GPU: standard-library sources and the first nine tenths of the language reference, seven windows to one.
OUT gets `kv_layer{0,3,7}.npy`: float16 [key | value, 4 heads, 512 tokens, 128], keys after the rotation as a server caches
them, for the first 512 tokens of the held-out tenth, and `training.json` with the losses.

What they are: tensors of a trained transformer reading real text that it has not seen. What they are not: tensors of a
production model; outlier channels of keys, which make large models hard to quantise, are weaker in small ones.

Needs torch and a GPU; not part of the project's environment. The numbers vary slightly with hardware.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

LAYERS, WIDTH, HEADS, HEAD, CONTEXT, VOCABULARY = 8, 512, 4, 128, 512, 4096
EXPORTED = (0, 3, 7)


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of [batch, heads, tokens, HEAD], base 10,000."""
    half = HEAD // 2
    frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequency
    cosine, sine = angle.cos(), angle.sin()
    first, second = x[..., :half].float(), x[..., half:].float()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1).to(x.dtype)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * HEAD, bias=False)
        self.out = nn.Linear(HEADS * HEAD, WIDTH, bias=False)
        self.gate_up = nn.Linear(WIDTH, 2 * 1408, bias=False)
        self.down = nn.Linear(1408, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, tokens, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        q, k = rotate(q), rotate(k)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, -1))
        gate, up = self.gate_up(self.between(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up), k, v


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        x, cache = self.embedding(ids), []
        for layer in self.layers:
            x, k, v = layer(x)
            cache.append((k, v))
        return F.linear(self.norm(x), self.embedding.weight), cache


def loss_of(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        logits, _ = model(windows[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    with gzip.open(arguments.tokens) as file:
        reference = np.load(file).astype(np.int64)
    split = int(len(reference) * 0.9)
    known, held_out = reference[:split], reference[split:]
    library = np.load(arguments.training).astype(np.int64)
    model = Transformer().cuda()
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    windows = len(held_out) // (CONTEXT + 1)
    validation = torch.from_numpy(held_out[: windows * (CONTEXT + 1)].reshape(windows, CONTEXT + 1)).cuda()

    def sample(stream: np.ndarray, count: int) -> np.ndarray:
        starts = draw.integers(0, len(stream) - CONTEXT - 1, count)
        return stream[starts[:, None] + np.arange(CONTEXT + 1)]

    log, began = [], time.monotonic()
    best, kept = math.inf, {}
    for step in range(arguments.steps):
        batch = np.concatenate([sample(known, 8), sample(library, 56)])
        progress = step / arguments.steps
        rate = 1e-3 * min(1.0, (step + 1) / 200) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(compiled, torch.from_numpy(batch).cuda())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 250 == 0:
            with torch.no_grad():
                held = float(loss_of(model, validation))
            log.append({"step": step + 1, "training_loss": float(loss.detach()), "held_out_loss": held})
            print(log[-1], f"{time.monotonic() - began:.0f} s", flush=True)
            if held < best:
                best, kept = held, {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(kept)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        _, cache = model(validation[:1, :CONTEXT])
        every = torch.cat([model(window[None, :-1])[0].float() for window in validation])
    hits = (every.topk(4, -1).indices == validation[:, 1:, None]).float()
    top = {"top1": float(hits[..., 0].mean()), "top4": float(hits.sum(-1).mean())}
    for layer in EXPORTED:
        tensors = np.stack([part[0].float().cpu().numpy().astype(np.float16) for part in cache[layer]])
        np.save(arguments.out / f"kv_layer{layer}.npy", tensors)
    record = {"steps": arguments.steps, "best_held_out_loss": best, **top, "log": log,
              "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}  # fmt: skip
    (arguments.out / "training.json").write_text(json.dumps(record, indent=1))
    print({key: record[key] for key in ("best_held_out_loss", "top1", "top4")})


if __name__ == "__main__":
    main()
