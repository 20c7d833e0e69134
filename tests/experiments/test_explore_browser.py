"""The explorer as it is used: in a browser, by mouse, by the keyboard alone, and attacked."""

import asyncio
import base64
import contextlib
import importlib.util
import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
MISSING = [name for name in ("panel", "playwright") if importlib.util.find_spec(name) is None]
if CHROMIUM is None:
    MISSING.append("chromium, of the distribution's packages")

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

GENERATORS = '''
import jax.numpy as jnp


def blob(z):
    """A spot of light, at a place, of a size and as long as four latents say."""
    y, x = jnp.mgrid[0:24, 0:24] / 23.0
    across = (x - 0.5 - 0.12 * z[0]) ** 2 / (1 + 0.3 * jnp.tanh(z[3]))
    up = (y - 0.5 - 0.12 * z[1]) ** 2
    return jnp.exp(-(across + up) / (2 * (0.12 * jnp.exp(0.25 * z[2])) ** 2))[..., None]


def waves(z):
    t = jnp.linspace(0, 1, 60)
    return z[0] * jnp.sin(6.28 * t) + 0.5 * z[1] * jnp.cos(12.56 * t) + 0.2 * z[2]


blob.latent_dim, waves.latent_dim = 4, 3
'''


class Server:
    """An explorer in a process of its own."""

    def __init__(self, folder, *flags, port=0):
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "experiments.explore", *flags, "--port", str(port)]
        settings = {"PYTHONPATH": str(ROOT), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}
        self.process = subprocess.Popen(
            [*command, "--codes", "200"],
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **settings},
        )
        self.url = ""
        for _ in range(1800):
            if found := re.search(r"(http://\S+)", self.said()):
                self.url = found[1]
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(self.said())

    def said(self):
        return self.log.read_text()

    @property
    def port(self):
        return int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer")
    (path / "own.py").write_text(GENERATORS)
    return path


@pytest.fixture(scope="module")
def server(folder):
    one = Server(folder, "--generator", "own.py:blob")
    yield one
    one.kill()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        found = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens pages, and sees to it that none asks for anything elsewhere or complains."""
    trouble, contexts = [], []

    def open_page(url, width=1280, height=900, quiet=True):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if elsewhere(request) else 0)
        page.goto(url)
        if quiet:
            page.locator(".strip button").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble


def elsewhere(request):
    return not re.match(r"(http|ws)://127\.0\.0\.1:|blob:|data:", request.url)


def slide(page, index, *places):
    slider = page.locator(f"#slider-{index}")
    for place in places:
        slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", place)
        page.wait_for_timeout(40)
    slider.evaluate("s => s.dispatchEvent(new Event('change'))")


def pixels(page):
    address = page.locator("canvas.large").evaluate("c => c.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))[..., 0]


def address(page):
    return page.evaluate("location.href")


def barycentre(image):
    light = image.astype(float)
    return (light * np.arange(light.shape[1])).sum() / light.sum() / light.shape[1]


def tap(page, x, y):
    box = page.locator(".plane").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_sliders_taps_play_downloads_and_a_link(server, opened, tmp_path):
    page = opened(server.url)
    before = barycentre(pixels(page))
    # A steered slider moves the image by its own unit.
    slide(page, 0, 10, 30, 50)
    assert until(lambda: barycentre(pixels(page)) - before == pytest.approx(0.2, abs=0.03))
    slide(page, 0, 100)
    page.get_by_text("Beyond −0.2 to 0.2").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    assert until(lambda: barycentre(pixels(page)) == pytest.approx(before, abs=1e-3))
    # Two taps: go there, measure the way.
    tap(page, 0.45, 0.45)
    assert until(lambda: "the map at" in page.locator(".origin").inner_text())
    page.wait_for_timeout(500)  # sooner the two are a double tap
    tap(page, 0.7, 0.6)
    page.get_by_text(re.compile(r"geodesic [\d.]+, straight line [\d.]+ in data space")).wait_for()
    assert until(lambda: page.get_by_label("Follow").input_value() == "geodesic")
    # Play, and go to where it is stopped.
    page.get_by_role("button", name="Play").click()
    assert until(lambda: page.locator(".place").inner_text().endswith("of the way"))
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Go there").click()
    assert until(lambda: "of the way along the geodesic" in page.locator(".origin").inner_text())
    for name, suffix in (("PNG", ".png"), ("GIF of the strip", ".gif"), ("Latent (.npy)", ".npy")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        assert download.value.suggested_filename.endswith(suffix)
        download.value.save_as(tmp_path / f"taken{suffix}")
    shown = pixels(page)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "taken.png"))[..., 0], shown)
    assert np.load(tmp_path / "taken.npy").shape == (4,)
    assert Image.open(tmp_path / "taken.gif").n_frames > 9
    # The address reopens it.
    page.wait_for_timeout(600)
    again = opened(address(page))
    np.testing.assert_array_equal(pixels(again), shown)


@pytest.mark.slow
def test_the_keyboard_alone_is_enough_and_every_control_has_a_name(server, opened):
    page = opened(server.url)
    unnamed = page.locator("input, select, button").evaluate_all(
        "all => all.filter(e => !(e.labels?.length || e.textContent.trim() "
        "|| e.getAttribute('aria-label'))).map(e => e.outerHTML)"
    )
    assert unnamed == []
    reached, wanted = set(), {"Random", "#slider-0", "map", "#own-picture", "PNG"}
    for _ in range(80):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) "
            "e = e.shadowRoot.activeElement; return [e.id && '#' + e.id, e.textContent.trim(), "
            "e.className === 'plane' ? 'map' : '']; }"
        )
        reached |= {*here}
        if "#slider-0" in here:
            before = barycentre(pixels(page))
            for _ in range(25):
                page.keyboard.press("ArrowRight")
            assert until(lambda: barycentre(pixels(page)) > before + 0.05)  # noqa: B023
        if "map" in here:
            page.keyboard.press("Home")
            for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowUp"):
                page.keyboard.press(key)
            page.keyboard.press("Enter")
            assert until(lambda: "the map at" in page.locator(".origin").inner_text())
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Enter")
            page.get_by_text("in data space").wait_for()
    assert wanted <= reached


def test_nothing_lies_over_or_beside_the_page_on_a_phone(server, opened):
    page = opened(server.url, 390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [card.bounding_box() for card in page.locator("section.card").all()]
    boxes.sort(key=lambda box: box["y"])
    for upper, lower in itertools.pairwise(boxes):
        assert upper["y"] + upper["height"] <= lower["y"]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)


@pytest.mark.slow
def test_a_picture_that_is_dropped_is_found_and_what_is_none_is_refused(server, opened, tmp_path):
    page = opened(server.url)
    spot = np.zeros((90, 120, 4), np.uint8)
    y, x = np.mgrid[0:90, 0:120]
    spot[..., :3] = (255 * np.exp(-((x - 70) ** 2 + (y - 40) ** 2) / 250))[..., None]
    spot[..., 3] = 255
    Image.fromarray(spot).save(tmp_path / "me.png")
    (tmp_path / "no.png").write_bytes(b"<script>alert(1)</script>")
    page.set_input_files("input[type=file]", tmp_path / "no.png")
    page.get_by_text("cannot be taken").first.wait_for()
    page.set_input_files("input[type=file]", tmp_path / "me.png")
    page.get_by_text("your picture, me.png").wait_for()
    page.get_by_text("the middle 90 x 90 of 120 x 90 pixels").wait_for()
    assert page.locator(".pair img").count() == 2
    assert barycentre(pixels(page)) == pytest.approx((70 - 15) / 90, abs=0.05)


@pytest.mark.slow
def test_samples_that_are_no_pictures_are_drawn(folder, opened):
    one = Server(folder, "--generator", "own.py:waves")
    try:
        page = opened(one.url)
        assert page.locator(".picture").is_hidden()
        before = page.locator("canvas.large").evaluate("c => c.toDataURL()")
        slide(page, 0, 40)
        assert until(lambda: page.locator("canvas.large").evaluate("c => c.toDataURL()") != before)
    finally:
        one.kill()


# --- the server ---


@pytest.mark.slow
def test_a_link_of_another_run_is_refused_on_the_page(server, opened):
    page = opened(server.url)
    assert until(lambda: "view=" in address(page))
    other = opened(address(page)[:-30])
    other.get_by_text("the link is damaged").wait_for()
    slide(other, 0, 20)


@pytest.mark.slow
def test_a_page_whose_server_was_killed_says_so_and_comes_back_to_its_view(folder, opened):
    one = Server(folder, "--generator", "own.py:blob")
    page = opened(one.url)
    slide(page, 0, 40)
    page.wait_for_timeout(1500)
    seen = pixels(page)
    one.kill()
    page.get_by_text("The server is gone").wait_for()
    two = Server(folder, "--generator", "own.py:blob", port=one.port)
    try:
        page.get_by_text("The server is gone").wait_for(state="hidden")
        page.locator(".strip button").first.wait_for()
        np.testing.assert_array_equal(pixels(page), seen)
        two.process.send_signal(signal.SIGINT)
        assert two.process.wait(timeout=30) == 0
        assert "stopped" in two.said()
        assert "Traceback" not in two.said()
    finally:
        two.kill()


def test_other_origins_may_not_talk_to_the_server_and_no_path_is_opened(server):
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import websocket_connect

    page = urllib.request.urlopen(server.url).read().decode()
    token = re.search(r'"token":"([^"]+)"', page)[1]

    async def knock(origin):
        request = HTTPRequest(server.url.replace("http", "ws") + "ws", headers={"Origin": origin})
        return await websocket_connect(request, subprotocols=["bokeh", token])

    def answered(origin):
        try:
            asyncio.run(knock(origin))
            told.append("welcome")
        except HTTPClientError as error:
            told.append(error.code)

    told = []
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", server.url.rstrip("/")):
        # Playwright has the loop of this thread.
        thread = threading.Thread(target=answered, args=(origin,))
        thread.start()
        thread.join()
    assert told == [403, 403, 403, "welcome"]
    for path in ("../own.py", "own.py", "static/../../own.py", "/etc/passwd", "%2e%2e/own.py"):
        with contextlib.suppress(urllib.error.HTTPError):
            answer = urllib.request.urlopen(server.url + path)
            assert b"def blob" not in answer.read(), path


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "nothing is named to explore"),
        (("nowhere",), "nowhere does not exist"),
        (("own.py",), "names no function"),
        (("--generator", "own.py:nothing"), "has no 'nothing'"),
        (("--generator", "own.py:blob", "--host", "203.0.113.7"), "no address of this machine"),
        (("--generator", "own.py:blob", "--host", "::1"), "IPv4"),
        (("--generator", "own.py:blob", "--port", "{taken}"), "is taken"),
        (("--generator", "own.py:blob", "--port", "70000"), "port must lie in"),
    ],
)
def test_what_cannot_be_explored_is_one_line_and_code_2(flags, told, folder, call, monkeypatch):
    import socket

    from experiments.explore import __main__ as explore

    monkeypatch.chdir(folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [flag.format(taken=taken.getsockname()[1]) for flag in flags]
        code, _, err = call(explore, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
