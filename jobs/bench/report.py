"""How long a large result takes: its report written and opened in Chromium, and printed by `show`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from platonic_ray.results import LayerInfo, PairScores, Result, load_result
from platonic_ray.results.report import save_report
from platonic_ray.statistics import Calibration

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def time_report(words: list[str]) -> dict[str, Any]:
    """Time a result of random scores: `--models`, `--layers`, `--repeats`."""
    parser = argparse.ArgumentParser(prog="benchmark.py report")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        saved = make_result(given.models, given.layers).save(Path(folder) / "result")
        show = [str(Path(sys.executable).parent / "platonic-ray"), "show", str(saved)]
        shown_s = [_seconds(lambda: subprocess.run(show, check=True, capture_output=True)) for _ in range(3)]
        result = load_result(saved)
        page = Path(folder) / "report.html"
        written_s = _seconds(lambda: save_report(result, page))
        opened_s = open_times(page, given.repeats)
        size = page.stat().st_size
    report = {
        "models": given.models,
        "layers": given.layers,
        "layer_pairs": result.scores.height,
        "report_bytes": size,
        "write_s": round(written_s, 2),
        "open_s": [round(each, 2) for each in opened_s],
        "show_s": [round(each, 2) for each in shown_s],
    }
    print(
        f"{given.models} models × {given.layers} layers: page of {size / 1e6:.1f} MB written in {written_s:.1f} s, "
        f"opened in {median(opened_s):.1f} s; show {median(shown_s):.1f} s",
        file=sys.stderr,
    )
    return report


def make_result(models: int, layers: int) -> Result:
    """Return a result of random scores, as a study with a null has them."""
    random = np.random.default_rng(0)
    names = [f"organization/model-{at:03d}" for at in range(models)]
    infos = [LayerInfo(name, at, f"block {at}", width=64, k=10) for name in names for at in range(layers)]
    null = Calibration(p=0.005, threshold=0.02, calibrated=0.2)
    pairs = (
        PairScores(
            *("mutual_knn", x, y, 0.02 + 0.3 * random.random((layers, layers)) * random.random()),
            n=1024,
            k=10,
            chance=10 / 1023,
            null=None if x == y else null,
        )
        for at, x in enumerate(names)
        for y in names[at:]
    )
    return Result.from_pairs(pairs, infos, {"study": {"name": "synthetic"}, "dataset": {"name": "random"}})


def open_times(page: Path, repeats: int) -> list[float]:
    """Return the seconds from opening a page until all of it is drawn, in one headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    profile = tempfile.mkdtemp()
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    ready = "return document.documentElement.dataset.ready === 'true'"
    try:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            driver.get(page.as_uri())
            WebDriverWait(driver, 120, poll_frequency=0.02).until(lambda found: found.execute_script(ready))
            times.append(time.perf_counter() - start)
        return times
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
