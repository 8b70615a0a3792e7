"""Build the embedded dataset `platonic_ray/datasets/emoji.parquet` from its two public sources.

    apt-get download fonts-noto-color-emoji     # Debian bookworm: 2.042-0+deb12u1
    dpkg-deb -x fonts-noto-color-emoji_*.deb font
    npm pack emojibase-data@17.0.0
    tar xzf emojibase-data-17.0.0.tgz           # makes the folder `package`
    python -m pip install fonttools
    python jobs/build_emoji.py --font font/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf \
        --emojibase package --out platonic_ray/datasets/emoji.parquet

A sample is an emoji of one code point (a trailing variation selector 16 aside) that has a bitmap in
the font and a name in every language of `LANGUAGES`. Rows are in emojibase's `order`, the order of
Unicode's emoji charts. Images are the font's own 136×128 bitmaps without their 4 empty columns on
either side: 128×128 PNG, the pixels unchanged and transparency kept; who reads them composites on white.

Left out, because look-alikes in a series make captions trivially predictable from each other:

- clock faces (24);
- the subgroups `arrow`, `keycap`, `alphanum` (squared letters, digits and ideographs) and `geometric`
  (coloured circles, squares, diamonds, triangles, buttons), and all of `component` (skin tones, hair);
- of `av-symbol`: play, stop, forward, shuffle and their like, which are triangles and arrows;
- regional indicators (they stand in no group).

The same inputs give the same bytes with the same versions of Pillow, zlib and pyarrow (the pinned
ones); with others the pixels and texts stay equal, but not the compressed bytes. After a rebuild
put the printed sha256 into `platonic_ray/datasets/emoji.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fontTools.ttLib import TTFont
from PIL import Image

from platonic_ray.datasets.emoji import LANGUAGES

SIDE_px = 128
LEFT_OUT_GROUPS = frozenset({"component"})
LEFT_OUT_SUBGROUPS = frozenset({"arrow", "keycap", "alphanum", "geometric"})
PLAYBACK = frozenset("🔀🔁🔂▶⏩⏭⏯◀⏪⏮🔼⏫🔽⏬⏸⏹⏺⏏")
FIRST_CLOCK, LAST_CLOCK = 0x1F550, 0x1F567
VARIATION_SELECTOR = "\ufe0f"


def main() -> None:
    """Parse, build, print what was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--font", type=Path, required=True, help="NotoColorEmoji.ttf (with CBDT bitmaps)")
    parser.add_argument("--emojibase", type=Path, required=True, help="the unpacked emojibase-data package")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    given = parser.parse_args()
    table = build(given.font, given.emojibase)
    write(table, given.out)
    content = given.out.read_bytes()
    print(f"{table.num_rows} samples, {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    for language in LANGUAGES:
        names = Counter(name.casefold() for name in table[f"name.{language}"].to_pylist())
        print(f"name.{language}: {table.num_rows - len(names)} names repeat another, letter case aside")


def build(font_file: Path, emojibase: Path) -> pa.Table:
    """Return the dataset as a table, one row an emoji."""
    font = TTFont(font_file)
    glyphs, bitmaps = font.getBestCmap(), font["CBDT"].strikeData[0]
    meta = _read(emojibase / "meta" / "groups.json")
    named = {
        language: {entry["hexcode"]: entry for entry in _read(emojibase / language / "data.json")}
        for language in LANGUAGES
    }
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "id",
            "emoji",
            "image",
            *(f"name.{language}" for language in LANGUAGES),
            "tags.en",
            "group",
            "subgroup",
        )
    }
    entries = [entry for entry in named["en"].values() if "order" in entry]
    for entry in sorted(entries, key=lambda entry: entry["order"]):
        character = entry["emoji"].removesuffix(VARIATION_SELECTOR)
        group, subgroup = meta["groups"][str(entry["group"])], meta["subgroups"][str(entry["subgroup"])]
        if len(character) != 1 or _left_out(character, group, subgroup):
            continue
        bitmap = bitmaps.get(glyphs.get(ord(character)))
        names = [named[language].get(entry["hexcode"], {}).get("label", "").strip() for language in LANGUAGES]
        if bitmap is None or not all(names):
            continue
        row = [
            entry["hexcode"],
            entry["emoji"],
            square_png(bitmap.imageData),
            *names,
            ", ".join(entry["tags"]),
            group,
            subgroup,
        ]
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return pa.table(
        {name: pa.array(v, pa.binary() if name == "image" else pa.string()) for name, v in columns.items()},
        metadata={
            "font": font["name"].getDebugName(5),
            "names": f"emojibase-data {_read(emojibase / 'package.json')['version']}",
        },
    )


def square_png(bitmap: bytes) -> bytes:
    """Return the font's 136×128 PNG as a 128×128 one of the same pixels."""
    image = Image.open(io.BytesIO(bitmap))
    margin = (image.width - SIDE_px) // 2
    alpha = image.convert("RGBA").getchannel("A")
    box = (margin, 0, margin + SIDE_px, SIDE_px)
    drawn = alpha.getbbox()
    if image.height != SIDE_px or drawn is None or drawn[0] < box[0] or drawn[2] > box[2]:
        raise SystemExit(f"A bitmap of {image.size} px drawn in {drawn} does not fit {SIDE_px}×{SIDE_px} px.")
    out = io.BytesIO()
    image.crop(box).save(out, "PNG", optimize=True)
    return out.getvalue()


def write(table: pa.Table, path: Path) -> None:
    """Write the table as Parquet: images stored as they are, texts compressed."""
    pq.write_table(
        table,
        path,
        row_group_size=table.num_rows,
        compression={name: "none" if name == "image" else "zstd" for name in table.column_names},
        compression_level={name: 19 for name in table.column_names if name != "image"},
        use_dictionary=["group", "subgroup"],
        write_statistics=False,
    )


def _left_out(character: str, group: str, subgroup: str) -> bool:
    return (
        group in LEFT_OUT_GROUPS
        or subgroup in LEFT_OUT_SUBGROUPS
        or character in PLAYBACK
        or FIRST_CLOCK <= ord(character) <= LAST_CLOCK
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
