"""`metrics`: the list of metrics, from their own declarations."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from platonic_ray.cli.common import Commands, add_command, add_json, print_json


def add(commands: Commands) -> None:
    metrics = add_command(
        commands,
        "metrics",
        _metrics,
        summary="list the metrics: what each is, its options, its bounds",
        examples=["platonic-ray metrics"],
    )
    add_json(metrics)


def _metrics(given: argparse.Namespace) -> None:
    from platonic_ray.metrics import metrics

    facts = [metric.facts() for metric in metrics()]
    if given.json:
        print_json(facts)
        return
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    for family in dict.fromkeys(fact["family"] for fact in facts):
        print(f"{_FAMILIES.get(family, family)}\n")
        for fact in facts:
            if fact["family"] == family:
                print("\n".join(_metric_lines(fact, width)) + "\n")


_FAMILIES = {
    "neighbors": "Neighbors: what two representations have in common of each sample's nearest others",
    "kernel": "Kernels: how alike all similarities between samples are",
    "rows": "Whole representations: how well one maps onto the other",
}


def _metric_lines(fact: Mapping[str, Any], width: int) -> list[str]:
    """Describe a metric in lines of a terminal: its name, what it is, and its declaration."""
    low, high = fact["bounds"]
    ends = "no bounds" if low is None and high is None else f"{_number(low, '−∞')} to {_number(high, '∞')}"
    options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fact["options"].items())
    parts = {
        "is": f"{fact['direction']}, {ends}; "
        + ("symmetric" if fact["symmetric"] else "not symmetric: (x, y) and (y, x) differ"),
        "options": options or "none",
        "needs": f"{', '.join(fact['needs'])}; at least {fact['min_samples']} samples",
        "cost": fact["cost"],
        "compat": "platonic-rep" if fact["in_reference"] else "",
    }
    lines = textwrap.wrap(f"  {fact['name']}: {fact['description']}", width, subsequent_indent=" " * 6)
    for name, text in parts.items():
        if text:
            head = f"      {name:<8} "
            lines += textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head))
    return lines


def _number(bound: float | None, none: str) -> str:
    return none if bound is None else f"{bound:g}"
