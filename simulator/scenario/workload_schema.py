"""The workload section: a recorded trace, or synthetic requests."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.scenario.parts import Label, Positive, Section, Time, default
from simulator.scenario.quantities import Count, Quantity, RequestRate, Tokens, refuse, refuse_all

TokenCount = Annotated[int, Tokens()]


class Trace(Section):
    path: Label = Field(description="relative to the scenario file")
    format: Literal["auto", "azure", "mooncake", "csv", "vllm"] = "auto"
    limit: Annotated[int, Count(1)] | None = default(None, "the first so many requests of the window; or `none`")
    start: Time = default("0 s", "of the window on the recorded clock")
    end: Annotated[float, Quantity("time", above_zero=True)] = default("inf", "of the window")
    rate_scale: Positive | None = default(None, "recorded times are divided by this; default 1; at_once has no times")
    arrivals: Literal["recorded", "at_once"] = "recorded"

    @model_validator(mode="after")
    def _window(self) -> Trace:
        if self.start >= self.end:
            raise refuse("the window is empty: end must be after start", at=("end",))
        return self


class Arrivals(Section):
    process: Literal["poisson", "gamma", "constant", "at_once"]
    rate: Annotated[float, RequestRate()] | None = None
    cv: Positive | None = default(None, "gamma: coefficient of variation of the times between arrivals")

    @model_validator(mode="after")
    def _used(self) -> Arrivals:
        problems: list[tuple[tuple[str, ...], str]] = []
        if self.process == "at_once" and self.rate is not None:
            problems.append((("rate",), "process: at_once does not use rate; remove it"))
        if self.process != "at_once" and self.rate is None:
            problems.append(((), f"process: {self.process} needs a rate; write for example rate: '5 /s'"))
        if self.process != "gamma" and self.cv is not None:
            problems.append((("cv",), f"process: {self.process} does not use cv; remove it or write process: gamma"))
        if self.process == "gamma" and self.cv is None:
            problems.append(((), "process: gamma needs cv; write for example cv: 2"))
        if self.process == "gamma" and self.rate == inf:
            problems.append((("cv",), "an infinite rate does not use cv; write process: at_once"))
        if problems:
            raise refuse_all(problems)
        return self


class Fixed(Section):
    dist: Literal["fixed"]
    tokens: TokenCount


class Uniform(Section):
    dist: Literal["uniform"]
    low: TokenCount
    high: TokenCount = Field(description="inclusive")

    @model_validator(mode="after")
    def _order(self) -> Uniform:
        if self.low > self.high:
            raise refuse(f"high is {self.high} tokens, below low ({self.low} tokens)", at=("high",))
        return self


class LogNormal(Section):
    dist: Literal["lognormal"]
    mean: TokenCount = Field(description="before clipping")
    cv: Positive = Field(description="standard deviation / mean")
    low: TokenCount = default("1 token", "lower clip")
    high: TokenCount | None = default(None, "upper clip; default: the model's max_context")

    @model_validator(mode="after")
    def _order(self) -> LogNormal:
        if self.high is not None and self.low > self.high:
            raise refuse(f"high is {self.high} tokens, below low ({self.low} tokens)", at=("high",))
        return self


class Empirical(Section):
    dist: Literal["empirical"]
    trace: Label = Field(description="rows are drawn with replacement; relative to the scenario file")


LengthsSpec = Annotated[Fixed | Uniform | LogNormal | Empirical, Field(discriminator="dist")]


class Synthetic(Section):
    requests: Annotated[int | Literal["one_batch"], Count(1, word="one_batch")]
    arrivals: Arrivals
    input: LengthsSpec
    output: LengthsSpec


class Workload(Section):
    """Exactly one of the two."""

    trace: Trace | None = None
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _one(self) -> Workload:
        if (self.trace is None) == (self.synthetic is None):
            found = "neither" if self.trace is None else "both"
            raise refuse(f"expected either trace or synthetic, found {found}")
        return self
