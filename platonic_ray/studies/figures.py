"""The figures of Huh et al. (2024) that are studies: what each asks, and its numbers out of a result.

The paper (arXiv 2405.07987): figure 3, alignment of language with vision models against how well they
model language; 4, against downstream scores; 9, against the density of captions; 10, CKNNA against k; 12, rank
correlations of metrics. Each has a study of its name beside this module, of the paper's models and data at
their hub ids, and another (`…-embedded`) of what needs no hub.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.models import CATALOG
from platonic_ray.results import Result
from platonic_ray.results.figures.maps import metric_correlations
from platonic_ray.results.figures.scatter import SIZE
from platonic_ray.studies import packaged_study, pictures
from platonic_ray.study import ModelEntry, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frame = Callable[[Study, Result], pl.DataFrame]
Picture = Callable[[Study, Result, pl.DataFrame], "Figure"]

MODELS = ("paper", "embedded", "embedded-large")
"""Sets of models that a figure has: the paper's, those that come with the package, and two larger ones more."""


@dataclass(frozen=True)
class PaperFigure:
    """A figure: its title, what to look for in it, and what makes its numbers and draws them."""

    title: str
    reading: str
    frame: Frame
    picture: Picture


def _sides(study: Study) -> tuple[list[str], list[str]]:
    """Return the names of the models that read texts, and of those that read images."""
    images = [model.name for model in study.models if _kind(model) in _VISION]
    return [model.name for model in study.models if model.name not in images], images


_VISION = ("efficientnet-lite", "pixels", "transformers-vision", "timm")


def _kind(model: ModelEntry) -> str:
    return CATALOG[model.use].kind if model.use else str(model.kind)


def against_capability(study: Study, result: Result) -> pl.DataFrame:
    """Return, for every language model, its alignment with each vision model and its capabilities."""
    texts, images = _sides(study)
    matrix = result.matrix("mutual_knn")
    rows = []
    for text in texts:
        known = {
            row["capability"]: row["value"]
            for row in result.capability.filter(pl.col("model") == text).iter_rows(named=True)
            if row["capability"] not in ("bits_per_byte_per_text", SIZE)
        }
        scores = {image: matrix.at(text, image) for image in images}
        rows.append(
            {"model": text, **{"bits_per_byte": None}, **known, **scores, "mean": fmean(scores.values())}
        )
    return pl.DataFrame(rows, infer_schema_length=None).sort("mean", descending=True)


def by_density(study: Study, result: Result) -> pl.DataFrame:
    """Return the mean alignment of language with vision models, view by view of the texts.

    `deviation` is the standard deviation over language models, as in the paper.
    """
    texts, images = _sides(study)
    matrix = result.matrix("mutual_knn")
    views = {model.name: model.view for model in study.models}
    rows = []
    for view in dict.fromkeys(views[text] for text in texts):
        means = [fmean(matrix.at(text, image) for image in images) for text in texts if views[text] == view]
        rows.append(
            {
                "captions": view,
                "alignment": fmean(means),
                "deviation": stdev(means) if len(means) > 1 else None,
                "language_models": len(means),
            }
        )
    return pl.DataFrame(rows)


def by_k(study: Study, result: Result) -> pl.DataFrame:
    """Return the mean CKNNA of each vision model with all language models, k by k, and unbiased CKA beside it.

    The paper centers each line on its smallest vision model and divides by the standard deviation; these are
    the scores themselves.
    """
    texts, images = _sides(study)
    rows = []
    for label in result.metrics:
        pairs = result.pairs(label)
        means = {
            image: pairs.filter(pl.col("model_x").is_in(texts) & (pl.col("model_y") == image))["score"].mean()
            for image in images
        }
        rows.append({"metric": label, "k": pairs["k"][0], **means})
    return pl.DataFrame(rows, infer_schema_length=None)


def between_metrics(study: Study, result: Result) -> pl.DataFrame:
    """Return Spearman's rank correlation of every two metrics over the pairs of models, `[M, M]` with names."""
    rho, _ = metric_correlations(result)
    return pl.DataFrame({"metric": result.metrics, **dict(zip(result.metrics, rho.T, strict=True))})


FIGURES = {
    "fig3": PaperFigure(
        "alignment of language with vision models, against how well they model language",
        "Fewer bits per byte is better: does alignment rise as they fall?",
        against_capability,
        lambda study, result, frame: pictures.lines_over_capability(result, frame, _sides(study)[1]),
    ),
    "fig4": PaperFigure(
        "alignment of language models with one vision model, against downstream scores",
        "Does alignment rise with them? Those that the study gives, else the bits per byte that it measures.",
        against_capability,
        lambda study, result, frame: pictures.lines_over_capability(result, frame, _sides(study)[1]),
    ),
    "fig9": PaperFigure(
        "alignment against the density of captions",
        "Does alignment rise from sparse captions to dense ones?",
        by_density,
        lambda study, result, frame: pictures.bars_over_density(result, frame),
    ),
    "fig10": PaperFigure(
        "CKNNA against k, of language with vision models",
        "Do vision models part more clearly at small k?",
        by_k,
        lambda study, result, frame: pictures.lines_over_k(result, frame, _sides(study)[1]),
    ),
    "fig12": PaperFigure(
        "rank correlations of metrics over pairs of vision models",
        "1: two metrics order all pairs of models alike.",
        between_metrics,
        lambda study, result, frame: pictures.map_of_metrics(result),
    ),
}


_LARGE = (("Gemma", "gemma-3-270m"), ("mpnet", "mpnet-base"))


def study_of(figure: str, models: str) -> Study:
    """Return the study of a figure with one of the sets of `MODELS`.

    :raises StudyError: for the larger embedded models in a figure without language models.
    """
    if models == "paper":
        return packaged_study(figure)
    study = packaged_study(f"{figure}-embedded")
    if models == "embedded":
        return study
    texts, images = _sides(study)
    if not texts:
        raise StudyError(
            f"{figure} has no language models, and embedded-large adds these alone: take embedded."
        )
    of_name = {model.name: model for model in study.models}
    views = dict.fromkeys(of_name[text].view for text in texts)
    measured = any(model.bits_per_byte for model in study.models)
    more = [
        {
            "name": name if len(views) == 1 else f"{name} {view}",
            **{"use": use, "view": view},
            "bits_per_byte": True if measured and use == "gemma-3-270m" else None,
        }
        for name, use in _LARGE
        for view in views
    ]
    return study.replace(
        name=f"{figure}-embedded-large",
        models=[*more, *(of_name[name].model_dump() for name in (*texts, *images))],
    )


def with_capabilities(study: Study, table: pl.DataFrame) -> Study:
    """Return the study with scores from elsewhere, which language models are then set against.

    :param table: a column `model`, and one of numbers for each capability; null where there is none.
    :raises StudyError: if it has no such columns, or names none of the study's models.
    """
    numbers = [name for name, kind in table.schema.items() if name != "model" and kind.is_numeric()]
    if "model" not in table.columns or not numbers:
        raise StudyError(
            f"Scores are a table with a column 'model' and columns of numbers (given: {', '.join(table.columns)})."
        )
    known = {row["model"]: row for row in table.iter_rows(named=True)}
    if not any(model.name in known for model in study.models):
        names = ", ".join(model.name for model in study.models)
        raise StudyError(f"None of the models in the table of scores is in the study, which has: {names}.")
    models = []
    for model in study.models:
        row = known.get(model.name, {})
        given = {name: row[name] for name in numbers if row.get(name) is not None}
        models.append({**model.model_dump(), "capability": {**model.capability, **given}})
    return study.replace(models=models)


def on_samples(study: Study, source: str, text_views: Sequence[str], image_view: str) -> Study:
    """Return the study on other samples.

    :param text_views: what language models read; of figure 9 several, from sparse to dense.
    """
    texts, images = _sides(study)
    of_name = {model.name: model for model in study.models}
    first = of_name[texts[0]].view
    models = []
    for view in text_views:
        for model in (of_name[text] for text in texts if of_name[text].view == first):
            name = model.name.removesuffix(f" {first}")
            label = name if len(text_views) == 1 else f"{name} {view}"
            models.append(model.model_copy(update={"name": label, "view": view}))
    models += [of_name[image].model_copy(update={"view": image_view}) for image in images]
    return study.replace(dataset={"source": source}, models=[model.model_dump() for model in models])


def on_fewer(study: Study, samples: int) -> tuple[Study, list[str]]:
    """Return the study on a draw of its samples, without metrics that need more, and what was left out."""
    labels, kept = [], []
    for entry in study.metrics:
        k = entry.options.get("k")
        if k is not None and k >= samples:
            labels.append(f"{entry.name}(k={k})")
        else:
            kept.append({"name": entry.name, "options": entry.options})
    dataset = {**study.dataset.model_dump(), "samples": samples}
    return study.replace(dataset=dataset, metrics=kept), labels
