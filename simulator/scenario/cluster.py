"""Several replicas in a scenario.

    cluster:
      replicas: 4                             # alike; or groups, each alike
      routing: least_outstanding
      gpus: {type: h100-sxm, count: 1}        # of a replica; of those groups that do not name their own
      groups:
        - {name: prompts, role: prefill, replicas: 2}                         # tenants: [a, b]: it serves nobody else
        - {name: tokens, role: decode, replicas: 4, gpus: {type: a100-80gb-sxm, count: 2}, scheduler: {max_batch: 128}}
      transfer: {link: infiniband-ndr, count: 1, threshold: 256 tokens}
      kv_pool: {..., shared: true}            # one pool for all; false: one for each replica

A group is the scenario with its own `gpus`, `scheduler` and `kv` (l1, l2, blocks) over the common ones: it is resolved and
checked as a scenario of one replica (`sources_of`), so that whatever is wrong is said as for one, at the group's line. `gpus`
with a type stand for themselves; without one they change single fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from math import inf
from typing import Annotated, Any, Literal

from pydantic import field_validator

from simulator.errors import Problem, did_you_mean
from simulator.scenario import resolved as r
from simulator.scenario.faults import whose_checks
from simulator.scenario.parts import Label, LinkPart, Section, Whole, default
from simulator.scenario.quantities import Tokens, refuse
from simulator.scenario.source import Source, Where, below

OWN_KV = ("l1", "l2", "blocks")
_GROUPS: Where = ("cluster", "groups")
_OWN = {("cluster", "gpus"): "gpus", ("scheduler",): "scheduler", ("kv",): "kv"}  # where a group's own sections go


class GroupPart(Section):
    """Replicas that are alike."""

    name: Label | None = default(None, "a label for results; default: the role")
    role: Literal["both", "prefill", "decode"] = default("both", "which part of a request its replicas compute")
    replicas: Whole = 1
    gpus: dict[str, Any] | str | None = default(None, "of one replica, as cluster.gpus")
    scheduler: dict[str, Any] | None = default(None, "over the common scheduler")
    kv: dict[str, Any] | None = default(None, "l1, l2, blocks over the common kv")
    tenants: tuple[Label, ...] | None = default(None, "whose requests it serves; default: everybody's")

    @field_validator("kv")
    @classmethod
    def _own(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in value or ():
            if name not in OWN_KV:
                raise refuse(f"a group has no {name} of its own; it may have {', '.join(OWN_KV)}", at=(name,))
        return value


class TransferPart(Section):
    """Of KV, from where prompts are computed to where they are decoded; the ports of the GPUs come on top."""

    link: LinkPart
    count: Whole = default(1, "links that all replicas share")
    threshold: Annotated[int, Tokens()] = default("1 token", "shorter prompts are computed where they are decoded")


def sources_of(source: Source) -> list[Source]:
    """The source of each group as that of a scenario of one replica; none without groups. Before presets are filled in."""
    groups = source.get(_GROUPS)
    found = []
    for index, group in enumerate(groups if isinstance(groups, list) else ()):
        if isinstance(group, dict):
            found.append(_source_of(source, str(index), group))
    return found


def _source_of(source: Source, index: str, group: dict[str, Any]) -> Source:
    data = deepcopy(source.data)
    for name in ("groups", "replicas", "transfer", "routing"):
        data["cluster"].pop(name, None)
    for tenant in data["tenants"] if isinstance(data.get("tenants"), list) else ():
        if isinstance(tenant, dict):  # one replica may have no fabric
            tenant.pop("bandwidth", None)
            tenant.pop("burst", None)
    if isinstance(data["cluster"].get("kv_pool"), dict):
        data["cluster"]["kv_pool"].pop("shared", None)
    for fault in data["faults"] if isinstance(data.get("faults"), list) else ():
        if isinstance(fault, dict):
            fault.pop("replica", None)
    own = Source(data, source.whole, dict(source.keys), dict(source.values), dict(source.spoken))
    for path, name in _OWN.items():
        given, at = group.get(name), (*_GROUPS, index, name)
        if given is None:
            continue
        common = own.get(path)
        alone = name == "gpus" and (isinstance(given, str) or "type" in given)
        if alone or not isinstance(given, dict) or not isinstance(common, dict):
            _take(own, source, path, at, deepcopy(given))
            continue
        for key, value in given.items():
            _take(own, source, (*path, key), (*at, key), deepcopy(value))
    return own


def _take(own: Source, source: Source, path: Where, at: Where, value: Any) -> None:
    """What the user wrote at `at` stands at `path`, and is spoken of as written."""
    own.put(path, value, source.place(at))
    depth = len(at)
    for known in [known for known in source.keys if known[:depth] == at]:
        own.keys[(*path, *known[depth:])] = source.keys[known]
        own.values[(*path, *known[depth:])] = source.values[known]
        own.spoken[(*path, *known[depth:])] = known


def common_gpus(source: Source) -> None:
    """Where only groups say what their GPUs are, those of the first stand for the common ones."""
    first = below(source.get(_GROUPS), "0")
    if not source.has(("cluster", "gpus")) and isinstance(first, dict) and first.get("gpus") is not None:
        own = _source_of(source, "0", first)
        _take(source, source, ("cluster", "gpus"), (*_GROUPS, "0", "gpus"), own.get(("cluster", "gpus")))


def note_presets(source: Source, index: int, own: Source) -> None:
    """What presets gave to a group's GPUs and scheduler, for the sources of its values."""
    for path, name in _OWN.items():
        for known, place in own.values.items():
            if known[: len(path)] == path:
                source.values.setdefault((*_GROUPS, str(index), name, *known[len(path) :]), place)


def resolve_cluster(cluster: Any, base: r.ScenarioResolved, groups: list[r.ScenarioResolved]) -> r.Cluster:
    """`cluster`: the checked section; `groups`: each as a scenario of one replica."""
    pool, way = cluster.kv_pool, cluster.transfer
    shared = pool is None or pool.shared
    found = [
        r.Group(part.name or part.role, part.role, part.replicas, own.gpus, own.scheduler, own.kv, part.tenants or ())
        for part, own in zip(cluster.groups, groups, strict=True)
    ]
    if not found and cluster.replicas > 1:
        found = [r.Group("replicas", "both", cluster.replicas, base.gpus, base.scheduler, base.kv)]
    if not found:
        return r.ONE_REPLICA
    transfer = None
    if way is not None:
        used = way.link
        link = r.Link(used.label, used.read_bandwidth, used.write_bandwidth, used.latency, 0.0, inf, 0.0, 0.0, 0.0)
        transfer = r.Transfer(link, way.count, way.threshold)
    return r.Cluster(tuple(found), cluster.routing, shared, transfer)


def cluster_checks(scenario: r.ScenarioResolved, cluster: Any, source: Source) -> Iterator[Problem]:
    """What groups, pool and transfer must agree on."""
    several = bool(cluster.groups) or cluster.replicas > 1
    if cluster.groups and source.has(("cluster", "replicas")):
        yield source.problem(("cluster", "replicas"), "groups say how many replicas each of them has; remove it")
    names = [part.name or part.role for part in cluster.groups]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"two groups are called '{name}'; results could not tell them apart"
            yield source.problem((*_GROUPS, str(index)), message, "give them a name: each")
    roles = {part.role for part in cluster.groups}
    if "prefill" in roles and "decode" not in roles:
        yield source.problem(
            _GROUPS, "prompts are computed by a prefill group, but no group decodes", "add one with role: decode"
        )
    if "decode" in roles and not roles & {"prefill"}:
        yield source.problem(_GROUPS, "a decode group gets its prompts from a prefill group, and there is none")
    if "both" in roles and len(roles) > 1:
        yield source.problem(_GROUPS, "a group that does both beside a prefill/decode split is not modelled")
    yield from _tenant_checks(scenario, cluster, source)
    if "prefill" in roles and cluster.transfer is None:
        message = "KV goes from the prefill to the decode group; say how"
        yield source.problem(_GROUPS, message, "write for example cluster.transfer: {link: infiniband-ndr}")
    if cluster.transfer is not None and "prefill" not in roles:
        yield source.problem(("cluster", "transfer"), "no group computes prompts for another one; remove it")
    for name in ("credits", "load_factor", "power", "price", "requests"):
        written = source.values.get(("cluster", "transfer", "link", name))
        if written is not None and not written.preset:
            message = f"{name} is not used between replicas; remove it"
            yield source.problem(("cluster", "transfer", "link", name), message)
    if not several:
        yield from whose_checks(scenario, source, 1)
        if source.has(("cluster", "routing")):
            yield source.problem(("cluster", "routing"), "there is one replica, and nothing to route; remove it")
        if source.has(("cluster", "kv_pool", "shared")):
            yield source.problem(("cluster", "kv_pool", "shared"), "there is one replica, which shares with nobody; remove it")
        return
    shared = scenario.pool is not None and scenario.cluster.pool_shared
    count = sum(part.replicas for part in cluster.groups) or cluster.replicas
    at: Where = _GROUPS if cluster.groups else ("cluster", "replicas")
    yield from whose_checks(scenario, source, count)
    if scenario.devices == "detailed" and shared:
        message = f"detailed devices that {count} replicas share are not modelled"
        yield source.problem(("devices",), message, "write devices: fluid, or cluster.kv_pool.shared: false")
    pool = scenario.pool
    if pool is not None and scenario.cluster.pool_shared and scenario.kv.sharing == "prefix":
        ranks = [group.gpus.tensor_parallel for group in scenario.cluster.groups if group.role != "decode"]
        sizes = {count: scenario.model.kv_elements(count) * count for count in ranks}
        if len(set(sizes.values())) > 1:
            message = "a block of KV is as large as there are copies over GPUs, which differ between the groups"
            yield source.problem(at, message, "write cluster.kv_pool.shared: false, or the same tensor_parallel")
    swap = any(group.scheduler.preemption == "swap_pool" for group in scenario.cluster.groups)
    if shared and swap and any(group.scheduler.preemption != "swap_pool" for group in scenario.cluster.groups):
        message = "a pool to which a group swaps holds nothing else, but other groups read from it in place"
        yield source.problem(at, message, "write preemption: swap_pool for all of them, or cluster.kv_pool.shared: false")
    if pool is not None and pool.shared_by > 1 and scenario.cluster.pool_shared:
        message = f"shared_by is for replicas that are not simulated; the {count} of this scenario share the pool themselves"
        yield source.problem(("cluster", "kv_pool", "shared_by"), message, "remove it, or write shared: false")


def _tenant_checks(scenario: r.ScenarioResolved, cluster: Any, source: Source) -> Iterator[Problem]:
    """Groups serve tenants that there are, and every tenant finds a group for each part of its requests."""
    names = [tenant.name for tenant in scenario.tenants]
    for index, part in enumerate(cluster.groups):
        for place, name in enumerate(part.tenants or ()):
            if name not in names:
                at = (*_GROUPS, str(index), "tenants", str(place))
                there = did_you_mean(name, names) or f"tenants: {', '.join(names) or 'there are none'}"
                yield source.problem(at, f"'{name}' is not one of the tenants", there)
        if part.tenants is not None and not part.tenants:
            yield source.problem(
                (*_GROUPS, str(index), "tenants"), "a group that serves nobody", "leave tenants out: everybody"
            )
    for role in dict.fromkeys(part.role for part in cluster.groups):
        served = [part.tenants for part in cluster.groups if part.role == role]
        for number, name in enumerate(names):
            if all(tenants is not None and name not in tenants for tenants in served):
                what = "" if role == "both" else f" for its {'prompts' if role == 'prefill' else 'tokens'}"
                message = f"no group serves tenant '{name}'{what}"
                yield source.problem(("tenants", str(number)), message, "add it to cluster.groups[].tenants")


def cluster_document(scenario: r.ScenarioResolved, parts: Any) -> dict[str, Any]:
    """The keys of `cluster` beside gpus and kv_pool; `parts(group)` gives the sections of a group as plain data."""
    cluster = scenario.cluster
    if not cluster.groups:
        return {"replicas": 1}
    found: dict[str, Any] = {"routing": cluster.routing}
    found["groups"] = [
        {
            "name": group.name, "role": group.role, "replicas": group.count, **parts(group),
            **({"tenants": list(group.tenants)} if group.tenants else {}),
        }
        for group in cluster.groups
    ]  # fmt: skip
    return found
