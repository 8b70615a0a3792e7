"""The report, looked at in a real browser: it loads without network or complaint, and does what it says."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser import CHROMIUM, DRIVER, complaints, open_browser, open_page
from PIL import Image
from processes import wait_until

from platonic_ray.cli import main
from platonic_ray.errors import StudyError
from platonic_ray.results import (
    LayerInfo,
    PairScores,
    Result,
    examples_frame,
    growth_frame,
    render_table,
    samples_frame,
)
from platonic_ray.results.capability import capability_frame
from platonic_ray.results.figures.style import luminance
from platonic_ray.results.report import render_report, save_report
from platonic_ray.results.report.data import pack_cells
from platonic_ray.results.report.findings import warnings_of
from platonic_ray.statistics import Calibration, Interval

in_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Debian's chromium and chromium-driver"
)
HOSTILE = "<script>window.planted = true</script><img src=x onerror='window.planted = true'>"
NAMES = ["org/a, b", HOSTILE, "נץ החמה", "</script><b>bold", "plain", "floor"]


def studied(names: list[str] = NAMES, depth: int = 3) -> Result:
    """A result with all a study can have: a null, intervals, growth, two metrics, a floor, a hole."""
    random = np.random.default_rng(4)
    layers = [
        LayerInfo(name, at, f"block {at}", width=8, k=10, tied_share=0.0)
        for name in names
        for at in range(depth)
    ]
    pairs = []
    for metric in ("mutual_knn", "cka"):
        for i, x in enumerate(names):
            for j in range(i, len(names)):
                scores = random.random((depth, depth)) * 0.5
                status = None
                if (i, j) == (0, 1):
                    scores[:] = np.nan
                    status = np.full(scores.shape, f"constant {HOSTILE}", dtype=object)
                null = (
                    None if i == j else Calibration(p=0.2 if j == 5 else 0.005, threshold=0.1, calibrated=0.3)
                )
                interval = Interval(0.1, 0.6, "population", "halves") if i != j else None
                knn = metric == "mutual_knn"
                pairs.append(
                    PairScores(
                        metric, x, names[j], scores, status, n=500, k=10 if knn else None,
                        chance=0.02 if knn else None, null=null, interval=interval,
                    )
                )  # fmt: skip
    about = {"metric": "mutual_knn", "model_x": names[0], "model_y": names[4], "layer_x": 0, "layer_y": 0}
    about |= {"layers": "best on all samples", "protocol": "all", "queries": None, "target": "population"}
    growth = growth_frame(
        about | {"size": size, "k": 10, "score": 0.3, "standard_error": 0.01, "chance": 0.02, "status": None}
        for size in (125, 250, 500)
    )
    provenance = {
        "study": {
            "name": "study",
            "models": [
                {"name": name, "view": "caption" if at < 3 else "photo"} for at, name in enumerate(names)
            ],
        },
        "dataset": {"name": HOSTILE, "n": 500, "dropped": [3]},
        "floors": [names[5]],
        "null": {"alpha": 0.05, "count": 200},
        "notes": [f"a note with {HOSTILE}"],
    }
    made = Result.from_pairs(pairs, layers, provenance, growth)
    able = capability_frame(
        {"model": name, "capability": "bits_per_byte", "value": 1 + at / 10} for at, name in enumerate(names)
    )
    return replace(made, examples=examples_of_all(names, depth), samples=pictured(8), capability=able)


def examples_of_all(names: list[str], depth: int) -> pl.DataFrame:
    """Of samples 0 to 4: a model finds the three after it, starting one further on for each model."""
    return examples_frame(
        {
            **{"sample": sample, "model": name, "layer": layer, "layer_name": f"block {layer}"},
            **{"neighbors": [(sample + 1 + at + j) % 8 for j in range(3)], "similarities": [0.9, 0.8, 0.7]},
        }
        for sample in range(5)
        for at, name in enumerate(names)
        for layer in range(depth)
    )


def pictured(count: int) -> pl.DataFrame:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "WEBP")
    picture = {"view": "photo", "kind": "image", "text": None, "thumbnail": stream.getvalue()}
    caption = {"view": "caption", "kind": "text", "text": f"seen {HOSTILE}", "thumbnail": None}
    return samples_frame(
        {"sample": at, "id": f"s{at}"} | view for at in range(count) for view in (caption, picture)
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return studied()


@pytest.fixture(scope="module")
def page(result, tmp_path_factory) -> Path:
    return save_report(result, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def opened(browser, page) -> Any:
    open_page(browser, page)
    return browser


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def column_of_scores(driver: Any, column: int) -> list[str]:
    cells = driver.find_elements("css selector", f"#matrix-table td[data-column='{column}']")
    return [cell.text for cell in cells if cell.get_attribute("data-row") != str(column)]


@in_browser
def test_it_loads_without_a_complaint_and_without_network(opened):
    assert complaints(opened) == []
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in opened.execute_script(script) if not name.startswith("data:")] == []


@in_browser
def test_what_was_planted_in_names_is_shown_and_never_run(opened, result):
    assert opened.execute_script("return window.planted") is None
    shown = [
        cell.get_property("textContent")
        for cell in opened.find_elements("css selector", "#matrix-table tbody th bdi")
    ]
    assert shown == NAMES
    assert HOSTILE in find(opened, "h1").text
    assert HOSTILE in find(opened, "#warnings").text
    find(opened, "#matrix-table td[data-row='0'][data-column='1']").click()
    assert f"constant {HOSTILE}" in find(opened, "#pair-body").get_property("textContent")
    assert opened.execute_script("return window.planted") is None


@in_browser
def test_the_matrix_holds_the_scores_of_the_result(opened, result):
    cell = find(opened, "#matrix-table td[data-row='3'][data-column='4']")
    assert cell.text == f"{result.matrix('mutual_knn').at(NAMES[3], NAMES[4]):.3f}".removeprefix("0")
    assert find(opened, "#matrix-table td[data-row='0'][data-column='1']").text == "undef."


@in_browser
def test_a_click_on_a_name_sorts_by_its_scores_and_says_so(opened):
    find(opened, "#matrix-table th[data-column='4'] button").click()
    head = find(opened, "#matrix-table th[data-column='4']")
    assert head.get_attribute("aria-sort") == "descending"
    scores = [float(text) for text in column_of_scores(opened, 4)]
    assert scores == sorted(scores, reverse=True)
    find(opened, "#matrix-table th[data-column='4'] button").click()
    assert [float(text) for text in column_of_scores(opened, 4)] == scores[::-1]


@in_browser
def test_a_search_leaves_the_models_it_finds(opened):
    find(opened, "#find").send_keys("PLAIN")
    names = opened.find_elements("css selector", "#matrix-table tbody th bdi")
    assert [name.text for name in names] == ["plain"]
    assert find(opened, "#found").text == "1 of 6 models"
    find(opened, "#find-pairs").send_keys("floor")
    assert find(opened, "#found-pairs").text == "5 of 15 pairs"


@in_browser
def test_hovering_tells_the_value_and_its_layers(opened, result):
    from selenium.webdriver import ActionChains

    cell = find(opened, "#matrix-table td[data-row='3'][data-column='4']")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", cell)
    ActionChains(opened).move_to_element(cell).perform()
    told = find(opened, "#tip").text
    assert f"mutual_knn {result.matrix().at(NAMES[3], NAMES[4]):.4f}" in told
    assert re.search(r"layers block \d × block \d", told)


@in_browser
def test_a_click_on_a_cell_opens_its_layers(opened, result):
    find(opened, "#matrix-table td[data-row='4'][data-column='3']").click()
    assert find(opened, "#pair-title").text == f"{NAMES[3]} – {NAMES[4]}"
    find(opened, "#map-table summary").click()
    cells = opened.find_elements("css selector", "#map-table td.n")
    expected = result.layers_matrix(NAMES[3], NAMES[4]).values
    assert [float(cell.text) for cell in cells] == pytest.approx(expected.ravel(), abs=6e-5)
    drawn = opened.execute_script(
        "return Bokeh.documents.flatMap((d) => [...d.roots()[0].references()])"
        ".find((m) => m.type === 'ColumnDataSource' && m.name === 'cells').data.score"
    )
    assert drawn == pytest.approx(expected.ravel(), abs=1e-5)


@in_browser
def test_a_pair_shows_examples_of_what_both_models_find(opened):
    find(opened, "#matrix-table td[data-row='3'][data-column='4']").click()
    heads = [head.text for head in opened.find_elements("css selector", "#neighbors h4") if head.text]
    assert [head.split(": ")[1] for head in heads] == ["2 of 3 shared"] * 8  # four more are folded away
    example = find(opened, "#neighbors .example")
    cards = example.find_elements("css selector", "li")
    assert ["both" in (card.get_attribute("class") or "") for card in cards] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    assert f"seen {HOSTILE}" in cards[0].text
    # It is there at once, and decoded when the browser comes to it.
    width = "return document.querySelector('#neighbors .query img').naturalWidth"
    assert wait_until(lambda: opened.execute_script(width)) == 8
    assert opened.execute_script("return window.planted") is None


@in_browser
def test_growth_follows_the_pair_that_is_chosen(opened):
    assert "all against all" in find(opened, "#growth-pair").text
    rows = opened.find_elements("css selector", "#growth-table tbody tr")
    assert rows[0].get_property("textContent") == "125100.30000.01000.0200"


@in_browser
def test_capability_stands_beside_the_mean_alignment_with_what_reads_something_else(opened, result):
    rows = opened.find_elements("css selector", "#capability-table tbody tr")
    assert len(rows) == 6
    matrix = result.matrix()
    mean = np.mean([matrix.at(NAMES[4], other) for other in NAMES[:3]])
    said = rows[4].get_property("textContent")
    assert said.startswith("plain1.4000")
    assert float(said.removeprefix("plain1.4000")) == pytest.approx(mean, abs=6e-5)


@in_browser
def test_the_keyboard_goes_where_the_mouse_goes(opened):
    from selenium.webdriver.common.keys import Keys

    cell = find(opened, "#matrix-table td[data-row='2'][data-column='3']")
    opened.execute_script("arguments[0].focus()", cell)
    cell.send_keys(Keys.ARROW_DOWN)
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    here = opened.switch_to.active_element
    assert (here.get_attribute("data-row"), here.get_attribute("data-column")) == ("3", "4")
    assert here.get_attribute("aria-label").startswith(f"{NAMES[3]} – {NAMES[4]}; mutual_knn 0.")
    here.send_keys(Keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("id") == "pair-title"


@in_browser
def test_another_metric_changes_every_table(opened, result):
    opened.execute_script("document.querySelector(\"input[name='metric'][value='1']\").click()")
    cell = find(opened, "#matrix-table td[data-row='3'][data-column='4']")
    assert cell.text == f"{result.matrix('cka').at(NAMES[3], NAMES[4]):.3f}".removeprefix("0")
    assert not find(opened, ".cards[data-metric='0']").is_displayed()
    assert complaints(opened) == []


@in_browser
def test_it_is_light_and_dark_and_can_be_printed(opened):
    ink = "return getComputedStyle(document.body).backgroundColor"
    before = opened.execute_script(ink)
    find(opened, "#theme").click()
    assert opened.execute_script(ink) != before
    assert len(opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]) > 10_000
    size = {
        "width": 720,
        "height": 1000,
        "deviceScaleFactor": 1,
        "mobile": False,
    }  # of A4, within its margins
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide = "return [...document.querySelectorAll('table.plain')].map((table) => table.getBoundingClientRect().right)"
    try:
        assert max(opened.execute_script(wide)) <= 720
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert complaints(opened) == []


@in_browser
def test_every_number_of_the_matrix_can_be_read_on_its_color_in_light_and_dark(opened):
    colors = (
        "const parts = (color) => color.match(/\\d+/g).map(Number);"
        "return [...document.querySelectorAll('#matrix-table td')].filter((e) => e.style.background)"
        ".map((e) => getComputedStyle(e)).map((style) => [parts(style.color), parts(style.backgroundColor)])"
    )
    for _ in range(2):
        cells = opened.execute_script(colors)
        assert len(cells) > 20
        for cell in cells:
            dark, light = sorted(luminance([part / 255 for part in color[:3]]) for color in cell)
            assert (light + 0.05) / (dark + 0.05) >= 4.5
        find(opened, "#theme").click()


@in_browser
def test_one_pair_below_chance_has_axes_and_a_scale_that_fit_it(browser, tmp_path):
    layers = [LayerInfo(name, 0, "last", width=4) for name in "ab"]
    one = Result.from_pairs([PairScores("mutual_knn", "a", "b", [[0.06]], n=60, k=5, chance=0.08)], layers)
    open_page(browser, save_report(one, tmp_path / "report.html"))
    assert "chance 0.0800, beyond this scale" in find(browser, "#scale").text
    assert not browser.find_elements("css selector", "#scale b")
    reach = browser.execute_script("return Bokeh.documents[0].roots()[0].y_range.end")
    assert 0.06 < reach < 0.3
    assert complaints(browser) == []


def test_facts_of_the_provenance_are_words_and_a_file_is_called_by_its_name(result):
    about = result.provenance | {
        "dataset": {"name": "/somewhere/of/mine/samples.csv"},
        "null": {"counts": {"cka": 200}, "groups": None, "seed": 0},
    }
    page = render_report(replace(result, provenance=about))
    assert "counts (cka 200) · seed 0" in page
    assert "500 samples of samples.csv alike?" in page
    assert "of /somewhere" not in page
    assert "samples.csv · " in render_table(replace(result, provenance=about)).partition("\n")[0]


@in_browser
def test_every_control_has_a_name_and_headings_skip_no_level(opened):
    nameless = opened.execute_script(
        "return [...document.querySelectorAll('button, input, select')].filter((e) => "
        "!(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).map((e) => e.outerHTML)"
    )
    assert nameless == []
    places = opened.execute_script(
        "return [...document.querySelectorAll('section, nav, aside, [role=region]')]"
        ".filter((e) => !e.closest('[hidden]')).map((e) => "
        "e.getAttribute('aria-label') ?? document.getElementById(e.getAttribute('aria-labelledby'))?.textContent)"
    )
    assert None not in places
    assert len(places) == len(set(places))
    empty = "return [...document.querySelectorAll('th')].filter((e) => !e.textContent.trim()).length"
    assert opened.execute_script(empty) == 0
    levels = opened.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = opened.execute_script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_less_than_single_precision_is_warned_of(result):
    models = [dict(model) for model in result.provenance["study"]["models"]]
    models[0] |= {"dtype": "bfloat16"}
    models[4] |= {"quantization": "4bit"}
    gguf = {
        "plain": {"weights": {"files": {"x.gguf": "0"}}},
        "floor": {"weights": {"files": {"y.gguf": "0"}}},
    }
    study = result.provenance["study"] | {"models": models, "features": "float16"}
    narrow = replace(result, provenance=result.provenance | {"study": study, "models": gguf})
    said = [line for line in warnings_of(narrow) if line.startswith("Precision")]
    assert said == [
        "Precision: run in bfloat16: org/a, b; their neighbors are not quite those of float32.",
        "Precision: run with weights in 4bit: plain; their neighbors are not quite those of float32.",
        "Precision: run with quantized weights (GGUF): floor; their neighbors are not quite those of float32.",
        "Precision: features are kept as float16, and were rounded to it.",
    ]
    assert not [line for line in warnings_of(result) if line.startswith("Precision")]


def test_layer_scores_take_at_most_three_bytes_each_and_come_back_within_half_a_step():
    scores = np.random.default_rng(0).normal(size=40_000)
    packed = pack_cells(scores)
    assert len(packed["bytes"]) < 3 * scores.size
    assert packed["step"] * 65534 == pytest.approx(np.ptp(scores))


def test_the_page_policy_lets_only_its_own_scripts_run(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page.read_text())[1]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert policy.count("sha256-") == 2


def test_the_command_writes_the_page_beside_the_result(result, tmp_path, capsys):
    folder = result.save(tmp_path / "result")
    assert main(["report", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]) == folder / "report.html"
    assert said["bytes"] == (folder / "report.html").stat().st_size < 2_000_000


def test_a_result_that_cannot_be_read_or_is_empty_is_refused_in_words(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing")]) != 0
    assert "There is no folder" in capsys.readouterr().err
    with pytest.raises(StudyError, match="nothing to report"):
        render_report(Result.from_pairs([], []))
