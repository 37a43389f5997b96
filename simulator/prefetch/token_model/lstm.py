"""A small two-layer LSTM over token ids in numpy, the size that CXL-SpecKV states: embedding 64, hidden 128.

    [i, f, o, g] = x W + h U + b      c' = sigmoid(f) c + sigmoid(i) tanh(g)      h' = sigmoid(o) tanh(c')

Trained by truncated back-propagation through time (segments of `SEGMENT` tokens, `STREAMS` parallel parts of the text, state
carried over between segments), Adam, cross-entropy over the segment's own tokens and `SAMPLED` others drawn by frequency
(sampled softmax, Jean et al. 2015; the full vocabulary would cost ten times as much). The 128 K parameters that they state
cannot hold a vocabulary: embedding, two layers and output layer have 0.26 + 0.23 + 0.53 million with 4,096 tokens, 6.4
million with 32,000.

A prediction costs 16 tokens x 230,400 multiply-adds for a history of 16 that is read anew, and hidden x vocabulary for the
output layer (`macs`); carrying the state over costs one token instead of 16.

Float32, fixed seed; results can differ in the last digits between BLAS libraries, so what the simulator takes from here is
an accuracy over thousands of tokens, rounded to three digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.prefetch.token_model.stream import VOCABULARY, Tokens

EMBEDDING, HIDDEN, LAYERS = 64, 128, 2
SEGMENT, STREAMS, EPOCHS, RATE, SAMPLED = 16, 64, 3, 6e-3, 256
HISTORY = 16

Array = NDArray[np.float32]
States = list[tuple[Array, Array]]


def macs(history: int = HISTORY, vocabulary: int = VOCABULARY) -> int:
    """Multiply-adds of one prediction that reads a history anew."""
    layers = 4 * HIDDEN * (EMBEDDING + HIDDEN) + 4 * HIDDEN * (HIDDEN + HIDDEN)
    return history * layers + HIDDEN * vocabulary


class Lstm:
    """Trained on construction; `seed` fixes weights and order."""

    def __init__(self, tokens: Tokens, seed: int = 0, epochs: int = EPOCHS):
        draw = np.random.default_rng(seed)
        self.weights: dict[str, Array] = {"embedding": _normal(draw, VOCABULARY, EMBEDDING, 0.1)}
        for layer in range(LAYERS):
            inputs = (EMBEDDING if layer == 0 else HIDDEN) + HIDDEN
            self.weights[f"gates{layer}"] = _normal(draw, inputs, 4 * HIDDEN, inputs**-0.5)
            bias = np.zeros(4 * HIDDEN, np.float32)
            bias[HIDDEN : 2 * HIDDEN] = 1.0  # forget gates start open
            self.weights[f"bias{layer}"] = bias
        self.weights["out"] = _normal(draw, VOCABULARY, HIDDEN, HIDDEN**-0.5)
        counts = np.bincount(tokens, minlength=VOCABULARY) + 0.1
        self.weights["out_bias"] = np.log(counts).astype(np.float32)
        self._frequency = np.cumsum(counts / counts.sum())[:-1]
        self._train(tokens, epochs, draw)

    def _train(self, tokens: Tokens, epochs: int, draw: np.random.Generator) -> None:
        length = (len(tokens) - 1) // STREAMS
        inputs = tokens[: length * STREAMS].reshape(STREAMS, length)
        targets = tokens[1 : length * STREAMS + 1].reshape(STREAMS, length)
        moments = {name: (np.zeros_like(weight), np.zeros_like(weight)) for name, weight in self.weights.items()}
        steps, total = 0, epochs * (length // SEGMENT)
        for _ in range(epochs):
            state = _rest(STREAMS)
            for first in range(0, length - SEGMENT + 1, SEGMENT):
                part = slice(first, first + SEGMENT)
                gradients, state = self._gradients(inputs[:, part], targets[:, part], state, draw)
                steps += 1
                self._adam(gradients, moments, steps, RATE * (1.0 - 0.95 * steps / total))

    def _adam(self, gradients: dict[str, Array], moments: dict[str, tuple[Array, Array]], step: int, rate: float) -> None:
        norm = float(np.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values())))
        clip = np.float32(min(1.0, 1.0 / (norm + 1e-9)))
        scale = np.float32(rate * np.sqrt(1.0 - 0.99**step) / (1.0 - 0.9**step))
        for name, gradient in gradients.items():
            first, second = moments[name]
            gradient *= clip
            first *= np.float32(0.9)
            first += np.float32(0.1) * gradient
            second *= np.float32(0.99)
            second += np.float32(0.01) * gradient * gradient
            self.weights[name] -= scale * first / (np.sqrt(second) + np.float32(1e-8))

    def _step(self, x: Array, state: States) -> tuple[States, list[tuple[Array, ...]]]:
        """One token of every stream: new states, and what the backward pass needs of each layer."""
        after: States = []
        trace: list[tuple[Array, ...]] = []
        for layer, (h, c) in enumerate(state):
            joined = np.concatenate([x, h], axis=1)
            gates = joined @ self.weights[f"gates{layer}"] + self.weights[f"bias{layer}"]
            opened = _sigmoid(gates[:, : 3 * HIDDEN])
            i, f, o = opened[:, :HIDDEN], opened[:, HIDDEN : 2 * HIDDEN], opened[:, 2 * HIDDEN :]
            g = np.tanh(gates[:, 3 * HIDDEN :])
            new = f * c + i * g
            squashed = np.tanh(new)
            x = o * squashed
            after.append((x, new))
            trace.append((joined, i, f, o, g, c, squashed))
        return after, trace

    def _gradients(
        self, inputs: Tokens, targets: Tokens, state: States, draw: np.random.Generator
    ) -> tuple[dict[str, Array], States]:
        """Gradients of the mean cross-entropy of a segment, and the state after it."""
        streams, length = inputs.shape
        traces, tops = [], []
        for place in range(length):
            state, trace = self._step(self.weights["embedding"][inputs[:, place]], state)
            traces.append(trace)
            tops.append(state[-1][0])
        top = np.stack(tops).reshape(length * streams, HIDDEN)
        wanted = targets.T.ravel()
        others = np.searchsorted(self._frequency, draw.random(SAMPLED))
        candidates, place_of = np.unique(np.concatenate([wanted, others]), return_inverse=True)
        output = self.weights["out"][candidates]
        error = _softmax(top @ output.T + self.weights["out_bias"][candidates])
        error[np.arange(length * streams), place_of[: length * streams]] -= 1.0
        error /= np.float32(length * streams)
        gradients = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        gradients["out"][candidates] = error.T @ top
        gradients["out_bias"][candidates] = error.sum(axis=0)
        into = (error @ output).reshape(length, streams, HIDDEN)
        dh = [np.zeros((streams, HIDDEN), np.float32) for _ in range(LAYERS)]
        dc = [np.zeros((streams, HIDDEN), np.float32) for _ in range(LAYERS)]
        for place in range(length - 1, -1, -1):
            above = into[place]
            for layer in range(LAYERS - 1, -1, -1):
                joined, i, f, o, g, c, squashed = traces[place][layer]
                d = dh[layer] + above
                cell = dc[layer] + d * o * (1.0 - squashed * squashed)
                change = np.concatenate(
                    [
                        cell * g * i * (1.0 - i),
                        cell * c * f * (1.0 - f),
                        d * squashed * o * (1.0 - o),
                        cell * i * (1.0 - g * g),
                    ],
                    axis=1,
                )
                dc[layer] = cell * f
                gradients[f"gates{layer}"] += joined.T @ change
                gradients[f"bias{layer}"] += change.sum(axis=0)
                back = change @ self.weights[f"gates{layer}"].T
                above, dh[layer] = back[:, :-HIDDEN], back[:, -HIDDEN:]
            np.add.at(gradients["embedding"], inputs[:, place], above)
        return gradients, [(h.copy(), c.copy()) for h, c in state]

    def predict(self, tokens: Tokens, k: int) -> NDArray[np.int64]:
        """[len(tokens) - 1, k]: the guesses for each token after the first, each from the `HISTORY` tokens before it."""
        padded = np.concatenate([np.zeros(HISTORY - 1, np.int64), tokens[:-1]])
        windows = np.lib.stride_tricks.sliding_window_view(padded, HISTORY)
        guesses = [self._after(windows[first : first + 512], k) for first in range(0, len(windows), 512)]
        return np.concatenate(guesses)

    def _after(self, histories: Tokens, k: int) -> NDArray[np.int64]:
        """[histories, k]: best guesses after each of [histories, HISTORY] tokens, from an empty state."""
        state = _rest(len(histories))
        for token in histories.T:
            state, _ = self._step(self.weights["embedding"][token], state)
        scores = state[-1][0] @ self.weights["out"].T + self.weights["out_bias"]
        some = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
        best: NDArray[np.int64] = np.take_along_axis(some, order, axis=1)
        return best


def _normal(draw: np.random.Generator, rows: int, columns: int, deviation: float) -> Array:
    return (draw.standard_normal((rows, columns)) * deviation).astype(np.float32)


def _rest(streams: int) -> States:
    return [(np.zeros((streams, HIDDEN), np.float32), np.zeros((streams, HIDDEN), np.float32)) for _ in range(LAYERS)]


def _sigmoid(x: Array) -> Array:
    opened: Array = np.float32(1.0) / (np.float32(1.0) + np.exp(-x))
    return opened


def _softmax(x: Array) -> Array:
    raised: Array = np.exp(x - x.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised
