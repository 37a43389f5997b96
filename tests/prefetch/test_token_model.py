"""Token models: counting by hand, gradients against finite differences, the shipped accuracy against a new measurement."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from simulator.prefetch.token_model.accuracy import CLAIMED, evaluate
from simulator.prefetch.token_model.lstm import HIDDEN, HISTORY, Lstm, macs
from simulator.prefetch.token_model.markov import Markov
from simulator.prefetch.token_model.measured import accuracy_of, measured
from simulator.prefetch.token_model.stream import VOCABULARY, recorded


def test_markov_by_hand() -> None:
    """1 2 3 1 2 4 1 2 3: after (1, 2) comes 3 twice and 4 once; (2, 3) was followed by 1; what is unknown backs off.

    Would catch: an order that is off by one, ties by insertion, a context that runs over the end, back-off to nothing.
    """
    text = np.array([1, 2, 3, 1, 2, 4, 1, 2, 3])
    model = Markov(2, text)
    assert model.top(np.array([1, 2]), 2).tolist() == [3, 4]
    assert model.top(np.array([2, 3]), 1).tolist() == [1]
    assert model.top(np.array([9, 9]), 3).tolist() == [1, 2, 3]  # by frequency 3, 3, 2
    assert model.top(np.array([9, 4]), 2).tolist() == [1, 2]
    assert Markov(0, text).predict(text, 1).ravel().tolist() == [1] * 8


def test_accuracy_by_hand() -> None:
    """Would catch: guesses compared with the token before, a top-k that counts a token twice."""
    text = np.array([1, 2, 1, 3, 1, 2])
    found = evaluate(Markov(1, text), text, (1, 2))
    assert (found.tokens, found.top) == (5, {1: 0.8, 2: 1.0})


def test_gradients_of_the_lstm() -> None:
    """Against central differences of the same loss over a segment, in the steepest weights of every array and every gate.

    Float32: 4 % or 2e-5. Would catch: a gate whose derivative is missing, a state that is not carried back, an output row that
    is updated for the wrong token.
    """
    rng = np.random.default_rng(0)
    model = Lstm(rng.integers(0, 50, 200), epochs=0)
    inputs, targets = rng.integers(0, 50, (4, 6)), rng.integers(0, 50, (4, 6))
    rest = [tuple(rng.normal(0.0, 0.7, (2, 4, HIDDEN)).astype(np.float32)) for _ in range(2)]
    gradients, _ = model._gradients(inputs, targets, rest, np.random.default_rng(1))

    def loss() -> float:
        state, total = rest, 0.0
        others = np.searchsorted(model._frequency, np.random.default_rng(1).random(256))
        candidates = np.unique(np.concatenate([targets.T.ravel(), others]))
        for place in range(6):
            state, _ = model._step(model.weights["embedding"][inputs[:, place]], state)
            scores = (state[-1][0] @ model.weights["out"][candidates].T + model.weights["out_bias"][candidates]).astype(float)
            scores -= scores.max(axis=1, keepdims=True)
            chosen = np.searchsorted(candidates, targets[:, place])
            total -= float((scores[range(4), chosen] - np.log(np.exp(scores).sum(axis=1))).sum())
        return total / 24

    for name, gradient in gradients.items():
        gates = np.arange(gradient.shape[-1]) // HIDDEN if name.startswith(("gates", "bias")) else np.zeros(gradient.shape[-1])
        for gate in np.unique(gates):
            slope = np.where(gates == gate, np.abs(gradient), 0.0)
            index = np.unravel_index(int(slope.argmax()), gradient.shape)
            weight, step = model.weights[name], np.float32(2e-2)
            kept = weight[index]
            weight[index] = kept + step
            above = loss()
            weight[index] = kept - step
            below = loss()
            weight[index] = kept
            assert gradient[index] == pytest.approx((above - below) / (2 * float(step)), rel=0.04, abs=2e-5), (name, index)


@pytest.mark.slow
def test_an_lstm_learns_a_cycle() -> None:
    """0 1 2 .. 19 over and over: after training it knows the next token.

    Would catch: weights that move uphill, a shifted target.
    """
    text = np.tile(np.arange(20), 400)
    assert evaluate(Lstm(text, epochs=12), text[:400], (1,)).top[1] > 0.9


def test_the_cost_of_a_call() -> None:
    """16 x 229,376 multiply-adds of the layers, and the output layer: 7.8 million with 32,000 tokens.

    In 10 us that is 0.78 TMAC/s; in the "80 cycles" that are also stated, 78 TMAC/s. Would catch: gates counted once instead
    of four times.
    """
    assert macs(HISTORY, 32_000) == 16 * (4 * 128 * 192 + 4 * 128 * 256) + 128 * 32_000
    assert macs(HISTORY, 32_000) / 10e-6 == pytest.approx(0.78e12, rel=0.02)


def test_what_is_shipped_was_measured_on_what_is_shipped() -> None:
    """The hash of the tokens; the Markov rows to the last digit. Would catch: a table that was typed in or is out of date."""
    training, held_out = recorded()
    found = measured()
    tokens = np.concatenate([training, held_out]).astype(np.uint16)
    assert found["tokens_sha256"] == sha256(tokens.tobytes()).hexdigest()
    assert (found["trained_on"], found["held_out"]) == (len(training), len(held_out)) and tokens.max() < VOCABULARY
    for order in (0, 2):
        again = evaluate(Markov(order, training), held_out, range(1, 17))
        assert found["models"][f"markov{order}"]["top"] == list(again.top.values())


def test_the_claim_is_not_reached() -> None:
    """Top-4 of 95 % was claimed; no model here reaches half of it on text that it has not seen, and the table says so.

    On its own training text an order-3 Markov model does reach it, which is no prediction. Would catch: held-out text that
    leaks into training (accuracies would jump towards those of the training text).
    """
    models = measured()["models"]
    assert all(accuracy_of(name, 4) < 0.5 * CLAIMED for name in models)
    assert models["markov3"]["top_on_training_text"][3] > 0.95
    assert accuracy_of("markov3", 1) > accuracy_of("markov1", 1) > accuracy_of("markov0", 1)
    assert all(np.all(np.diff(row["top"]) >= 0) for row in models.values())


@pytest.mark.slow
def test_the_lstm_is_what_is_shipped() -> None:
    """Trained anew: within 0.02 of the shipped table, as BLAS libraries differ. Would catch: a change of the model."""
    training, held_out = recorded()
    again = evaluate(Lstm(training), held_out, (1, 4, 16))
    assert again.top == pytest.approx({k: accuracy_of("lstm", k) for k in (1, 4, 16)}, abs=0.02)
