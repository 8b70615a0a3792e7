"""Character TF-IDF depends on the view's items and not on their order or grouping."""

from __future__ import annotations

import numpy as np
import pytest
from model_samples import TEXTS, entry

from platonic_ray.errors import DataError
from platonic_ray.models import load, resolve


def test_tfidf_is_fitted_on_the_corpus_and_ignores_its_order() -> None:
    spec = resolve(entry(use="char-tfidf"))
    model, other = load(spec, corpus=TEXTS), load(spec, corpus=iter(TEXTS[::-1]))
    (rows,) = model.embed(TEXTS).layers
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), model.layers[0].width)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert other.embed(TEXTS).layers[0].tobytes() == rows.tobytes()
    parts = [model.embed(TEXTS[:3]).layers[0], model.embed(TEXTS[3:]).layers[0]]
    assert np.concatenate(parts).tobytes() == rows.tobytes()
    assert np.count_nonzero(model.embed(["…"]).layers[0]) == 1  # the blank around words
    assert model.embed([]).layers[0].shape == (0, rows.shape[1])


def test_tfidf_of_an_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be fitted"):
        load(resolve(entry(use="char-tfidf")), corpus=[])
