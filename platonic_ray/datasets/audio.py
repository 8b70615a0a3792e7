"""Encoded sounds to waveforms: the one way every model of this project hears a file."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray

from platonic_ray.errors import DataError

Waveform = NDArray[np.float32]


def decode_audio(encoded: bytes, rate: int | None = None) -> Waveform:
    """Return an encoded sound (WAV, FLAC, Ogg, MP3) as one channel, `[samples] float32` in [−1, 1].

    Channels are averaged. With `rate` (samples a second) the sound is resampled to it by a polyphase
    filter.

    :raises DataError: saying what is wrong, if the bytes are no sound, are cut off, have no length, or
        hold NaN or infinity.

    >>> import soundfile
    >>> out = io.BytesIO()
    >>> soundfile.write(out, np.full((80, 2), 0.5), 8000, format="WAV", subtype="FLOAT")
    >>> decode_audio(out.getvalue(), 16000).shape
    (160,)
    """
    import soundfile

    if not encoded:
        raise DataError("empty audio (0 bytes)")
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            found, announced = int(file.samplerate), int(file.frames)
            channels = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"not audio that libsndfile reads ({reason})") from None
    if len(channels) == 0:
        raise DataError("audio without length (0 samples)")
    if len(channels) < announced < _UNKNOWN_LENGTH or _is_cut_wav(encoded):
        raise DataError(f"audio is cut off after {len(channels)} samples")
    if not np.isfinite(channels).all():
        raise DataError("audio holds NaN or infinite samples")
    wave = channels.mean(axis=1, dtype=np.float32)
    return wave if rate is None else resample(wave, found, rate)


def audio_length(encoded: bytes, rate: int) -> int:
    """Return how many samples `decode_audio` gives of a sound at a rate, from its header where that is exact.

    :raises DataError: as `decode_audio`, as far as the header tells.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            found, announced = int(file.samplerate), int(file.frames)
            exact = file.format in _EXACT_HEADERS and 0 < announced < _UNKNOWN_LENGTH
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        exact = False  # decoding says what is wrong
    if not exact:
        return len(decode_audio(encoded, rate))
    common = math.gcd(found, rate)
    return -(-announced * (rate // common) // (found // common))


def resample(wave: Waveform, found: int, wanted: int) -> Waveform:
    """Return a waveform of `found` samples a second with `wanted` a second instead."""
    if found == wanted:
        return wave
    from scipy.signal import resample_poly

    common = math.gcd(found, wanted)
    return np.asarray(resample_poly(wave, wanted // common, found // common), np.float32)


def _is_cut_wav(encoded: bytes) -> bool:
    """Whether a WAV file is shorter than it says; libsndfile reads what is there and keeps silent."""
    size = int.from_bytes(encoded[4:8], "little")
    streamed = size in (0, 0xFFFFFFFF)  # written before the length was known
    return encoded[:4] == b"RIFF" and not streamed and len(encoded) < size + 8


_EXACT_HEADERS = ("WAV", "FLAC")
_UNKNOWN_LENGTH = 2**62
"""What libsndfile says of a stream whose length is not written in its header is at least this."""
