"""The figures of Huh et al. (2024) that are studies: what each asks, and its numbers out of a result.

The paper (arXiv 2405.07987): figure 3, alignment of language with vision models against how well they
model language; 4, against downstream scores; 9, against the density of captions; 10, CKNNA against k; 12, rank
correlations of metrics. Each has a study of its name beside this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import polars as pl

from platonic_ray.models import CATALOG
from platonic_ray.results import Result
from platonic_ray.study import ModelEntry, Study

Frame = Callable[[Study, Result], pl.DataFrame]


@dataclass(frozen=True)
class PaperFigure:
    """A figure: its title, what to look for in its frame, and the function that makes the frame."""

    title: str
    reading: str
    frame: Frame


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
            if row["capability"] != "bits_per_byte_per_text"
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
    columns = {}
    for label in result.metrics:
        pairs = result.pairs(label).filter(pl.col("model_x") != pl.col("model_y"))
        order = pl.concat_str(
            pl.min_horizontal("model_x", "model_y"), pl.max_horizontal("model_x", "model_y"), separator="\0"
        )
        # A metric that is not symmetric has both orders: their mean stands for the pair.
        columns[label] = pairs.group_by(order.alias("pair")).agg(pl.col("score").mean()).sort("pair")["score"]
    ranks = pl.DataFrame({label: scores.rank() for label, scores in columns.items()})
    table = [ranks.select(pl.corr(a, b)).item() for a in ranks.columns for b in ranks.columns]
    width = len(ranks.columns)
    rows = [table[start : start + width] for start in range(0, len(table), width)]
    return pl.DataFrame(
        {
            "metric": ranks.columns,
            **{label: [row[at] for row in rows] for at, label in enumerate(ranks.columns)},
        }
    )


FIGURES = {
    "fig3": PaperFigure(
        "alignment of language with vision models, against how well they model language",
        "Fewer bits per byte is better: does alignment rise as they fall?",
        against_capability,
    ),
    "fig4": PaperFigure(
        "alignment of language models with one vision model, against downstream scores",
        "Capabilities are those that the study gives or measures.",
        against_capability,
    ),
    "fig9": PaperFigure(
        "alignment against the density of captions",
        "Does alignment rise from sparse captions to dense ones?",
        by_density,
    ),
    "fig10": PaperFigure(
        "CKNNA against k, of language with vision models",
        "Do vision models part more clearly at small k?",
        by_k,
    ),
    "fig12": PaperFigure(
        "rank correlations of metrics over pairs of vision models",
        "1: two metrics order all pairs of models alike.",
        between_metrics,
    ),
}


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
