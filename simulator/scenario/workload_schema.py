"""The workload section: a recorded trace, or synthetic requests."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.scenario.parts import Label, Positive, Section, Time, default
from simulator.scenario.quantities import Count, Number, Quantity, RequestRate, Tokens, refuse, refuse_all

TokenCount = Annotated[int, Tokens()]


_VARYING = {  # what each process with a varying rate uses; all of it is needed
    "diurnal": ("rate", "amplitude", "period"),
    "ramp": ("rate", "peak", "over"),
    "spike": ("rate", "peak", "at", "over"),
    "mmpp": ("rates", "dwell"),
}
_EXAMPLES = {
    "rate": "'5 /s'", "peak": "'20 /s'", "amplitude": "0.8", "period": "24 h", "over": "10 min", "at": "5 min",
    "rates": "['2 /s', '20 /s']", "dwell": "['60 s', '5 s']",
}  # fmt: skip
Duration = Annotated[float, Quantity("time", above_zero=True)]


class Arrivals(Section):
    process: Literal["poisson", "gamma", "constant", "at_once", "diurnal", "ramp", "spike", "mmpp"]
    rate: Annotated[float, RequestRate()] | None = None
    cv: Positive | None = default(None, "gamma: coefficient of variation of the times between arrivals")
    amplitude: Annotated[float, Number(above=0, most=1)] | None = default(None, "diurnal: (highest rate - mean) / mean")
    period: Duration | None = default(None, "diurnal: of a cycle, which begins at its lowest point")
    peak: Annotated[float, RequestRate()] | None = default(None, "ramp: rate at its end; spike: rate of it")
    at: Time | None = default(None, "spike: when it begins")
    over: Duration | None = default(None, "ramp, spike: how long it lasts")
    rates: tuple[Annotated[float, RequestRate()], ...] | None = default(None, "mmpp: of each state")
    dwell: tuple[Duration, ...] | None = default(None, "mmpp: mean stay in each state")

    @model_validator(mode="after")
    def _used(self) -> Arrivals:
        problems: list[tuple[tuple[str, ...], str]] = []
        used = _VARYING.get(self.process)
        for name in dict.fromkeys(one for fields in _VARYING.values() for one in fields if one != "rate"):
            if getattr(self, name) is not None and (used is None or name not in used):
                problems.append(((name,), f"process: {self.process} does not use {name}; remove it"))
        if used is not None:
            self._varies(used, problems)
            return self
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

    def _varies(self, used: tuple[str, ...], problems: list[tuple[tuple[str, ...], str]]) -> None:
        for name in used:
            value = getattr(self, name)
            if value is None:
                problems.append(((), f"process: {self.process} needs {name}; write for example {name}: {_EXAMPLES[name]}"))
            elif name in ("rate", "peak") and value == inf:
                problems.append(((name,), f"infinite; process: {self.process} needs a finite {name}"))
        for name in ("rate", "cv"):
            if getattr(self, name) is not None and name not in used:
                problems.append(((name,), f"process: {self.process} does not use {name}; remove it"))
        if self.rates is not None and self.dwell is not None and self.process == "mmpp":
            if len(self.rates) != len(self.dwell) or len(self.rates) < 2:
                message = (
                    f"{len(self.rates)} rates and {len(self.dwell)} dwell times; expected one of each for two states or more"
                )
                problems.append((("rates",), message))
            elif inf in self.rates or inf in self.dwell:
                problems.append((("rates",), "rates and dwell times must be finite"))
        if problems:
            raise refuse_all(problems)


class Trace(Section):
    path: Label = Field(description="relative to the scenario file")
    format: Literal[
        "auto", "azure", "csv", "burstgpt", "vidur", "vidur_lengths", "agentic", "tracelab", "bailian", "aiperf", "mooncake",
        "vllm_workload", "vllm",
    ] = "auto"  # fmt: skip
    block: TokenCount | None = default(None, "of a hashed block; default: the format's")
    malformed: Literal["refuse", "skip"] = default("refuse", "skip: malformed rows are left out and counted")
    limit: Annotated[int, Count(1)] | None = default(None, "the first so many requests of the window; or `none`")
    start: Time = default("0 s", "of the window on the recorded clock")
    end: Annotated[float, Quantity("time", above_zero=True)] = default("inf", "of the window")
    rate_scale: Positive | None = default(None, "recorded times are divided by this; default 1; at_once has no times")
    arrivals: Literal["recorded", "at_once"] | None = default(None, "default recorded; at_once: sessions start at once")
    starts: Arrivals | None = default(
        None, "drawn in place of the recorded times: of sessions their starts, else of all requests"
    )

    @model_validator(mode="after")
    def _window(self) -> Trace:
        if self.start >= self.end:
            raise refuse("the window is empty: end must be after start", at=("end",))
        if self.starts is not None:
            for name in ("arrivals", "rate_scale"):
                if getattr(self, name) is not None:
                    raise refuse(f"starts are drawn: {name} is not used; remove one of the two", at=(name,))
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


class Geometric(Section):
    dist: Literal["geometric"]
    mean: TokenCount = Field(description="before clipping; at least 1 token each")
    high: TokenCount | None = default(None, "upper clip; default: the model's max_context")


class Empirical(Section):
    dist: Literal["empirical"]
    trace: Label = Field(description="rows are drawn with replacement; relative to the scenario file")


LengthsSpec = Annotated[Fixed | Uniform | LogNormal | Geometric | Empirical, Field(discriminator="dist")]


class Prefix(Section):
    tokens: TokenCount
    count: Annotated[int, Count(1)] = default(1, "different ones under each prefix of the level above")


class Sessions(Section):
    """Chats of several turns: the requests are turns, the arrivals those of first turns, input what a turn adds."""

    turns: Annotated[float, Number(least=1)] = Field(description="mean of a session")
    spread: Literal["geometric", "fixed"] = default("geometric", "of the number of turns")
    think: Time = Field(description="mean, from the end of an answer to the next turn")
    think_cv: Annotated[float, Number(least=0)] = default(1.0, "Gamma-distributed; 0: always the mean")
    prefixes: tuple[Prefix, ...] = default((), "levels of a tree of shared prompts: system prompts, under them tools, ...")
    skew: Annotated[float, Number(least=0)] = default(0.0, "children are chosen with 1 / rank^skew")

    @model_validator(mode="after")
    def _whole(self) -> Sessions:
        if self.spread == "fixed" and self.turns != round(self.turns):
            raise refuse(f"{self.turns:g} turns found; spread: fixed needs a whole number", at=("turns",))
        return self


class Synthetic(Section):
    requests: Annotated[int | Literal["one_batch"], Count(1, word="one_batch")]
    arrivals: Arrivals
    input: LengthsSpec
    output: LengthsSpec
    sessions: Sessions | None = default(None, "turns of closed-loop chats; absent: independent requests")


class Clients(Section):
    """A service as the superposition of its clients (ServeGen's data)."""

    path: Label = Field(description="tar or folder of clients, relative to the scenario file")
    start: Time = default("0 s", "of the window on the recorded days")
    end: Annotated[float, Quantity("time", above_zero=True)] = default("inf", "of the window")
    rate: Annotated[float, RequestRate()] | None = default(None, "mean of the window to which all rates are scaled together")
    limit: Annotated[int, Count(1)] = Field(description="the first so many requests")

    @model_validator(mode="after")
    def _window(self) -> Clients:
        if self.start >= self.end:
            raise refuse("the window is empty: end must be after start", at=("end",))
        return self


class Workload(Section):
    """Exactly one of them."""

    trace: Trace | None = None
    synthetic: Synthetic | None = None
    clients: Clients | None = None

    @model_validator(mode="after")
    def _one(self) -> Workload:
        given = [name for name in ("trace", "synthetic", "clients") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if len(given) > 2 else "both" if given else "neither"
            raise refuse(
                f"expected either trace or synthetic, found {found}"
                if "clients" not in given
                else f"expected one of trace, synthetic, clients, found {' and '.join(given)}"
            )
        return self
