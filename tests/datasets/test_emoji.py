"""The embedded dataset is what its notice says it is."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from platonic_ray.datasets import LANGUAGES, Dataset, check_samples, decode_image, open_dataset, read_emoji
from platonic_ray.datasets.emoji import FILE
from platonic_ray.errors import DataError
from platonic_ray.study import DatasetEntry

NAMES = tuple(f"name.{language}" for language in LANGUAGES)
BUILD = Path(__file__).parents[2] / "jobs" / "build_emoji.py"
SCRIPTS = {"LATIN", "CYRILLIC", "DEVANAGARI", "BENGALI", "THAI", "HIRAGANA", "KATAKANA", "HANGUL", "CJK"}


@pytest.fixture(scope="module")
def emoji() -> Dataset:
    return open_dataset(DatasetEntry(), seed=0)


def test_it_has_1240_samples_in_at_most_5_mb(emoji: Dataset) -> None:
    assert len(emoji) == 1240
    assert FILE.stat().st_size <= 5_000_000


def test_its_views_are_images_names_in_sixteen_languages_and_tags(emoji: Dataset) -> None:
    assert len(LANGUAGES) == 16
    assert {*NAMES, "tags.en"} <= {view for view, kind in emoji.views.items() if kind == "text"}
    assert [view for view, kind in emoji.views.items() if kind == "image"] == ["image"]


def test_its_names_are_of_nine_scripts_each_language_in_its_own(emoji: Dataset) -> None:
    def scripts(view: str) -> Counter[str]:
        letters = (letter for name in emoji.read(view) for letter in str(name) if letter.isalpha())
        return Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)

    main = {view: scripts(view).most_common(1)[0][0] for view in NAMES}
    assert main["name.en"] == "LATIN"
    assert main["name.uk"] == "CYRILLIC"
    assert main["name.th"] == "THAI"
    assert main["name.ko"] == "HANGUL"
    assert main["name.zh"] == "CJK"
    assert set().union(*(scripts(view) for view in NAMES)) >= SCRIPTS


def test_no_sample_is_bad_in_any_view(emoji: Dataset) -> None:
    assert emoji.problems(list(emoji.views)) == []


@pytest.mark.parametrize("view", [*NAMES, "image", "emoji"])
def test_all_items_of_a_view_differ(emoji: Dataset, view: str) -> None:
    assert len(set(emoji.read(view))) == len(emoji)


def test_images_are_128_px_drawings_on_white(emoji: Dataset) -> None:
    for encoded in emoji.sample(60, seed=1).read("image"):
        assert isinstance(encoded, bytes)
        pixels = np.asarray(decode_image(encoded))
        assert pixels.shape == (128, 128, 3)
        assert pixels.std() > 10


def test_an_image_shows_what_its_name_says(emoji: Dataset) -> None:
    row = emoji.ids.index("1F34E")
    assert emoji.read("name.en", row, row + 1) == ["red apple"]
    assert emoji.read("name.de", row, row + 1) == ["roter Apfel"]
    encoded = emoji.read("image", row, row + 1)[0]
    assert isinstance(encoded, bytes)
    red, green, blue = np.asarray(decode_image(encoded))[64, 64].tolist()
    assert red > 180 > 100 > max(green, blue)


def test_look_alikes_in_series_are_left_out(emoji: Dataset) -> None:
    shown = "".join(map(str, emoji.read("emoji")))
    for left_out in "🕐🕧🔢🅰🈁🔟➡🔄🔙🔴🟦🔶▶⏸🇦🏻🦰":
        assert left_out not in shown
    assert not {"component", "arrow", "alphanum", "geometric", "keycap"} & {
        *emoji.read("group"),
        *emoji.read("subgroup"),
    }


def test_rows_are_in_the_order_of_the_emoji_charts(emoji: Dataset) -> None:
    assert emoji.read("name.en", 0, 2) == ["grinning face", "grinning face with big eyes"]
    groups = emoji.read("group")
    assert list(dict.fromkeys(groups)) == [
        group for i, group in enumerate(groups) if i == 0 or groups[i - 1] != group
    ]


def test_the_notice_names_sources_licences_versions_and_what_is_left_out() -> None:
    notice = FILE.with_name("NOTICE.emoji.md").read_text(encoding="utf-8")
    for needed in (
        "SIL Open Font License",
        "OFL FAQ",
        "MIT License",
        "Unicode License v3",
        "2.042-0+deb12u1",
        "17.0.0",
        "1,240",
        "clock faces",
        "Miles Johnson",
    ):
        assert needed in notice


def test_one_flipped_byte_is_refused_naming_the_file_and_both_hashes(tmp_path: Path) -> None:
    content = bytearray(FILE.read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / "emoji.parquet"
    copy.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_emoji(copy)
    message = str(raised.value)
    assert str(copy) in message
    assert len([word for word in message.replace(",", " ").replace(".", " ").split() if len(word) == 64]) == 2


def test_an_embedded_file_that_is_gone_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Install platonic-ray again"):
        read_emoji(tmp_path / "gone.parquet")


def test_a_sample_of_it_is_checked_and_kept_whole() -> None:
    dataset, dropped = check_samples(open_dataset(DatasetEntry(samples=100), seed=3), ["image", "name.ja"])
    assert (len(dataset), dropped) == (100, [])


def test_the_build_script_makes_the_same_samples_again(tmp_path: Path) -> None:
    font, emojibase = os.environ.get("PLATONIC_RAY_EMOJI_FONT"), os.environ.get("PLATONIC_RAY_EMOJIBASE")
    if not font or not emojibase:
        pytest.skip("needs PLATONIC_RAY_EMOJI_FONT and PLATONIC_RAY_EMOJIBASE: see jobs/build_emoji.py")
    for name in ("once.parquet", "twice.parquet"):
        out = str(tmp_path / name)
        arguments = ["--font", font, "--emojibase", emojibase, "--out", out]
        subprocess.run([sys.executable, str(BUILD), *arguments], check=True)
    once = (tmp_path / "once.parquet").read_bytes()
    assert once == (tmp_path / "twice.parquet").read_bytes()
    built, embedded = pq.read_table(tmp_path / "once.parquet"), read_emoji()
    assert built.drop(["image"]).equals(embedded.drop(["image"]))
    for ours, theirs in zip(built["image"].to_pylist(), embedded["image"].to_pylist(), strict=True):
        assert decode_image(ours).tobytes() == decode_image(theirs).tobytes()
