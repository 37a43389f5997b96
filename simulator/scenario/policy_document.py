"""The KV policies of a resolved scenario as plain data: what loads to the same values."""

from __future__ import annotations

from typing import Any

from simulator.scenario import policies as p
from simulator.scenario.plain import plain
from simulator.scenario.policy_schema import LOOPS, AgePart, ComputePart, HbmCodecPart, LayoutGroupPart, RetentionPart
from simulator.units import format_quantity


def policies_document(policies: p.Policies) -> dict[str, dict[str, Any]]:
    """Sections of `kv`, to be merged with what they hold besides; those that are the identity have their `kind` only."""
    layout, reading = policies.layout, policies.reading
    groups = {name: plain(LayoutGroupPart, group) for name, group in layout.groups}
    found: dict[str, dict[str, Any]] = {
        "layout": {"kind": "groups", "groups": groups} if groups else {"kind": "native"},
        "hbm_codec": _codec(policies.codec),
        "retention": {"kind": "full"},
        "selection": {name: getattr(reading, name) for name in reading.__dataclass_fields__},
        "placement": {},
        "topology": {"latent": policies.latent},
        "sharing": {"read": policies.read},
        "loop": _loop(policies.loop),
    }
    found["layout"]["query_heads"] = layout.query_heads
    if policies.retention != p.Retention():
        found["retention"] = plain(RetentionPart, policies.retention)
    if policies.compute != p.Compute():
        compute = policies.compute
        found["placement"]["compute"] = plain(ComputePart, compute) | {
            "memory": format_quantity(compute.memory, "size"),
            "bandwidth": format_quantity(compute.bandwidth, "rate"),
            "link": format_quantity(compute.link, "rate"),
        }
    return found


def _codec(codec: p.HbmCodec) -> dict[str, Any]:
    found = plain(HbmCodecPart, codec) | {"by_layer": list(codec.by_layer)}
    return found | {"by_age": {name: plain(AgePart, age) for name, age in codec.by_age}}


def _loop(loop: p.Loop) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(loop, name) for name in LOOPS[loop.kind]}
    if "acceptance" in values:
        values["acceptance"] = list(loop.acceptance)
    return {"kind": loop.kind, **values}
