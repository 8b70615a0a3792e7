"""Encoders of sounds: a batch changes no sound, and every state is the residual stream after its block.

The oracle is transformers' own class with hooks on its blocks, called with one sound at a time, unpadded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from model_samples import entry, side_by_side
from sound_samples import AUDIO, RATE, save_audio, sound

import platonic_ray as pr
from platonic_ray.datasets import decode_audio
from platonic_ray.errors import DataError, StudyError, WeightsError
from platonic_ray.models import describe, load, resolve
from platonic_ray.models.fit import activation_bytes

SECONDS = (0.3, 0.55, 0.3, 0.8, 0.301)
SOUNDS = [sound(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Any:
    """Return a function that saves a family's tiny model once."""
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = save_audio(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return save


def _spec(folder: Path, **given: Any) -> Any:
    return resolve(entry(kind="transformers-audio", weights=str(folder), **given))


def _alone(folder: Path, family: str) -> list[list[torch.Tensor]]:
    """What enters the first block and leaves each, at the positions of each sound alone."""
    network = transformers.AutoModel.from_pretrained(folder).eval()
    whisper = family == "whisper"
    network = network.get_encoder() if whisper else network
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    stack = list(network.layers if whisper else network.encoder.layers)
    states: list[torch.Tensor] = []

    def enter(_: Any, given: Any, named: Any) -> None:
        states.append(given[0][0] if given else named["hidden_states"][0])

    stack[0].register_forward_pre_hook(enter, with_kwargs=True)
    for block in stack:
        block.register_forward_hook(
            lambda _, __, out: states.append((out[0] if isinstance(out, tuple) else out)[0])
        )
    found = []
    for item in SOUNDS:
        wave = decode_audio(item, RATE)
        inputs = extractor(wave, sampling_rate=RATE, return_tensors="pt", return_attention_mask=False)
        states.clear()
        with torch.inference_mode():
            output = network(**inputs)
        kept = [*states[:-1], output.last_hidden_state[0] if whisper else states[-1]]
        covered = -(-len(wave) // 320) if whisper else len(kept[0])
        found.append([state[:covered] for state in kept])
    return found


REDUCE = {
    "mean": lambda state: state.mean(0),
    "last": lambda state: state[-1],
    "first": lambda state: state[0],
    "max": lambda state: state.max(0).values,
}


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-layer"])
def test_what_a_batch_holds_is_counted_by_the_seconds_in_it(family, saved) -> None:
    spec = _spec(saved(family), batch_seconds=7.0, max_seconds=2.0)
    model = load(spec)
    network, wave = model._network, decode_audio(sound(1.0), RATE)
    inputs = model._extractor(wave, sampling_rate=RATE, return_tensors="pt", return_attention_mask=False)
    with torch.inference_mode():
        states = network(**inputs, output_hidden_states=True).hidden_states
    held = describe(spec).held
    assert held == sum(state.numel() for state in states)
    assert activation_bytes(spec, describe(spec)) == 7 * held * 4
    longer = _spec(saved(family), batch_seconds=1.0, max_seconds=2.0)  # one sound is a batch of its own
    assert activation_bytes(longer, describe(longer)) == 2 * held * 4


@pytest.mark.parametrize("family", AUDIO)
def test_batches_side_by_side_give_the_bytes_of_one_after_the_other(family, saved) -> None:
    model = load(_spec(saved(family)))
    assert model._side_by_side
    alone, together = side_by_side(model, SOUNDS)
    assert together == alone


@pytest.mark.parametrize("family", AUDIO)
def test_a_batch_is_each_sound_alone_in_every_layer_and_pooling(family, saved) -> None:
    spec = _spec(saved(family), pooling=list(REDUCE))
    model = load(spec)
    last = "block 2 + norm" if family == "whisper" else "block 2"
    assert [layer.name for layer in model.layers[:3]] == [
        "embedding (mean)",
        "block 1 (mean)",
        f"{last} (mean)",
    ]
    assert describe(spec).layers == model.layers
    assert describe(spec).parameters == sum(tensor.numel() for tensor in model._network.parameters())
    alone = _alone(saved(family), family)
    wanted = [
        torch.stack([reduce(states[place]) for states in alone]).numpy()
        for reduce in REDUCE.values()
        for place in range(3)
    ]
    for layer, rows in zip(model.embed(SOUNDS).layers, wanted, strict=True):
        np.testing.assert_allclose(layer, rows, atol=5e-6 * max(1, np.abs(rows).max()), rtol=0)


def test_only_equally_long_sounds_share_a_batch_where_padding_would_change_them(saved) -> None:
    lengths = [int(seconds * RATE) for seconds in SECONDS]

    def batches(family: str, **given: Any) -> list[list[int]]:
        found = load(_spec(saved(family), **given))._batches(lengths)
        assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
        return found

    assert [[lengths[row] for row in batch] for batch in batches("wav2vec2") if len(batch) > 1] == [
        [4800, 4800]
    ]
    assert (
        max(len({lengths[row] for row in batch}) for batch in batches("wav2vec2-layer", batch_seconds=60)) > 1
    )
    for seconds in (0.7, 2):
        for batch in batches("wav2vec2-layer", batch_seconds=seconds):
            assert len(batch) * max(lengths[row] for row in batch) <= max(seconds * RATE, max(lengths))
    assert sorted(len(batch) for batch in batches("whisper", batch_seconds=2)) == [1, 2, 2]


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-layer"])
def test_long_sounds_are_cut_and_counted_and_rates_do_not_matter(family, saved) -> None:
    model = load(_spec(saved(family), max_seconds=0.5))
    long = [sound(0.9, 1), sound(2.5, 1), sound(0.5, 1), sound(0.2, 1)]
    features = model.embed(long)
    assert features.truncated == 2
    for layer in features.layers:
        assert layer.shape == (4, 32)
    fast = load(_spec(saved(family))).embed([sound(0.4, 3, rate=48000)]).layers[0]
    assert np.isfinite(fast).all()


def test_sounds_are_decoded_a_batch_ahead_and_not_a_shard_at_once(saved, monkeypatch) -> None:
    model: Any = load(_spec(saved("wav2vec2-layer"), batch_seconds=0.3))
    decoded: list[int] = []
    seen = []
    run = model._pooled

    def decode(item: bytes, rate: int) -> np.ndarray:
        decoded.append(len(item))
        return decode_audio(item, rate)

    def pooled(waves: list[np.ndarray]) -> Any:
        seen.append(len(decoded))
        return run(waves)

    monkeypatch.setattr("platonic_ray.models.audio.decode_audio", decode)
    monkeypatch.setattr(model, "_pooled", pooled)
    model.embed([sound(0.2 + row / 100, row) for row in range(8)])
    assert len(seen) == len(decoded) == 8
    assert all(count <= at + 2 for at, count in enumerate(seen))


def test_whisper_hears_no_more_than_its_window(saved) -> None:
    features = load(_spec(saved("whisper"))).embed([sound(1.0, 1), sound(1.4, 1)])
    assert features.truncated == 1


def test_bad_sounds_are_refused_by_the_model_and_before_it_runs(saved, tmp_path) -> None:
    model = load(_spec(saved("wav2vec2")))
    with pytest.raises(DataError, match="without length"):
        model.embed([sound(0.0)])
    with pytest.raises(DataError, match=r"finds nothing in a sound of 0\.0006 s"):
        model.embed([SOUNDS[0], sound(0.0006)])


def test_what_is_no_encoder_of_sounds_is_refused(saved, saved_text, tmp_path) -> None:
    with pytest.raises(WeightsError, match="no encoder of sounds"):
        describe(_spec(saved_text("llama")))
    with pytest.raises(StudyError, match="has no pooling 'pooler'"):
        _spec(saved("whisper"), pooling="pooler")
    with pytest.raises(StudyError, match=r"has no layer 'block 2'\. Did you mean 'block 2 \+ norm'"):
        _spec(saved("whisper"), layers=["block 2"])


def test_random_weights_are_seeded(saved) -> None:
    one, other = (load(_spec(saved("hubert"), init="random")).embed(SOUNDS[:2]).layers for _ in range(2))
    assert [rows.tobytes() for rows in one] == [rows.tobytes() for rows in other]
    assert not np.allclose(one[-1], load(_spec(saved("hubert"))).embed(SOUNDS[:2]).layers[-1], atol=1e-2)


def test_a_study_hears_a_view_of_sounds_and_refuses_it_other_views(saved, tmp_path) -> None:
    sounds = [sound(0.1 + row % 7 / 40, row) for row in range(24)]
    bad = [*sounds[:-1], b"RIFF"]
    for name, items in (("good", sounds), ("bad", bad)):
        pq.write_table(
            pa.table({"text": [f"sound {row}" for row in range(24)], "sound": items}),
            tmp_path / f"{name}.parquet",
        )

    def study(view: str, source: str = "good") -> pr.Study:
        return pr.Study.from_dict(
            {
                "dataset": {
                    "source": str(tmp_path / f"{source}.parquet"),
                    "views": {"sound": {"column": "sound", "kind": "audio"}},
                },
                "models": [
                    {
                        **{"name": "hubert", "kind": "transformers-audio", "view": view},
                        "weights": str(saved("hubert")),
                    },
                    {"name": "spelling", "use": "char-tfidf", "view": "text"},
                ],
                "metrics": [{"name": "mutual_knn", "k": 5}],
                "null": {"permutations": 0},
                "run": {"engine": "local", "store": str(tmp_path / "store")},
            }
        )

    result = pr.align(study("sound"), quiet=True)
    assert 0 <= result.matrix("mutual_knn").at("hubert", "spelling") <= 1
    with pytest.raises(StudyError, match="reads audio; the view 'text' holds text"):
        pr.align(study("text"), quiet=True)
    with pytest.raises(DataError, match=r"row 23 \(id 23\), sound: not audio"):
        pr.align(study("sound", "bad"), quiet=True)


def test_the_extractor_of_a_folder_decides_the_rate(saved, tmp_path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved("wav2vec2"), tmp_path / "slow"))
    described = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(described | {"sampling_rate": 8000}))
    item = sound(0.4, 2, rate=8000)
    slow = load(_spec(folder)).embed([item]).layers[-1]
    assert not np.allclose(slow, load(_spec(saved("wav2vec2"))).embed([item]).layers[-1], atol=1e-3)


@pytest.mark.parametrize("family", ["wav2vec2-layer", "whisper"])
def test_the_side_on_which_the_extractor_would_pad_changes_no_byte(family, saved, tmp_path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved(family), tmp_path / "left"))
    described = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(described | {"padding_side": "left"}))
    for a, b in zip(
        load(_spec(folder)).embed(SOUNDS).layers, load(_spec(saved(family))).embed(SOUNDS).layers, strict=True
    ):
        assert a.tobytes() == b.tobytes()
