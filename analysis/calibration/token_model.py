"""Measure the token models: train on nine tenths of the recorded text, count right guesses on the last tenth.

    python -m analysis.calibration.token_model

writes `simulator/prefetch/data/token_accuracy.json` and prints the table beside what CXL-SpecKV claims (top-4 of 95 %). Nothing
is fitted to the held-out part. One core: under a second for the Markov models, about ten seconds for the LSTM.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from simulator.prefetch.token_model.accuracy import CLAIMED, TokenModel, evaluate
from simulator.prefetch.token_model.lstm import Lstm
from simulator.prefetch.token_model.markov import Markov
from simulator.prefetch.token_model.stream import recorded

FILE = Path(__file__).parents[2] / "simulator" / "prefetch" / "data" / "token_accuracy.json"
KS = tuple(range(1, 17))


def measure() -> dict[str, Any]:
    training, held_out = recorded()
    models: dict[str, TokenModel] = {f"markov{order}": Markov(order, training) for order in range(4)}
    models["lstm"] = Lstm(training)
    rows = {}
    for name, model in models.items():
        seen, unseen = evaluate(model, training[: len(held_out)], KS), evaluate(model, held_out, KS)
        rows[name] = {"top": [unseen.top[k] for k in KS], "top_on_training_text": [seen.top[k] for k in KS]}
    tokens = np.concatenate([training, held_out]).astype(np.uint16)
    return {
        "tokens_sha256": sha256(tokens.tobytes()).hexdigest(),
        "trained_on": len(training),
        "held_out": len(held_out),
        "claimed": {"top4": CLAIMED, "source": "CXL-SpecKV (arXiv:2512.11920): LSTM, top-4 of 94 to 97 %; not reproduced"},
        "models": rows,
    }


def table(found: dict[str, Any]) -> str:
    lines = [f"{'model':<10}{'top-1':>8}{'top-4':>8}{'top-16':>8}   top-4 on training text"]
    for name, row in found["models"].items():
        top, seen = row["top"], row["top_on_training_text"]
        lines.append(f"{name:<10}{top[0]:>8.1%}{top[3]:>8.1%}{top[15]:>8.1%}   {seen[3]:.1%}")
    return "\n".join([*lines, f"{'claimed':<10}{'':>8}{found['claimed']['top4']:>8.1%}"])


def main() -> None:
    found = measure()
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
