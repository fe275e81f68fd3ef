"""Graph and plan for people: a table of chains, and a picture."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal

from sage_actor.dataflow.graph import Edge, Operator
from sage_actor.dataflow.plan import Chain, Plan, make_plan
from sage_actor.dataflow.resources import describe_resources, sum_of_resources
from sage_actor.errors import GraphError

if TYPE_CHECKING:
    from sage_actor.stream.environment import EnvironmentBase

__all__ = ["explain"]

BOX_WIDTH, ROW, GAP_X, GAP_Y, PAD = 190, 22, 70, 26, 16


def explain(env: EnvironmentBase, format: Literal["text", "svg"]) -> str:
    """The environment's whole graph, planned with its settings. Starts nothing.

    Raises:
        GraphError: the graph cannot run as described.
    """
    if format not in ("text", "svg"):
        raise GraphError(f"explain: format must be 'text' or 'svg', not {format!r}")
    ends = [operator.id for operator in (*env.graph.sinks(), *env.graph.loose_ends())]
    settings = env.settings
    plan = make_plan(
        env.graph,
        ends,
        settings,
        hosts_in_owner=is_local(settings.backend),
        places_in_owner=[name for name, place in settings.places.items() if is_local(place.backend)],
    )
    return as_text(env, plan) if format == "text" else as_svg(env, plan)


def dealt(edge: Edge) -> str:
    """How an edge deals records, or what it carries if it is not the main output."""
    return edge.partition.kind if edge.port == "out" else "dead letters" if edge.port == "dead" else "errors"


def is_local(address: str) -> bool:
    """Whether a backend is known to have no workers; nothing is opened to find out."""
    return address.partition("://")[0] == "local"


def where(plan: Plan, chain: Chain) -> str:
    """Where a chain's tasks run: at which place, on which workers."""
    workers = sorted({task.worker for task in plan.tasks if task.chain == chain.id})
    on = "here" if workers == [0] else "worker " + ", ".join(map(str, workers))
    return on if chain.place is None else f"{chain.place}: {on}"


def asked(chain: Chain) -> str:
    """What each task of a chain asks for; "" if for nothing."""
    return describe_resources(sum_of_resources(operator.resources for operator in chain.operators))


def as_text(env: EnvironmentBase, plan: Plan) -> str:
    """One line per operator, grouped by chain."""
    names = {operator.id: operator.name for operator in env.graph.operators}
    lines = [
        f"job {env.name!r} on {env.settings.backend}: {len(plan.chains)} chains, {len(plan.tasks)} tasks, {plan.workers} worker processes"
    ]
    for chain in plan.chains:
        lines.append(f"chain {chain.id}  x{chain.parallelism}  {'  '.join(filter(None, (where(plan, chain), asked(chain))))}")
        for operator in chain.operators:
            inputs = ", ".join(f"{names[edge.source]} ({dealt(edge)})" for edge in operator.inputs)
            lines.append(f"  {operator.name:<24} {operator.kind:<10} {'<- ' + inputs if inputs else ''}{policy(operator)}".rstrip())
    return "\n".join(lines)


def policy(operator: Operator) -> str:
    """The error policy, where one was set."""
    if operator.on_error is None:
        return ""
    return f"  on_error={operator.on_error if isinstance(operator.on_error, str) else 'retry'}"


def as_svg(env: EnvironmentBase, plan: Plan) -> str:
    """Chains as boxes in layers from left to right, exchanges as arrows."""
    chain_of = {operator.id: chain for chain in plan.chains for operator in chain.operators}
    layer: dict[int, int] = {}
    for chain in plan.chains:
        sources = [chain_of[edge.source].id for edge in chain.operators[0].inputs]
        layer[chain.id] = max((layer[source] + 1 for source in sources), default=0)
    columns: dict[int, list[Chain]] = {}
    for chain in plan.chains:
        columns.setdefault(layer[chain.id], []).append(chain)
    at: dict[int, tuple[int, int, int]] = {}
    height = 0
    for number, column in sorted(columns.items()):
        x, y = PAD + number * (BOX_WIDTH + GAP_X), PAD + 26
        for chain in column:
            tall = ROW * (len(chain.operators) + 1) + 8
            at[chain.id] = (x, y, tall)
            y += tall + GAP_Y
        height = max(height, y)
    width = PAD * 2 + len(columns) * BOX_WIDTH + max(len(columns) - 1, 0) * GAP_X
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" color="#334155">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{PAD}" y="{PAD + 8}" font-weight="600" fill="#0f172a">{escape(env.name)} on {escape(env.settings.backend)}</text>',
    ]
    for chain in plan.chains:
        x, y, tall = at[chain.id]
        for edge in chain.operators[0].inputs:
            sx, sy, stall = at[chain_of[edge.source].id]
            x1, y1, x2, y2 = sx + BOX_WIDTH, sy + stall // 2, x, y + tall // 2
            middle = (x1 + x2) // 2
            parts.append(
                f'<path d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" stroke="#64748b" marker-end="url(#tip)"/>'
                f'<text x="{middle}" y="{(y1 + y2) // 2 - 5}" text-anchor="middle" font-size="10" fill="#475569">'
                f"{escape(dealt(edge))}</text>"
            )
        parts.append(f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{tall}" rx="6" fill="#f8fafc" stroke="#94a3b8"/>')
        caption = " · ".join(filter(None, (f"×{chain.parallelism}", where(plan, chain), asked(chain))))
        parts.append(f'<text x="{x + 10}" y="{y + 16}" font-size="10" fill="#64748b">{escape(caption)}</text>')
        for i, operator in enumerate(chain.operators):
            name = operator.name if len(operator.name) <= 20 else f"{operator.name[:19]}…"
            top = y + ROW * (i + 1) + 14
            parts.append(
                f'<text x="{x + 10}" y="{top}" fill="#0f172a">{escape(name)}</text>'
                f'<text x="{x + BOX_WIDTH - 10}" y="{top}" text-anchor="end" font-size="10" fill="#64748b">{escape(operator.kind)}</text>'
            )
    parts.append("</svg>")
    return "".join(parts)
