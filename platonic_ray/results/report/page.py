"""The page: the template filled with a result, its script and its numbers, as one file without network.

Everything that a study or a dataset named is escaped: in HTML by Jinja, in the numbers by `_json`. Should
anything slip through, the page's content policy runs no script but the two whose hashes it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from importlib import resources
from pathlib import Path
from typing import Any

from platonic_ray.errors import StoreError, StudyError
from platonic_ray.results.report.charts import bokeh_script, chart_items
from platonic_ray.results.report.data import page_data
from platonic_ray.results.report.findings import findings_of, question_of, warnings_of
from platonic_ray.results.result import Result
from platonic_ray.results.summary import dataset_of
from platonic_ray.results.text import safe

_ASSETS = resources.files(__package__) / "assets"
_SCRIPTS = ("base.js", "matrix.js", "pairs.js", "charts.js", "details.js", "main.js")
_HASH = 12


def render_report(result: Result) -> str:
    """Return a result as one HTML page.

    :raises StudyError: if the result is empty, or Bokeh is not installed.
    """
    from jinja2 import Environment, StrictUndefined

    if not result.metrics:
        raise StudyError("This result is empty: there is nothing to report.")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"score": _score, "name": lambda text: safe(str(text))}
    library, script = bokeh_script(), _script()
    data = page_data(result)
    study = result.provenance.get("study") or {}
    return environment.from_string(_asset("page.html.j2")).render(
        title=study.get("name") or "Result",
        question=question_of(result),
        metrics=[
            {"label": label, "facts": result.facts(label), "about": packed["about"]}
            | vars(findings_of(result, label))
            for label, packed in zip(result.metrics, data["metrics"], strict=True)
        ],
        counts=_counts(result),
        warnings=warnings_of(result),
        origin=_origin(result.provenance),
        models=[(name, _said(found)) for name, found in (result.provenance.get("models") or {}).items()],
        study=json.dumps(study, indent=2, ensure_ascii=False),
        growth=not result.growth.is_empty(),
        capability=not result.capability.is_empty(),
        style=_asset("page.css"),
        library=library,
        script=script,
        hashes=[_hash(library), _hash(script)],
        data=_json(data),
        charts=_json(chart_items()),
    )


def save_report(result: Result, path: str | Path) -> Path:
    """Write a result as one HTML file; return its path.

    :raises StudyError: as `render_report`.
    :raises StoreError: if the file cannot be written.
    """
    path = Path(path).expanduser()
    page = render_report(result)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"The report cannot be saved as {path}: {error.strerror or error}.") from None
    return path


def _counts(result: Result) -> list[tuple[str, str]]:
    dataset = safe(dataset_of(result))
    n = int(result.models["n"].to_numpy().max())
    return [
        (f"{result.layers['model'].n_unique():,}", "models"),
        (f"{n:,}", f"samples of {dataset}" if dataset else "samples"),
        (f"{result.scores.height:,}", "layer pairs scored"),
    ]


def _script() -> str:
    parts = "\n".join(_asset(name) for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """Return JSON that can stand in a script element: no character in it can end one."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _score(value: float) -> str:
    return "–" if value != value else f"{value:.3f}".replace("-", "−")


def _origin(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a result says about where it comes from, as terms and texts."""
    study, dataset = provenance.get("study") or {}, provenance.get("dataset") or {}
    started, finished = provenance.get("started"), provenance.get("finished")
    run = "" if started is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))
    took = f", {finished - started:,.0f} s" if started is not None and finished is not None else ""
    facts = {
        "Dataset": dataset.get("name"),
        "Its fingerprint": _start_of(dataset.get("fingerprint")),
        "Recipe": study.get("recipe", provenance.get("recipe")),
        "Seed": study.get("seed", provenance.get("seed")),
        "Null": _said(provenance.get("null")),
        "Intervals": _said(provenance.get("intervals")),
        "Run": run + took,
        "Engine": provenance.get("engine"),
        "Cost": _said(provenance.get("cost")),
        "Versions": _said(provenance.get("versions")),
        "Driver": _said(provenance.get("hardware")),
        "Features made by": "; ".join(_said(machine) for machine in provenance.get("made_by") or []),
        "Study key": _start_of(provenance.get("study_key")),
    }
    return [(term, str(text)) for term, text in facts.items() if text not in (None, "")]


def _said(facts: dict[str, Any] | None) -> str:
    """Return facts in a line; of a fact with parts, these in brackets, and nothing of one that is not there."""
    return " · ".join(
        f"{key} ({_said(value).replace(' · ', ', ')})" if isinstance(value, dict) else f"{key} {value}"
        for key, value in (facts or {}).items()
        if value not in (None, {}, [])
    )


def _start_of(key: str | None) -> str:
    return f"{key[:_HASH]}…" if key else ""
