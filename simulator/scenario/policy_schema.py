"""The KV policies as users write them: sections of `kv` that are the identity by default.

A section says with `kind` what it is, or leaves that to its fields. Groups of a layout and ages of a codec have names, so that
a study or `--set` can speak of one: `kv.layout.groups.mamba.state`. What the fields mean is in `scenario/policies.py`, the
formulas in `kvcache/policies/`.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import model_validator

from simulator.scenario import policies as p
from simulator.scenario.parts import Label, Positive, PositiveSize, Section, Size, Time, Whole, default
from simulator.scenario.quantities import Count, Number, Quantity, Tokens, refuse, refuse_all

T = TypeVar("T")
Problems = list[tuple[tuple[str, ...], str]]
Share = Annotated[float, Number(least=0, most=1)]
SomeShare = Annotated[float, Number(above=0, most=1)]
TokenCount = Annotated[int, Tokens(0)]
Bits = Annotated[float, Number(above=0, most=16)]
Least1 = Annotated[float, Number(least=1)]
Rate = Annotated[float, Quantity("rate", above_zero=True, finite=True)]


def made(kind: type[T], section: Section, **more: Any) -> T:
    """The dataclass of the same fields."""
    names = [field.name for field in fields(kind) if field.name not in more]  # type: ignore[arg-type]
    return kind(**{name: getattr(section, name) for name in names}, **more)


class LayoutGroupPart(Section):
    share: SomeShare = default(1.0, "of the layers or heads; the groups sum to 1")
    over: Literal["layers", "heads"] = "layers"
    kind: Literal["full", "window", "ssm", "conv"] = default("full", "ssm, conv: a state instead of tokens")
    window: TokenCount = default("0 tokens", "window: the newest so many")
    sink: TokenCount = default("0 tokens", "window: and the first so many")
    fraction: Share = default(0.0, "window: and so many for each token of context (strides, windows that grow)")
    kv_scale: SomeShare = default(1.0, "bytes of an entry, relative to the model's own")
    flops_scale: SomeShare = default(1.0, "attention FLOPs of an entry, relative to the model's own")
    tokens_per_entry: Least1 = default(1.0, "tokens that share an entry")
    run_every: Least1 = default(1.0, "the layers run for one token in so many")
    state: Size = default("0 B", "bytes that a sequence has in each layer, however long it is")

    @model_validator(mode="after")
    def _used(self) -> LayoutGroupPart:
        problems: Problems = []
        for name in ("window", "sink", "fraction"):
            if getattr(self, name) and self.kind != "window":
                problems.append(((name,), f"{self.kind} does not use {name}; remove it or write kind: window"))
        if self.kind == "window" and not self.window + self.sink + self.fraction:
            problems.append(((), "window needs window ('256 tokens'), sink or fraction (0.5)"))
        if self.kind in ("ssm", "conv") and not self.state:
            problems.append(((), f"{self.kind} needs state, the bytes of a sequence in each layer; for example '1 MiB'"))
        if self.over == "heads" and self.run_every != 1.0:
            problems.append((("run_every",), "all heads of a layer run together; write over: layers"))
        if problems:
            raise refuse_all(problems)
        return self


class LayoutPart(Section):
    kind: Literal["native", "groups"] | None = default(None, "native: the model's own cache; default: by groups")
    groups: dict[Label, LayoutGroupPart] = default({}, "name -> layers or heads that keep the same kind of state")
    query_heads: SomeShare = default(1.0, "query heads, relative to the model's: attention FLOPs")

    @model_validator(mode="after")
    def _whole(self) -> LayoutPart:
        if self.kind == "native" and self.groups:
            raise refuse("native has no groups; remove it or write kind: groups", at=("kind",))
        total = sum(group.share for group in self.groups.values())
        if self.groups and abs(total - 1.0) > 1e-6:
            raise refuse(f"the shares of the groups sum to {total:g}; expected 1", at=("groups",))
        return self

    def resolved(self) -> p.Layout:
        return p.Layout(tuple((name, made(p.LayoutGroup, group)) for name, group in self.groups.items()), self.query_heads)


class AgePart(Section):
    older_than: TokenCount
    bits: Bits


class HbmCodecPart(Section):
    k_bits: Bits = default(16.0, "of a K element")
    v_bits: Bits = default(16.0, "of a V element")
    group: Annotated[int, Count(0)] = default(0, "elements that share metadata; 0: none")
    meta_bits: Annotated[float, Number(least=0)] = default(0.0, "of a group: scale and zero point")
    residual: TokenCount = default("0 tokens", "newest tokens that stay raw")
    density: SomeShare = default(1.0, "share of the elements that is kept")
    mask_bits: Annotated[float, Number(least=0)] = default(0.0, "per element: where the kept ones are")
    ratio: Positive = default(1.0, "instead of all that: raw bytes per stored byte")
    by_layer: tuple[Positive, ...] = default((), "ratios of equal parts of the layers")
    by_age: dict[Label, AgePart] = default({}, "name -> bits from an age on; the first from 0 tokens")

    @model_validator(mode="after")
    def _one(self) -> HbmCodecPart:
        bits = any(getattr(self, name) != type(self).model_fields[name].default for name in ("k_bits", "v_bits", "density"))
        ways = [bits, self.ratio != 1.0, bool(self.by_layer), bool(self.by_age)]
        problems: Problems = []
        if sum(ways) > 1:
            problems.append(((), "give one of bits (with density), ratio, by_layer and by_age"))
        if self.meta_bits and not self.group:
            problems.append((("meta_bits",), "needs group, the elements that share them; for example group: 32"))
        steps = sorted((age.older_than, age.bits) for age in self.by_age.values())
        if steps and (steps[0][0] != 0 or any(one[1] <= other[1] for one, other in pairwise(steps))):
            problems.append((("by_age",), "expected ages from 0 tokens on, each with fewer bits than the one before"))
        if problems:
            raise refuse_all(problems)
        return self

    def resolved(self) -> p.HbmCodec:
        return made(p.HbmCodec, self, by_age=tuple((name, made(p.Age, age)) for name, age in self.by_age.items()))


class RetentionPart(Section):
    kind: Literal["full", "part"] | None = default(None, "default: by what is given")
    prompt_scale: SomeShare = default(1.0, "tokens of a prompt that reach the model")
    pre_cost: Annotated[float, Number(least=0)] = default(
        0.0, "work on each token of the whole prompt before that, relative to the model's own prefill"
    )
    keep: SomeShare = default(1.0, "share of the tokens whose KV is kept")
    when: Literal["always", "prefill_end"] = default("always", "keep of all tokens as they age, or of a prompt once computed")
    window: TokenCount = default("0 tokens", "always: newest tokens that are kept in any case")

    @model_validator(mode="after")
    def _used(self) -> RetentionPart:
        problems: Problems = []
        if self.kind == "full" and (self.prompt_scale < 1.0 or self.keep < 1.0):
            problems.append((("kind",), "full keeps everything; remove it or write kind: part"))
        if self.window and (self.keep == 1.0 or self.when != "always"):
            problems.append((("window",), "is used where keep is below 1 and when is always; remove it"))
        if problems:
            raise refuse_all(problems)
        return self


class ComputePart(Section):
    at: Literal["gpu", "host", "near_data"] = default("gpu", "where attention is computed; elsewhere all KV is there")
    memory: PositiveSize | None = default(None, "for KV, of each device")
    devices: Whole = 1
    bandwidth: Rate | None = default(None, "at which attention on one device reads its own memory")
    link: Rate | None = default(None, "between the GPUs and all devices: queries, new KV, outputs")
    latency: Time = default("0 s", "a layer: call, search, wait")

    @model_validator(mode="after")
    def _used(self) -> ComputePart:
        names = ("memory", "bandwidth", "link")
        if self.at != "gpu":
            missing = [name for name in names if getattr(self, name) is None]
            if missing:
                raise refuse(f"attention at {self.at} needs {' and '.join(missing)}")
        elif self != ComputePart.model_construct(memory=None, bandwidth=None, link=None, devices=1, latency=0.0, at="gpu"):
            raise refuse("is used where attention is not computed on the GPU; write at: host or near_data")
        return self

    def resolved(self) -> p.Compute:
        numbers = {name: getattr(self, name) or 0.0 for name in ("memory", "bandwidth", "link")}
        return made(p.Compute, self, **numbers)


LOOPS = {
    "autoregressive": (), "speculative": ("draft", "acceptance", "draft_cost"), "parallel_workers": ("workers", "steps_scale"),
    "block_diffusion": ("steps_scale", "recompute"), "denoise": ("steps_scale", "recompute"),
}  # fmt: skip
_MAY_LACK = ("draft_cost",)


class LoopPart(Section):
    kind: Literal["autoregressive", "speculative", "parallel_workers", "block_diffusion", "denoise"] = "autoregressive"
    draft: Whole | None = default(None, "speculative: tokens that a draft proposes")
    acceptance: Share | tuple[Share, ...] | None = default(
        None, "speculative: of each position, given that those before it were accepted; one number for all of them"
    )
    draft_cost: Annotated[float, Number(least=0)] | None = default(
        None, "speculative: time of a draft pass, relative to a plain decode step; default 0"
    )
    workers: Whole | None = default(None, "parallel_workers: tokens of one sequence in a pass")
    steps_scale: Positive | None = default(None, "passes for each output token; depends on content, an input")
    recompute: Share | None = default(None, "share of the context that a pass computes again")

    @model_validator(mode="after")
    def _used(self) -> LoopPart:
        given = [name for name in type(self).model_fields if name != "kind" and getattr(self, name) is not None]
        problems: Problems = [
            ((name,), f"{self.kind} does not use {name}; remove it") for name in given if name not in LOOPS[self.kind]
        ]
        missing = [name for name in LOOPS[self.kind] if name not in (*given, *_MAY_LACK)]
        if missing:
            problems.append(((), f"{self.kind} needs {' and '.join(missing)}"))
        if isinstance(self.acceptance, tuple) and self.draft and len(self.acceptance) != self.draft:
            problems.append((("acceptance",), f"{len(self.acceptance)} positions for a draft of {self.draft} tokens"))
        if problems:
            raise refuse_all(problems)
        return self

    def resolved(self) -> p.Loop:
        draft, rates = self.draft or 0, self.acceptance if self.acceptance is not None else ()
        return p.Loop(
            self.kind, draft, rates if isinstance(rates, tuple) else (rates,) * draft, self.draft_cost or 0.0,
            self.workers or 1, 1.0 if self.steps_scale is None else self.steps_scale, self.recompute or 0.0,
        )  # fmt: skip
