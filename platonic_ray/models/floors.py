"""Kinds "char-tfidf" and "pixels": what is to be seen without any learned model.

An alignment is worth what it has beyond these: spelling on the text's side, color and layout on the
image's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from platonic_ray.errors import DataError
from platonic_ray.models.base import Description, Features, Layer, ModelSpec


class TfidfModel:
    """Weights of character n-grams, fitted on a view. Independent of the order of its items."""

    def __init__(self, spec: ModelSpec, corpus: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(
            analyzer=spec.setting("analyzer"),
            ngram_range=tuple(spec.setting("ngrams")),
            max_features=spec.setting("features"),
            dtype=np.float32,
        )
        try:
            self._vectorizer.fit(corpus)
        except ValueError as error:
            raise DataError(f"Model {spec.name!r} cannot be fitted on its view: {error}.") from None
        self.layers = (Layer(0, "tf-idf", len(self._vectorizer.vocabulary_)),)

    def embed(self, items: Sequence[str]) -> Features:
        """Return the weights, float32 `[n, D]`, D ≤ 4,096. All texts share the blank around words."""
        if not items:
            return Features([np.zeros((0, self.layers[0].width), np.float32)])
        return Features([self._vectorizer.transform(items).toarray().astype(np.float32, copy=False)])


class PixelsModel:
    """The image itself, scaled to a small square whatever its shape."""

    def __init__(self, spec: ModelSpec) -> None:
        self._size: int = spec.setting("size")
        self.layers = (Layer(0, "pixels", 3 * self._size * self._size),)

    def embed(self, items: Sequence[bytes]) -> Features:
        """Return the pixels (row, column, color), float32 `[n, 3·size²]` in [0, 1].

        :raises DataError: if an image cannot be decoded.
        """
        from platonic_ray.datasets.images import decode_image

        pixels = np.empty((len(items), self.layers[0].width), np.float32)
        for row, item in enumerate(items):
            small = decode_image(item).resize((self._size, self._size), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(small, np.float32).ravel() / 255
        return Features([pixels])


def describe(spec: ModelSpec) -> Description:
    """Describe a floor; TF-IDF has at most so many features, how many depends on the texts."""
    if spec.kind == "pixels":
        return Description(PixelsModel(spec).layers, 0, 0)
    return Description((Layer(0, "tf-idf", spec.setting("features")),), 0, 0)


def load(
    spec: ModelSpec, *, corpus: Iterable[str] | None = None, device: str = "cpu"
) -> TfidfModel | PixelsModel:
    """Make a floor; both compute on the CPU whatever the device."""
    return TfidfModel(spec, corpus or ()) if spec.kind == "char-tfidf" else PixelsModel(spec)
