"""How soon the explorer answers: slider to image, tap to shortest path, start to a usable page.

Run as `python -m benchmarks.explore RUN`, with the extra `explore`, Playwright and Chromium. Times
are taken in the page, from the event to the frame that shows the answer. With --tabs so many tabs
move their sliders at once, and the server's memory is watched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro


@dataclass(frozen=True)
class Config:
    """What is measured."""

    run: Annotated[str, tyro.conf.Positional] = "runs/demo"
    """Run folder that is explored."""
    events: int = 200
    """Slider events."""
    every: float = 40.0
    """Milliseconds between two of them."""
    ways: int = 8
    """Shortest paths on the map, after a first."""
    tabs: int = 0
    """Tabs that move their sliders at once, instead of one alone; 0: one."""
    seconds: float = 60.0
    """For how long they do."""
    chromium: str = ""
    """The browser's program; empty: what is found of chromium."""


@contextmanager
def served(run: str) -> Iterator[tuple[str, subprocess.Popen, float]]:
    """An explorer of a run: its address, its process, and when it was started."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.explore", run, "--port", "0"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield _address(log, process), process, began
        finally:
            process.kill()
            process.wait()


def _address(log: Any, process: subprocess.Popen) -> str:
    while process.poll() is None:
        log.seek(0)
        if "http://" in (said := log.read()):
            return said[said.index("http://") :].split()[0]
        time.sleep(0.02)
    log.seek(0)
    raise SystemExit(log.read())


DRAG = """
([index, milliseconds, every]) => new Promise((done) => {
  const find = (at) => {
    for (const e of at.querySelectorAll("*")) {
      if (e.id === `slider-${index}`) return e;
      const inner = e.shadowRoot && find(e.shadowRoot);
      if (inner) return inner;
    }
  };
  const slider = find(document);
  let k = 0;
  const end = performance.now() + milliseconds;
  const move = () => {
    slider.value = Math.round(90 * Math.sin(k / 9));
    slider.dispatchEvent(new Event("input"));
    k += 1;
    if (performance.now() < end) return setTimeout(move, every);
    slider.dispatchEvent(new Event("change"));
    setTimeout(() => done(+slider.value), 1500);
  };
  move();
})
"""
TIMES = "name => performance.getEntriesByName(name).map((entry) => entry.duration)"


def ready(page: Any, url: str) -> None:
    """Opens a page, and waits until its strip is drawn."""
    page.goto(url)
    page.locator(".strip button").first.wait_for(timeout=120_000)


def sliders(page: Any, config: Config) -> np.ndarray:
    """Milliseconds from events of the first slider to the images that show them."""
    page.evaluate(DRAG, [0, 20 * config.every, config.every])
    page.evaluate("performance.clearMeasures()")
    page.evaluate(DRAG, [0, config.events * config.every, config.every])
    return np.array(page.evaluate(TIMES, "slider to image"))


def taps(page: Any, config: Config) -> np.ndarray:
    """Milliseconds from taps to shortest paths that are told, the first one first."""
    random = np.random.default_rng(0)
    for _ in range(config.ways + 1):
        count = len(page.evaluate(TIMES, "tap to ways"))
        for _ in range(2):
            box = page.locator(".plane").bounding_box()
            x, y = random.uniform(0.3, 0.65, 2)
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
            page.wait_for_timeout(600)
        for _ in range(600):
            if len(page.evaluate(TIMES, "tap to ways")) > count:
                break
            page.wait_for_timeout(100)
    return np.array(page.evaluate(TIMES, "tap to ways"))


def together(browser: Any, url: str, process: subprocess.Popen, config: Config) -> None:
    """Many tabs move their sliders at once."""
    import psutil

    server = psutil.Process(process.pid)
    pages = []
    for _ in range(config.tabs):
        pages.append(browser.new_context().new_page())
        pages[-1].goto(url, wait_until="commit")
    for page in pages:
        page.locator(".strip button").first.wait_for(timeout=240_000)
    half = 500 * config.seconds
    memory = []
    for turn in range(2):
        for k, page in enumerate(pages):
            # Every tab by another slider, so that each has a state of its own.
            page.evaluate(f"void (window.moved = ({DRAG})([{k % 4}, {half}, {config.every}]))")
        for page in pages:
            page.evaluate("window.moved")
        memory.append(server.memory_info().rss / 2**20)
        print(f"{config.tabs} tabs, half {turn + 1}: server {memory[-1]:.0f} MiB", flush=True)
    wrong = 0
    for k, page in enumerate(pages):
        moved = page.locator(".slider.moved input").evaluate_all("all => all.map((e) => e.id)")
        wrong += moved != [f"slider-{k % 4}"]
    times = np.concatenate([page.evaluate(TIMES, "slider to image") for page in pages])
    print(
        f"{config.tabs} tabs: slider to image median {np.median(times):.0f} ms, 95% "
        f"{np.quantile(times, 0.95):.0f} ms; {wrong} saw a slider of another; memory grew by "
        f"{memory[1] - memory[0]:+.0f} MiB in the second half"
    )


def alone(browser: Any, config: Config) -> None:
    """One tab, after a first start that has filled the compilation cache."""
    for cache in ("as it is", "warm"):
        with served(config.run) as (url, _, began):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            ready(page, url)
            usable = time.perf_counter() - began
            print(f"start to a usable page, compilation cache {cache}: {usable:.1f} s", flush=True)
            page.wait_for_timeout(3000)
            moved, found = sliders(page, config), taps(page, config)
    print(
        f"slider to image: median {np.median(moved):.0f} ms, 95% "
        f"{np.quantile(moved, 0.95):.0f} ms ({len(moved)} images)"
    )
    print(
        f"tap to shortest path: first {found[0]:.0f} ms, then median "
        f"{np.median(found[1:]):.0f} ms, largest {found[1:].max():.0f} ms"
    )


def main(config: Config) -> None:
    """Print what was measured."""
    from playwright.sync_api import sync_playwright

    if not Path(config.run).expanduser().exists():
        raise SystemExit(
            f"error: {config.run} does not exist: make it by `make demo`, or name another"
        )
    chromium = config.chromium or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if config.tabs:
            with served(config.run) as (url, process, _):
                together(browser, url, process, config)
        else:
            alone(browser, config)
        browser.close()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
