"""Figures show the numbers they were given, where they were asked to."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from latent_flows import plots
from latent_flows.plots import planes
from tests.rest_slow import rest_slow


def steps_of_grey(flows, times, shape=(8, 8, 1)):
    """Image (k, t) is uniform, of a value of its own."""
    values = np.linspace(0.1, 0.9, flows * times).reshape(flows, times, 1, 1, 1)
    return np.broadcast_to(values, (flows, times, *shape))


def read_png(figure):
    return np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("RGB"))


def frames(gif):
    image = Image.open(io.BytesIO(gif))
    for i in range(image.n_frames):
        image.seek(i)
        yield np.asarray(image.convert("L")).astype(int)


@pytest.mark.parametrize(
    "sides", rest_slow([(33, 17), (32, 28), (28, 32), (64, 36)], every=4), ids=str
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_sides_and_with_alpha_are_drawn(sides, channels):
    images = np.random.default_rng(0).random((2, 3, *sides, channels))
    grid = plots.traversal_grid(images, times=[0, 1, 2], row_labels="ab", caption="")
    samples = plots.samples_grid(images[0], caption="")
    pairs = plots.reconstructions(images[0], images[0], "")
    strips = plots.strips(images, row_labels="ab", caption="")
    for figure, rows, columns in ((grid, 2, 3), (samples, 2, 2), (pairs, 2, 3), (strips, 2, 3)):
        drawn = figure.axes[0].images[0].get_array()
        gap = round(max(sides) / 16)
        expected = (rows * (sides[0] + gap) - gap, columns * (sides[1] + gap) - gap, 3)
        assert drawn.shape == expected
    with Image.open(io.BytesIO(plots.traversal_gif(images))) as film:
        scale = max(1, round(144 / max(sides)))
        assert film.size[0] == 2 * (sides[1] * scale + 8) + 8


def test_what_is_transparent_shows_the_white_behind_it():
    red = np.broadcast_to([1.0, 0.0, 0.0, 0.25], (1, 2, 2, 4))
    drawn = plots.samples_grid(red).axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn[0, 0], [1, 0.75, 0.75])
    with pytest.raises(ValueError, match=r"1 or 3 channels, last, or 4 with alpha.*\(8, 8, 5\)"):
        plots.check_drawable((8, 8, 5))


@pytest.mark.parametrize("channels", [1, 3])
def test_traversal_grid_puts_flows_in_rows_and_times_in_columns(channels):
    images = steps_of_grey(2, 3, (8, 8, channels))
    figure = plots.traversal_grid(images, times=[-1, 0, 1], row_labels=["a", "b"], caption="")
    axes = figure.axes[0]
    pixels = axes.images[0].get_array()
    for k, y in enumerate(axes.get_yticks()):
        for t, x in enumerate(axes.get_xticks()):
            np.testing.assert_allclose(pixels[int(y), int(x)], images[k, t, 0, 0, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−1", "0", "1"]


@pytest.mark.parametrize(("times", "start"), [([-2, -1, 0, 1, 2], 2), ([0, 1, 2, 3, 4], 0)])
def test_traversal_grid_outlines_the_start_image(times, start):
    figure = plots.traversal_grid(steps_of_grey(2, 5), times=times, row_labels="ab", caption="")
    axes = figure.axes[0]
    outline = axes.patches[0].get_bbox()
    inside = [outline.x0 < x < outline.x1 for x in axes.get_xticks()]
    assert inside == [i == start for i in range(5)]


@pytest.mark.filterwarnings("error")
def test_png_is_wide_enough_for_labels_and_captions():
    label, caption = "a very long name of a flow " * 3, "Words and more words. " * 20
    figure = plots.traversal_grid(
        steps_of_grey(1, 3), times=[-1, 0, 1], row_labels=[label], caption=caption
    )
    pixels = read_png(figure)
    border = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel()])
    assert (border == 255).all()
    assert (pixels < 128).any()
    assert caption.split() == figure.get_supxlabel().split()


def test_png_of_one_figure_is_the_same_twice():
    rows = [{"step": i, "loss": 1.0 / (1 + i)} for i in range(5)]
    first, second = (plots.png_bytes(plots.loss_curves(rows, caption="c")) for _ in range(2))
    assert first == second


def test_gif_goes_there_and_back():
    images = steps_of_grey(2, 4, (16, 16, 1))
    middles = [frame[40, 40] for frame in frames(plots.traversal_gif(images, row_labels="ab"))]
    expected = 255 * images[0, [0, 1, 2, 3, 2, 1], 0, 0, 0]
    np.testing.assert_allclose(middles, expected, atol=2)


@pytest.mark.parametrize("fps", [5, 20])
def test_gif_keeps_the_asked_pace_and_repeats(fps):
    image = Image.open(io.BytesIO(plots.traversal_gif(steps_of_grey(1, 3), fps=fps)))
    assert image.info["duration"] == 1000 / fps
    assert image.info["loop"] == 0


def test_gif_of_many_flows_and_of_one_time_can_be_read():
    # Labels too long for an image must not widen it.
    gif = plots.traversal_gif(steps_of_grey(8, 1, (28, 28, 3)), row_labels=["x" * 300] * 8)
    (frame,) = frames(gif)
    assert frame.shape[1] < 1200


def test_loss_curves_draw_each_term_on_the_scale_it_needs():
    rows = [{"step": i, "phase": "flow", "fast": 10.0**-i, "signed": i - 2.0} for i in range(5)]
    rows[3]["signed"] = None
    rows.append({"step": 5, "fast": float("nan")})
    fast, signed = (axes for axes in plots.loss_curves(rows, caption="").axes if axes.axison)
    assert (fast.get_title(), fast.get_yscale()) == ("fast", "log")
    assert (signed.get_title(), signed.get_yscale()) == ("signed", "linear")
    np.testing.assert_array_equal(fast.lines[0].get_ydata(), [1, 0.1, 1e-2, 1e-3, 1e-4, np.nan])
    np.testing.assert_array_equal(signed.lines[0].get_ydata(), [-2, -1, 0, np.nan, 2])


def test_running_mean_of_a_constant_is_the_constant_despite_gaps():
    rows = [{"step": i, "loss": None if i % 9 == 0 else 3.0} for i in range(200)]
    _, mean = plots.loss_curves(rows, caption="").axes[0].lines
    np.testing.assert_allclose(mean.get_ydata(), 3.0)


def test_landscape_coordinates_undo_a_slanted_basis():
    origin = jnp.array([1.0, -2.0, 0.5])
    basis = jnp.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    ticks = jnp.linspace(-1, 1, 5)
    point = jnp.array([0.3, -0.7])

    def bowl(t, z):
        """Lowest at the point (0.3, -0.7) of the plane."""
        return t * jnp.sum((z - origin - point @ basis) ** 2)

    values, fields = planes._evaluate([bowl], origin, basis, ticks, jnp.array([0.0, 2.0]))
    a, b = np.meshgrid(ticks, ticks)
    offset = np.stack([a, b], -1) - point
    np.testing.assert_allclose(values[0, 0], 0)
    np.testing.assert_allclose(values[0, 1], 2 * ((offset @ basis) ** 2).sum(-1), atol=1e-5)
    # The gradient of the bowl stays in the plane: 4 (a - a*, b - b*) in its coordinates.
    np.testing.assert_allclose(fields[0, 1], 4 * offset, atol=1e-4)

    data = origin + jnp.array([[0.5, 0.25]]) @ basis
    figure = plots.landscape(
        [bowl],
        origin=origin,
        basis=basis,
        extent=1.0,
        times=[2.0],
        data=data,
        trajectories=[jnp.stack([origin, origin + basis[0]])[None]],
        resolution=11,
        caption="A bowl.",
    )
    shown = [np.stack(line.get_data(), -1) for line in figure.axes[0].lines]
    np.testing.assert_allclose(shown[0], [[0.5, 0.25]], atol=1e-6)
    np.testing.assert_allclose(shown[1], [[0, 0], [1, 0]], atol=1e-6)


def test_landscape_has_a_panel_for_each_potential_and_time():
    def quadratic(t, z):
        return t * jnp.sum(z**2)

    options = {"origin": jnp.zeros(2), "basis": jnp.eye(2), "extent": 1.0, "resolution": 7}
    figure = plots.landscape(
        [quadratic] * 2, times=[0.0, 1.0, 2.0], labels=["a", "b"], caption="", **options
    )
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"{k}, t = {t}" for k in "ab" for t in (0, 1, 2)]
    # Flat at every time: still a figure, without flow lines.
    still = plots.landscape([quadratic], times=[0.0], caption="", **options)
    assert read_png(still).std() > 0


def test_factor_matrix_writes_every_share_legibly():
    shares = np.array([[0.98, 0.02, 0.0], [0.3, 0.2, 0.5]])
    figure = plots.factor_matrix(shares, ["f", "g"], ["x", "y", "size"], "Shares.")
    axes = figure.axes[0]
    shown = {text.get_position(): text for text in axes.texts}
    for (k, f), share in np.ndenumerate(shares):
        assert shown[f, k].get_text() == f"{share:.2f}"
        colour = axes.images[0].cmap(share)[:3]
        contrast = np.dot(np.subtract(colour, to_rgb(shown[f, k].get_color())), [0.3, 0.59, 0.11])
        assert abs(contrast) > 0.4


def test_samples_fill_rows_and_leave_the_rest_white():
    images = np.zeros((5, 4, 4, 1))
    pixels = plots.samples_grid(images, columns=3).axes[0].images[0].get_array()
    assert pixels.shape == (2 * 4 + 1, 3 * 4 + 2, 3)
    assert pixels[-1, -1].min() == 1
    assert (pixels == 0).sum() == 5 * 4 * 4 * 3


def test_reconstructions_stand_under_their_originals():
    originals, decoded = np.zeros((15, 4, 4, 1)), np.full((15, 4, 4, 1), 0.5)
    axes = plots.reconstructions(originals, decoded, "").axes[0]
    first_column = axes.images[0].get_array()[[int(y) for y in axes.get_yticks()], 0, 0]
    np.testing.assert_allclose(first_column, [0, 0.5, 0, 0.5])


def test_figures_do_not_enter_pyplots_global_state():
    from matplotlib import pyplot

    figure = plots.samples_grid(np.zeros((2, 4, 4, 1)))
    assert isinstance(figure, Figure)
    assert pyplot.get_fignums() == []


def bowl(t, z):
    return jnp.sum(z**2)


PLANE = {"origin": jnp.zeros(2), "basis": jnp.eye(2), "extent": 1.0, "times": [0.0], "caption": ""}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plots.traversal_grid(
                steps_of_grey(2, 3), times=[0, 1], row_labels="ab", caption=""
            ),
            "times has 2 entries for 3 columns",
        ),
        (lambda: plots.traversal_gif(steps_of_grey(2, 3), row_labels="a"), "row_labels has 1"),
        (lambda: plots.traversal_gif(steps_of_grey(2, 3), fps=0), "fps must be positive, got 0"),
        (lambda: plots.samples_grid(np.zeros((2, 4, 4, 2))), r"1 or 3 channels.*\(2, 4, 4, 2\)"),
        (lambda: plots.samples_grid(np.zeros((2, 4, 4, 1), np.uint8)), "floating-point.*uint8"),
        (
            lambda: plots.reconstructions(np.zeros((2, 4, 4, 1)), np.zeros((3, 4, 4, 1)), ""),
            r"one shape, got \(2, 4, 4, 1\) and \(3, 4, 4, 1\)",
        ),
        (lambda: plots.scatter({"a": {}}, x="", y="", caption=""), "nothing to draw: no points"),
        (
            lambda: plots.scatter(
                {str(i): {"a": [(0.0, 0.0)]} for i in range(8)}, x="", y="", caption=""
            ),
            "at most 7 methods can be told apart, got 8",
        ),
        (
            lambda: plots.scatter(
                {"a": {str(i): [(0.0, 0.0)] for i in range(8)}}, x="", y="", caption=""
            ),
            "at most 7 kinds can be told apart, got 8",
        ),
        (lambda: plots.loss_curves([{"loss": 1.0}], caption=""), "no row holds a 'step'"),
        (lambda: plots.factor_matrix(np.eye(2), ["a"], ["x", "y"], ""), "row_labels has 1 entries"),
        (lambda: plots.landscape([bowl], **{**PLANE, "basis": jnp.eye(3)}), r"basis \[2, d\]"),
        (lambda: plots.landscape([bowl], **{**PLANE, "basis": jnp.ones((2, 2))}), "independent"),
        (lambda: plots.landscape([], **PLANE), "need a potential and a time, got 0 and 1"),
        (
            lambda: plots.landscape([lambda t, z: bowl(t, z) / t], **PLANE),
            "potential 0 is not finite",
        ),
    ],
)
def test_wrong_inputs_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_latent_maps_show_values_where_they_are():
    figure = plots.latent_maps(
        [lambda z: z[0] + 10 * z[1], lambda z: jnp.log(z[0])],
        low=[-1, -2],
        high=[1, 2],
        titles=["plane", "logarithm"],
        value="height",
        resolution=11,
        caption="",
    )
    plane, logarithm, *bars = figure.axes
    assert (plane.get_title(), logarithm.get_title()) == ("plane", "logarithm")
    assert len(bars) == 2
    image = plane.images[0]
    assert image.get_extent() == [-1, 1, -2, 2]
    x, y = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-2, 2, 11))
    np.testing.assert_allclose(image.get_array(), x + 10 * y, atol=1e-5)
    # What is not finite has no colour, and does not stretch the colours of the rest.
    found = np.ma.masked_invalid(logarithm.images[0].get_array())
    np.testing.assert_array_equal(np.ma.getmaskarray(found), x <= 1e-9)
    assert np.isfinite(logarithm.images[0].get_clim()).all()


def test_latent_maps_draw_every_curve_and_a_colour_a_label():
    points = np.array([[0.0, 0.0], [0.5, 0.5], [-0.5, 0.5]])
    curves = np.stack([points, -points])
    figure = plots.latent_maps(
        [lambda z: z @ z],
        low=[-1, -1],
        high=[1, 1],
        titles=["bowl"],
        value="height",
        data=points,
        labels=[3, 3, 8],
        curves=[{"geodesic": curves, "straight line": curves[:1]}],
        resolution=5,
        caption="",
    )
    axes = figure.axes[0]
    drawn = [line for line in axes.lines if line.get_linewidth() < 2]  # without their rims
    assert len(drawn) == 3
    assert len({tuple(colour) for colour in axes.collections[0].get_facecolors()}) == 2
    assert [text.get_text() for text in figure.legends[0].texts] == ["geodesic", "straight line"]
    np.testing.assert_array_equal(drawn[-1].get_xydata(), curves[1])


def test_latent_maps_reject_what_does_not_fit():
    bowl = {"low": [-1, -1], "high": [1, 1], "value": "", "caption": "", "resolution": 3}
    with pytest.raises(ValueError, match="titles has 2 entries for 1 functions"):
        plots.latent_maps([jnp.sum], titles=["a", "b"], **bowl)
    with pytest.raises(ValueError, match="curves has 2 entries for 1 functions"):
        plots.latent_maps([jnp.sum], titles=["a"], curves=[{}, {}], **bowl)
    with pytest.raises(ValueError, match="low must lie below and left of high"):
        plots.latent_maps([jnp.sum], titles=["a"], **{**bowl, "low": [2, -1]})


def test_strips_mark_no_image():
    figure = plots.strips(
        steps_of_grey(2, 5), row_labels=["a", "b"], axis="along the path", caption=""
    )
    axes = figure.axes[0]
    assert not axes.patches
    assert axes.get_xlabel() == "along the path"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="row_labels has 1 entries for 2 rows"):
        plots.strips(steps_of_grey(2, 5), row_labels=["a"], caption="")


def test_space_curves_are_seen_from_two_sides():
    points = np.random.default_rng(0).random((20, 3))
    curves = {"one": points[None, :5], "two": points[None, 5:10]}
    figure = plots.space_curves(points, curves, caption="")
    assert len(figure.axes) == 2
    assert figure.axes[0].azim != figure.axes[1].azim
    for axes in figure.axes:
        cloud, *lines = axes.lines
        assert len(cloud.get_data_3d()[0]) == 20
        for line, curve in zip(lines, curves.values(), strict=True):
            np.testing.assert_array_equal(np.transpose(line.get_data_3d()), curve[0])
    with pytest.raises(ValueError, match=r"data must be \[n, 3\], got \(20, 2\)"):
        plots.space_curves(points[:, :2], {}, caption="")


def test_methods_have_colours_and_kinds_forms_with_their_means_large():
    ours = {"folded": [(0.4, 0.7), (0.2, 0.9)], "unknown": [], "straight": [(0.8, 0.5)]}
    theirs = {"straight": [(0.8, 0.4)]}
    figure = plots.scatter({"ours": ours, "theirs": theirs}, x="R2", y="share", caption="Two.")
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    large = [line for line in drawn if line.get_markersize() > 5]
    places = [line.get_xydata()[0] for line in large]
    np.testing.assert_allclose(places, [[0.3, 0.8], [0.8, 0.5], [0.8, 0.4]])
    forms, colours = zip(*((each.get_marker(), each.get_color()) for each in large), strict=True)
    assert forms[0] != forms[1] == forms[2]
    assert colours[0] == colours[1] != colours[2]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["ours", "theirs", "folded", "straight"]


def test_a_potential_of_one_number_is_a_curve_with_the_way_of_its_flow():
    valley = lambda t, z: t * z[0] ** 2  # noqa: E731
    path = jnp.linspace(0.5, 1.5, 4)[None, :, None]
    figure = plots.landscape(
        [valley],
        origin=jnp.zeros(1),
        basis=2 * jnp.eye(1),
        extent=1.0,
        times=[1.0, 2.0],
        trajectories=[path],
        resolution=41,
        caption="A valley.",
    )
    for time, axes in zip((1.0, 2.0), figure.axes, strict=True):
        curve, *lines = axes.get_lines()
        a, u = curve.get_data()
        np.testing.assert_allclose(u, time * (2 * a) ** 2, rtol=1e-5)
        up = next(line for line in lines if line.get_marker() == ">").get_xdata()
        down = next(line for line in lines if line.get_marker() == "<").get_xdata()
        assert (up > 0).all()
        assert (down < 0).all()
        assert len(up) == len(down) == 6
    plots.png_bytes(figure)


def test_a_map_of_a_latent_of_one_number_is_a_curve_on_which_paths_lie():
    walk = np.linspace(-0.5, 0.5, 5)[None, :, None]
    figure = plots.latent_maps(
        [lambda z: 3 * z[0]],
        low=[-1.0],
        high=[1.0],
        titles=["slope"],
        value="height",
        data=np.linspace(-1, 1, 6)[:, None],
        labels=[7, 7, 9, 9, 9, 7],
        curves=[{"walk": walk}],
        caption="A slope.",
    )
    curve, path = figure.axes[0].get_lines()
    np.testing.assert_allclose(curve.get_ydata(), 3 * np.asarray(curve.get_xdata()), atol=1e-6)
    np.testing.assert_allclose(path.get_ydata(), 3 * walk[0, :, 0], atol=1e-6)
    plots.png_bytes(figure)


def test_paths_of_vectors_are_lines_coloured_by_place_and_short_ones_bars():
    steps = np.linspace(-1, 1, 5)
    rows = np.array([1.0, -2.0])[:, None, None] * steps[:, None] + np.arange(30.0)
    figure = plots.vector_traversals(rows, places=steps, row_labels=["up", "down"], caption="Two.")
    first, change = figure.axes[:2]
    assert [axes.get_ylabel() for axes in figure.axes[:4:2]] == ["up", "down"]
    assert len(first.lines) == 5
    black = [line for line in first.lines if str(line.get_color()) == "black"]
    np.testing.assert_allclose(black[0].get_ydata(), np.arange(30.0))
    np.testing.assert_allclose(sorted(line.get_ydata()[3] for line in change.lines), steps)
    short = plots.vector_traversals(rows[..., :4], places=steps, row_labels="ab")
    heights = [bar.get_height() for bar in short.axes[0].patches]
    np.testing.assert_allclose(heights, rows[0, :, :4].ravel())
    one = plots.vector_traversals(np.zeros((1, 1)), places=[0.0], row_labels="a")
    assert len(one.axes[0].patches) == 1


def test_a_sequence_shows_one_channel_after_the_other():
    samples = np.arange(40.0).reshape(1, 1, 20, 2)
    figure = plots.vector_traversals(samples, places=[0.0], row_labels="a")
    drawn = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, [*range(0, 40, 2), *range(1, 40, 2)])
    assert "each of 2 channels follow one another" in plots.how_drawn((20, 2))


def test_samples_of_any_shape_have_small_pictures():
    grey = np.full((3, 4, 5, 1), 0.25)
    assert plots.sample_pictures(grey, (4, 5, 1)) is grey
    bands = np.arange(2.0)[:, None, None, None] * np.ones((2, 4, 5, 7)) * 100
    found = plots.sample_pictures(bands, (4, 5, 7))
    assert found.shape == (2, 4, 5, 1)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [0, 1])
    assert plots.sample_pictures(np.ones((2, 4, 5, 7)), (4, 5, 7)).max() == 0
    line = plots.sample_pictures(np.stack([np.zeros(50), np.ones(50)]), (50,))
    assert line.shape == (2, *line.shape[1:3], 3)
    darkest = line.sum(axis=(2, 3)).argmin(axis=1)
    assert darkest[0] > darkest[1], "a larger number is higher up"
    bar = plots.sample_pictures(np.array([[1.0], [np.nan]]), (1,))
    assert bar[0].sum() < bar[1].sum()
    with pytest.raises(ValueError, match=r"\[..., 5\], got \(2, 4\)"):
        plots.sample_pictures(np.zeros((2, 4)), (5,))
    with pytest.raises(ValueError, match="row_labels has 1 entries"):
        plots.vector_traversals(np.zeros((2, 3, 4)), places=range(3), row_labels="a")
    with pytest.raises(ValueError, match="places has 2 entries"):
        plots.vector_traversals(np.zeros((2, 3, 4)), places=range(2), row_labels="ab")
