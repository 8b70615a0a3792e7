"""Every encoding of a sound comes out as one float32 channel, of an animation as RGB frames, or as a clear error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from PIL import Image

from platonic_ray.datasets import audio_length, check_samples, dataset_of, decode_audio, decode_video, evenly
from platonic_ray.errors import DataError
from platonic_ray.study import ViewEntry

TONE = np.sin(np.arange(4000) / 20).astype(np.float32) / 2


def sound(wave: np.ndarray = TONE, rate: int = 8000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


def animation(colors: list[Any], kind: str = "GIF", mode: str = "RGB") -> bytes:
    out, frames = io.BytesIO(), [Image.new(mode, (4, 4), color) for color in colors]
    frames[0].save(
        out, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"), [("WAV", "FLOAT", 0), ("WAV", "PCM_16", 1e-4), ("FLAC", "PCM_24", 1e-6)]
)
def test_a_sound_comes_out_as_it_went_in(kind, subtype, tolerance) -> None:
    wave = decode_audio(sound(kind=kind, subtype=subtype))
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, TONE, atol=tolerance)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_the_length_of_a_sound_is_known_without_decoding_it(kind, rate, monkeypatch) -> None:
    encoded = sound(np.concatenate([TONE, TONE[:123]]), rate, kind)
    for wanted in (16000, 24000):
        assert audio_length(encoded, wanted) == len(decode_audio(encoded, wanted))
    monkeypatch.setattr("platonic_ray.datasets.audio.decode_audio", lambda *_: pytest.fail("it was decoded"))
    if kind in ("WAV", "FLAC"):
        audio_length(encoded, 16000)


def test_channels_are_averaged() -> None:
    both = decode_audio(sound(np.stack([TONE, -TONE / 2], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(both, TONE / 4, atol=1e-7)


@pytest.mark.parametrize(("found", "wanted"), [(8000, 16000), (44100, 16000), (16000, 16000)])
def test_resampling_keeps_a_tone_and_its_length_in_seconds(found, wanted) -> None:
    def tone(rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate).astype(np.float32)

    wave = decode_audio(sound(tone(found), found, subtype="FLOAT"), wanted)
    assert abs(len(wave) - wanted // 2) <= 1
    inside = slice(wanted // 20, wanted // 4)  # away from the ends, which the filter blurs
    np.testing.assert_allclose(wave[inside], tone(wanted)[inside], atol=5e-3)


WHOLE = sound(subtype="PCM_16")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty audio"),
        (b"no sound at all, only text", "not audio"),
        (sound(np.zeros(0, np.float32)), "without length"),
        (WHOLE[: len(WHOLE) // 2], "cut off after 1989 samples"),
        (sound(kind="FLAC")[:-40], "not audio"),
        (sound(np.array([0, np.nan], np.float32), subtype="FLOAT"), "NaN"),
    ],
    ids=[
        "empty",
        "text",
        "no length",
        "cut WAV",
        "cut FLAC",
        "NaN",
    ],  # a file holds the second it was written
)
def test_what_is_no_sound_is_refused_with_the_reason(encoded, reason) -> None:
    with pytest.raises(DataError, match=reason):
        decode_audio(encoded)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_frames_of_an_animation_come_in_their_order(kind) -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert [frame.getpixel((1, 1)) for frame in decode_video(animation(colors, kind))] == colors


def test_transparent_frames_are_put_on_white() -> None:
    frames = decode_video(animation([(255, 0, 0, 0), (0, 0, 255, 255)], "WEBP", "RGBA"))
    assert [frame.getpixel((0, 0)) for frame in frames] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty video"),
        (b"text", "not an animation"),
        (animation([(1, 2, 3)]), "a single image"),
        (animation([(255, 0, 0), (0, 255, 0)], "WEBP")[:-60], "unreadable video|not an animation"),
    ],
)
def test_what_is_no_animation_is_refused_with_the_reason(encoded, reason) -> None:
    with pytest.raises(DataError, match=reason):
        decode_video(encoded)


def test_frames_are_spread_evenly_from_the_first_to_the_last() -> None:
    for there in (2, 3, 7, 16, 61):
        for wanted in (2, 8, 16):
            taken = evenly(list(range(there)), wanted)
            assert (len(taken), taken[0], taken[-1]) == (wanted, 0, there - 1)
            assert max(np.diff(taken)) - min(np.diff(taken)) <= 1


def test_views_of_sounds_and_videos_are_declared_read_from_files_and_checked(tmp_path) -> None:
    (tmp_path / "a.wav").write_bytes(sound())
    clip = animation([(1, 1, 1), (9, 9, 9)])
    table = pa.table({"sound": ["a.wav", "gone.wav", "a.wav"], "clip": [clip, clip, b"GIF"]})
    views = {
        "sound": ViewEntry(column="sound", kind="audio"),
        "clip": ViewEntry(column="clip", kind="video"),
    }
    data = dataset_of(table, "clips", views=views, folder=tmp_path)
    assert dict(data.views) == {"sound": "audio", "clip": "video"}
    kept, problems = check_samples(data, ["sound", "clip"], "drop")
    assert kept.ids == ("0",)
    gone, broken = map(str, problems)
    assert gone == f"row 1 (id 1), sound: audio file {tmp_path / 'gone.wav'} does not exist"
    assert broken.startswith("row 2 (id 2), clip: ")
    assert kept.read("sound")[0] == sound()
