"""Samples and their views: the embedded emoji, or a user's file or folder; checked before any work.

Not here: what a model makes of an item (`models`), and where features are kept (`store`).
"""

from platonic_ray.datasets.audio import audio_length, decode_audio
from platonic_ray.datasets.base import Dataset
from platonic_ray.datasets.checks import check_samples, without_bad
from platonic_ray.datasets.columns import Kind
from platonic_ray.datasets.emoji import LANGUAGES, read_emoji
from platonic_ray.datasets.images import decode_image
from platonic_ray.datasets.items import Problem, Shard, decoders_of, items_digest
from platonic_ray.datasets.pairing import ID_COLUMN, unique_ids
from platonic_ray.datasets.sources import dataset_of, open_dataset
from platonic_ray.datasets.video import decode_video, evenly

__all__ = [
    "ID_COLUMN",
    "LANGUAGES",
    "Dataset",
    "Kind",
    "Problem",
    "Shard",
    "audio_length",
    "check_samples",
    "dataset_of",
    "decode_audio",
    "decode_image",
    "decode_video",
    "decoders_of",
    "evenly",
    "items_digest",
    "open_dataset",
    "read_emoji",
    "unique_ids",
    "without_bad",
]
