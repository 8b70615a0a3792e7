"""Encoders of clips: layers are the states around the blocks of each clip alone, of evenly spread frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from model_samples import entry
from PIL import Image
from sound_samples import clip, save_video

from platonic_ray.datasets import decode_video, evenly
from platonic_ray.errors import DataError, StudyError, WeightsError
from platonic_ray.models import describe, load, resolve

CLIPS = [clip(1), clip(2, frames=4, size=(64, 40)), clip(3, frames=9)]


@pytest.fixture(scope="module")
def videomae(tmp_path_factory):
    return save_video(tmp_path_factory.mktemp("videomae"))


def _spec(folder, **given):
    return resolve(entry(kind="transformers-video", weights=str(folder), **given))


def test_layers_are_the_states_around_the_blocks_of_each_clip_alone(videomae) -> None:
    network = transformers.VideoMAEModel.from_pretrained(videomae).eval()
    processor = transformers.VideoMAEImageProcessorPil.from_pretrained(videomae)
    states: list[torch.Tensor] = []
    blocks = list(network.encoder.layer)
    blocks[0].register_forward_pre_hook(lambda _, given: states.append(given[0][0]))
    for block in blocks:
        block.register_forward_hook(
            lambda _, __, out: states.append((out[0] if isinstance(out, tuple) else out)[0])
        )
    wanted = []
    for item in CLIPS:
        states.clear()
        with torch.inference_mode():
            network(**processor(evenly(decode_video(item), 4), return_tensors="pt"))
        assert len(states[0]) == 2 * 4 * 4
        wanted.append([pooled for state in states for pooled in (state.mean(0), state.max(0).values)])
    for batch in (1, 3):
        spec = _spec(videomae, pooling=["mean", "max"], batch_clips=batch)
        model = load(spec)
        assert describe(spec).layers == model.layers
        assert [layer.name for layer in model.layers[:3]] == [
            "embedding (mean)",
            "block 1 (mean)",
            "block 2 (mean)",
        ]
        layers = model.embed(CLIPS).layers
        for place in range(3):
            for at, kind in enumerate((0, 3)):
                rows = torch.stack([of_clip[2 * place + at] for of_clip in wanted]).numpy()
                np.testing.assert_allclose(layers[kind + place], rows, atol=5e-6 * max(1, np.abs(rows).max()))


def test_frames_are_taken_from_the_whole_clip(videomae) -> None:
    """Of nine frames the network takes the first, the last and two between: others change nothing."""
    frames = [Image.new("RGB", (40, 40), (20 * at, 255 - 20 * at, 90)) for at in range(9)]
    taken = {id(frame) for frame in evenly(frames, 4)}
    assert [at for at, frame in enumerate(frames) if id(frame) in taken] == [0, 3, 5, 8]


def test_what_a_model_of_clips_cannot_have_is_refused(videomae, saved_text) -> None:
    with pytest.raises(DataError, match="a single image"):
        load(_spec(videomae)).embed([clip(1, frames=1)])
    with pytest.raises(StudyError, match="has no class token"):
        _spec(videomae, pooling="first")
    with pytest.raises(WeightsError, match="cannot be loaded as a video model"):
        describe(_spec(saved_text("llama")))
