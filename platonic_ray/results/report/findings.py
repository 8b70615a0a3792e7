"""What a result says, in words: the question, the strongest and the usual, and what it may be worth.

Everything here is read off a result; what it does not carry is not said.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from platonic_ray.results.groups import inputs_of, with_groups
from platonic_ray.results.result import Result
from platonic_ray.results.summary import dataset_of, interval_text

_NAMED = 4


@dataclass(frozen=True)
class Group:
    """Pairs of different models of one sort: what they read, and whether one of them is a floor.

    `median` and `best` are over the defined scores of its `count` pairs, NaN where there are none.
    """

    name: str
    floor: bool
    count: int
    median: float
    best: float
    best_pair: str
    beyond: int | None


@dataclass(frozen=True)
class Findings:
    """One metric in words: `came_out` and `meaning` are sentences, most important first."""

    came_out: tuple[str, ...]
    meaning: tuple[str, ...]
    verdict: str
    groups: tuple[Group, ...]


def question_of(result: Result) -> str:
    """Return in one sentence what was asked."""
    models = result.layers["model"].n_unique()
    dataset = dataset_of(result)
    n = result.models["n"].max()
    samples = f"{n:,} samples" if isinstance(n, int) and n else "the same samples"
    of = f" of {dataset}" if dataset else ""
    reads = sorted({kind for kind in inputs_of(result).values() if kind != "models"})
    sort = f"{' and '.join(reads)} models" if len(reads) > 1 else "models"
    return f"Do {models} {sort} see {samples}{of} alike?"


def findings_of(result: Result, label: str) -> Findings:
    """Read one metric of a result."""
    pairs = with_groups(result, label)
    defined = pairs.filter(pl.col("score").is_not_nan())
    distance = result.direction(label) == "distance"
    groups = _groups(pairs, distance, result.alpha)
    if defined.is_empty():
        none = ("No pair of different models has a score.",)
        return Findings(none, ("There is nothing to read.",), "undefined", groups)
    ordered = defined.sort("score", descending=not distance, maintain_order=True)
    first, last = ordered.row(0, named=True), ordered.row(-1, named=True)
    came_out = [f"Most alike: {_said(first)}."]
    across = ordered.filter(pl.col("across") & ~pl.col("floor"))
    if not across.is_empty() and across.height < ordered.height:
        best = across.row(0, named=True)
        if (best["model_x"], best["model_y"]) != (first["model_x"], first["model_y"]):
            came_out.append(f"Most alike across {best['group']}: {_said(best)}.")
    if ordered.height > 2:
        came_out.append(
            f"Least alike: {_said(last)}; the median pair has {_number(defined['score'].median())}."
        )
    meaning = [*_against_chance(defined, result.alpha), *_against_floors(groups, distance)]
    if any(defined["low"].is_not_nan() & defined["low"].is_not_null()):
        meaning.append("The intervals are for the layers that were chosen as the best.")
    return Findings(tuple(came_out), tuple(meaning), _verdict(defined, result.alpha), groups)


def warnings_of(result: Result) -> list[str]:
    """Return what a reader has to know before believing a number, most serious first."""
    said = []
    for label in result.metrics:
        pairs = result.pairs(label).filter(pl.col("model_x") != pl.col("model_y"))
        undefined = pairs.filter(pl.col("score").is_nan())
        if undefined.height:
            reasons = list(dict.fromkeys(undefined["status"].drop_nulls()))[:_NAMED]
            said.append(
                f"{label}: {undefined.height} of {pairs.height} pairs are undefined ({'; '.join(reasons)})."
            )
        beside = pairs.filter(pl.col("q") > result.alpha)
        if beside.height:
            names = (
                f"{row['model_x']} – {row['model_y']}" for row in beside.head(_NAMED).iter_rows(named=True)
            )
            said.append(
                f"{label}: {beside.height} of {pairs.height} pairs are not beyond permuted samples "
                f"(q > {result.alpha:g}): {_listed(names, beside.height)}."
            )
        if pairs.height and pairs["p"].is_null().all():
            said.append(f"{label}: no null was made, so nothing here is shown to be beyond chance.")
    said += _precision(result)
    dropped = (result.provenance.get("dataset") or {}).get("dropped") or []
    if dropped:
        said.append(f"{len(dropped):,} samples were dropped because they could not be read.")
    zero = result.layers.filter(pl.col("zero_rows") > 0)["model"].unique(maintain_order=True).to_list()
    if zero:
        said.append(f"Some samples have rows that are all zero in: {_listed(zero, len(zero))}.")
    tied = result.layers.filter(pl.col("tied_share") > 0.05).sort("tied_share", descending=True)
    if tied.height:
        worst = tied.row(0, named=True)
        said.append(
            f"Neighbors of {tied['model'].n_unique()} models have ties at rank k in more than 5 % of the samples "
            f"(most: {worst['model']}, {worst['layer_name']}, {100 * worst['tied_share']:.0f} %); "
            "a seeded hash orders them."
        )
    if result.provenance.get("compat"):
        said.append(
            f"Scores are in the arithmetic of {result.provenance['compat']}, not of the clean definitions."
        )
    models = set(result.layers["model"])
    return said + [_sentence(note, models) for note in result.provenance.get("notes") or []]


def _sentence(note: str, names: Collection[str]) -> str:
    """Return a note as a sentence; the name of a model stays as it is."""
    begin = note[:1] if note.partition(":")[0] in names else note[:1].upper()
    return f"{begin}{note[1:].rstrip('.')}."


def _precision(result: Result) -> list[str]:
    """Say which models ran, and which features are kept, in less than float32."""
    study = result.provenance.get("study") or {}
    identities = result.provenance.get("models") or {}
    known = result.layers["model"].unique(maintain_order=True).to_list()
    narrow: dict[str, list[str]] = {}
    for entry in (entry for entry in study.get("models") or [] if entry["name"] in known):
        files = ((identities.get(entry["name"]) or {}).get("weights") or {}).get("files") or ()
        quantized = entry.get("quantization")
        if quantized or any(str(file).endswith(".gguf") for file in files):
            how = f"with weights in {quantized}" if quantized else "with quantized weights (GGUF)"
            narrow.setdefault(how, []).append(entry["name"])
        if entry.get("dtype") in ("bfloat16", "float16"):
            narrow.setdefault(f"in {entry['dtype']}", []).append(entry["name"])
    said = [
        f"Precision: run {how}: {_listed(names, len(names))}; their neighbors are not quite those of float32."
        for how, names in narrow.items()
    ]
    if study.get("features", "float32") != "float32":
        said.append(f"Precision: features are kept as {study['features']}, and were rounded to it.")
    return said


def _groups(pairs: pl.DataFrame, distance: bool, alpha: float) -> tuple[Group, ...]:
    made = []
    for (name, floor), rows in pairs.group_by(["group", "floor"], maintain_order=True):
        defined = rows.filter(pl.col("score").is_not_nan()).sort("score", descending=not distance)
        best = None if defined.is_empty() else defined.row(0, named=True)
        tested = rows["q"].drop_nulls()
        made.append(
            Group(
                name=str(name),
                floor=bool(floor),
                count=rows.height,
                median=math.nan if best is None else float(defined["score"].median()),  # type: ignore[arg-type]
                best=math.nan if best is None else best["score"],
                best_pair="" if best is None else f"{best['model_x']} – {best['model_y']}",
                beyond=int((tested <= alpha).sum()) if len(tested) else None,
            )
        )
    return tuple(sorted(made, key=lambda group: (group.name, group.floor)))


def _against_chance(defined: pl.DataFrame, alpha: float) -> list[str]:
    tested = defined.filter(pl.col("q").is_not_null() & pl.col("q").is_not_nan())
    if tested.is_empty():
        return ["No null was made: whether any of this is beyond chance is open."]
    beyond = int((tested["q"] <= alpha).sum())
    if beyond == 0:
        return [f"No pair scores higher than permuted samples do (q > {alpha:g} for all {tested.height:,})."]
    some = f"All {tested.height:,}" if beyond == tested.height else f"{beyond:,} of {tested.height:,}"
    return [
        f"{some} pairs are beyond what permuted samples reach (q ≤ {alpha:g}): "
        "these models look at the same things. That alone is not convergence."
    ]


def _against_floors(groups: Sequence[Group], distance: bool) -> list[str]:
    """Set what trained models reach against pairs with a floor that read the same."""
    said = []
    floors = {group.name: group for group in groups if group.floor}
    if not floors:
        return ["The study has no floor (an untrained model, spelling, pixels): what training adds is open."]
    for group in groups:
        floor = floors.get(group.name)
        if group.floor or floor is None or math.isnan(group.median) or math.isnan(floor.median):
            continue
        better = group.best < floor.best if distance else group.best > floor.best
        word = "beyond" if better else "not beyond"
        said.append(
            f"{group.name}: trained models reach {_number(group.best)} (median {_number(group.median)}), "
            f"{word} the {_number(floor.best)} (median {_number(floor.median)}) of pairs with a floor."
        )
    return said


def _verdict(defined: pl.DataFrame, alpha: float) -> str:
    tested = defined["q"].drop_nulls().drop_nans()
    if not len(tested):
        return "not tested"
    beyond = int((tested <= alpha).sum())
    if beyond == len(tested):
        return "all beyond chance"
    return f"{beyond} of {len(tested)} beyond chance" if beyond else "at chance"


def _said(row: dict[str, Any]) -> str:
    return f"{row['model_x']} – {row['model_y']}, {_number(row['score'])}{interval_text(row)}"


def _listed(names: Iterable[str], count: int) -> str:
    shown = list(names)[:_NAMED]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")


def _number(value: Any) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")
