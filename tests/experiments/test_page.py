"""A run as one page: what is on it, that it needs nothing but itself, and that it works."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.directions.config import Config as Directions
from experiments.directions.config import Fit, Inversion
from experiments.export import export
from experiments.learnt import factors
from experiments.page import contents as pages
from experiments.page.contents import Contents, Move, Wish, contents
from experiments.page.document import document, tables_html
from experiments.page.sheets import sheets
from experiments.potential_flows import flow_space
from experiments.potential_flows.config import Config, Flows
from experiments.potential_flows.families import potential_network
from experiments.potential_flows.flow_space import FlowSpace
from experiments.runtime.run_dir import open_folder
from latent_flows import coordinates, potentials
from latent_flows.directions.model import DirectionModel
from latent_flows.export import Directions as Learnt
from latent_flows.generators import freeze
from tests.experiments.small_generators import small_vae

FLOWS = Config(flows=Flows(count=2, horizon=3, width=4, depth=1))


def picture(z):
    """An image of 4 x d pixels."""
    return jnp.tile(jax.nn.sigmoid(z), (4, 1))[..., None]


@pytest.fixture(scope="module")
def shown():
    """Two starts, three ways, five frames, of noise."""
    random = np.random.default_rng(0)
    places = np.linspace(-1, 1, 5)
    return Contents(
        "a run: </script><b>",
        "What {{data}} moves <here>.",
        freeze(lambda z: jnp.zeros((20, 24, 3)) + z[0], 2),
        [Move(f"way & {k}", "time", places) for k in range(3)],
        ["code 1", "code 2"],
        random.uniform(size=(2, 3, 5, 20, 24, 3)).astype(np.float32),
        None,
        {"A <table>": [{"method": "a & b", "share": 0.12345}, {"method": "c", "share": None}]},
    )


class Asked(HTMLParser):
    """What a page asks for, and its data."""

    def __init__(self):
        super().__init__()
        self.addresses, self.data, self._in_data = [], "", False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [given[k] for k in ("src", "href", "action", "poster") if k in given]
        self._in_data = given.get("id") == "data"

    def handle_endtag(self, tag):
        self._in_data = False

    def handle_data(self, data):
        if self._in_data:
            self.data += data


def parsed(content):
    asked = Asked()
    asked.feed(content.decode())
    return asked, json.loads(asked.data)


def test_a_page_needs_nothing_but_itself(shown):
    content, _ = document(shown, "made by a test")
    asked, data = parsed(content)
    assert asked.addresses
    assert all(address.startswith("data:image/") for address in asked.addresses)
    assert not re.search(rb"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", content)
    assert b"default-src 'none'" in content
    assert [len(row) for row in data["sheets"]] == [3, 3]
    assert b"{{" not in content.replace(b"{{data}} moves", b"")


def test_names_and_captions_are_text_and_no_markup(shown):
    content, _ = document(shown, "<footer>")
    assert b"a run: &lt;/script&gt;&lt;b&gt;" in content
    assert b"What {{data}} moves &lt;here&gt;." in content, "what is put in is left as it is"
    assert content.count(b"</script>") == 2
    assert b'<td class="words">a &amp; b</td><td>0.1235</td>' in content
    assert b"<td>-</td>" in content
    assert parsed(content)[1]["moves"][0]["name"] == "way & 0"


def test_sheets_hold_the_frames_side_by_side():
    shades = np.linspace(0.1, 0.9, 2 * 3 * 5).reshape(2, 3, 5, 1, 1, 1)
    found = sheets(np.broadcast_to(shades, (2, 3, 5, 20, 24, 3)), 10**7)
    assert found.size == (24, 20)
    encoded = found.uris[1][2].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        sheet = np.asarray(image.convert("RGB"), float) / 255
    assert sheet.shape == (20, 5 * 24, 3)
    frames = sheet.reshape(20, 5, 24, 3).mean((0, 2, 3))
    np.testing.assert_allclose(frames, shades[1, 2].ravel(), atol=0.02)


def test_pictures_are_made_smaller_until_they_fit():
    noise = np.random.default_rng(0).uniform(size=(1, 1, 3, 300, 150, 3))
    large, small = sheets(noise, 10**7), sheets(noise, 20_000)
    assert large.size == (128, 256)
    assert small.bytes <= 20_000 < large.bytes
    assert max(small.size) < 256
    assert sheets(noise, 1).size == (16, 32), "the smallest, where nothing fits"


def test_vectors_are_drawn():
    places = np.linspace(-1, 1, 3)
    samples = np.linspace(0, 1, 3 * 7).reshape(1, 1, 3, 7).astype(np.float32)
    frozen = freeze(lambda z: jnp.zeros(7) + z[0], 2)
    shown = Contents("v", "Lines.", frozen, [Move("a", "t", places)], ["one"], samples, None, {})
    content, found = document(shown, "")
    assert found.size == (144, 96)
    assert b"Nothing was measured in this run." in content


def test_a_table_of_nothing_is_said():
    assert "Nothing was measured" in tables_html({})


@pytest.mark.slow
def test_a_page_of_potentials_has_a_slider_for_each(tmp_path, monkeypatch):
    net = potential_network(FLOWS.flows)
    params = {"potentials": potentials.init_stack(net, jax.random.key(0), 2, 2)}
    starts = jnp.linspace(-1.0, 1.0, 24)[:, None] * jnp.ones(2)
    low, high = starts.min(0), starts.max(0)
    frame = coordinates.identity(2)
    there = FlowSpace(freeze(picture, 2, name="tiles"), frame, picture, starts, low, high)
    monkeypatch.setattr(flow_space, "load_flows", lambda run, _: (FLOWS, there, params))
    monkeypatch.setattr(pages, "of_run", lambda run: there.frozen)
    run = open_folder(tmp_path / "flows", FLOWS).path
    found = contents(str(run), Wish(3, 2, ""))
    assert found.title == "flows: tiles"
    assert [move.name for move in found.moves] == ["Flow 0", "Flow 1"]
    assert found.starts == ["draw 1", "draw 2", "draw 3"]
    assert found.samples.shape == (3, 2, 5, 4, 2, 1)
    np.testing.assert_allclose(found.moves[0].places, [-3, -1.5, 0, 1.5, 3])
    np.testing.assert_allclose(found.samples[:, 0, 2], found.samples[:, 1, 2], atol=1e-6)
    np.save(tmp_path / "cat.npy", np.array([0.3, -0.4]))
    own = contents(str(run), Wish(3, 2, str(tmp_path / "cat.npy")))
    assert own.starts == ["cat"]
    wanted = picture(jnp.array([0.3, -0.4]))
    np.testing.assert_allclose(own.samples[0, 1, 2], wanted, atol=1e-6)


@pytest.fixture
def directions_run(tmp_path, monkeypatch):
    """A run of one straight direction in two dimensions, as far as a page reads it."""
    config = Directions(
        run=str(tmp_path / "ways"),
        transformations=("zoom",),
        ts=(0.5,),
        losses=("mse",),
        inversion=Inversion(count=5, amounts=1),
        fit=Fit(knots=3, width=2, drop=0.0),
    )
    line = jnp.array([-1.0, 0.0, 1.0])
    model = DirectionModel(jnp.array([1.0, 0.0]), line, line, line[::2], *jnp.ones(2))
    monkeypatch.setattr(factors, "learnt_directions", lambda run: Learnt(("zoom",), (model,)))
    monkeypatch.setattr(pages, "of_run", lambda run: freeze(picture, 2, name="tiles"))
    return open_folder(config.run, config).path


def test_a_page_of_directions_moves_by_the_amount_on_the_slider(directions_run, tmp_path, capsys):
    np.save(tmp_path / "z.npy", np.zeros((2, 2)))
    found = contents(str(directions_run), Wish(4, 1, str(tmp_path / "z.npy")))
    assert [(move.name, move.unit) for move in found.moves] == [("zoom, straight", "t")]
    assert found.starts == ["z 1", "z 2"]
    wanted = [picture(jnp.array([t, 0.0])) for t in (-0.5, 0.0, 0.5)]
    np.testing.assert_allclose(found.samples[1, 0], wanted, atol=1e-5)
    assert found.tables == {}
    assert "frames of the page: step 2 of 2" in capsys.readouterr().out


def test_the_command_writes_a_page_and_nothing_into_the_run(directions_run, tmp_path, call):
    np.save(tmp_path / "z.npy", np.zeros(2))
    before = sorted(directions_run.rglob("*"))
    page = tmp_path / "page.html"
    flags = ("--page", page, "--latent", tmp_path / "z.npy", "--frames", 1)
    code, out, err = call(export, directions_run, *flags)
    assert (code, err) == (0, "")
    assert f"{page}: 0.0 MiB, 1 starts, 1 sliders of 3 frames of 2 x 4 pixels" in out
    assert parsed(page.read_bytes())[1]["starts"] == ["z"]
    assert sorted(directions_run.rglob("*")) == before


def test_what_has_no_page_is_refused_in_one_line(tmp_path, call):
    vae, page = small_vae(tmp_path / "vae"), tmp_path / "page.html"
    (tmp_path / "file").write_text("text")
    for flags, words in [
        ((vae, "--page", page), "experiments.train_vae, in which nothing moves"),
        ((tmp_path / "file", "--page", page), "--page is of a run folder"),
        ((tmp_path / "nothing", "--page", page), "does not exist"),
        ((vae, "--page", vae / "page.png"), "keeps for itself"),
        ((vae, "--page", tmp_path), "is a folder; name a file"),
        ((vae, "--page", page, "--starts", 0), "starts must be at least 1"),
        ((vae, "--latent", tmp_path / "z.npy"), "name its file by --page"),
    ]:
        code, _, err = call(export, *flags)
        assert (code, err.count("\n")) == (2, 1), err
        assert words in err
    assert not page.exists()


def test_what_a_steered_latent_misses_is_on_the_page(shown):
    missing = np.zeros((2, 3, 5))
    missing[1, 2, 4] = 0.6
    data = parsed(document(replace_missing(shown, missing), "")[0])[1]
    assert data["missing"][1][2] == [0, 0, 0, 0, 0.6]


def replace_missing(shown, missing):
    return shown._replace(missing=missing)


@pytest.mark.slow
def test_a_page_works_in_a_browser_by_the_keyboard_alone(shown, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright to drive a browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "page.html").write_bytes(document(shown, "made by a test")[0])
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 844})
            wrong, asked = [], []
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.on("console", lambda said, wrong=wrong: wrong.append(said.text))
            page.on("request", lambda one, asked=asked: asked.append(one.url))
            page.goto(f"file://{tmp_path / 'page.html'}")
            page.focus("#move1")
            page.keyboard.press("ArrowRight")
            assert page.inner_text("#now") == "way & 1, time 0.5, from code 1."
            page.reload()
            assert page.inner_text("#now") == "way & 1, time 0.5, from code 1."
            page.focus("#starts input:checked")
            page.keyboard.press("ArrowRight")
            assert page.inner_text("#now").endswith("from code 2.")
            page.focus("#play")
            page.keyboard.press("Enter")
            seen = set()
            for _ in range(100):  # the page forbids what waits for an expression
                seen.add(page.inner_text("#now"))
                page.wait_for_timeout(30)
            assert {"way & 1, time 1, from code 2.", "way & 1, time -1, from code 2."} <= seen
            page.keyboard.press("Enter")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert wrong == []
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()
