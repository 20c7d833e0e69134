"""Pictures at the end of a run: each is saved when it is made, and none takes others along."""

import errno

import pytest
from matplotlib.figure import Figure

from experiments.runtime import tables
from experiments.runtime.run_dir import Folder


def broken():
    raise ValueError("not enough values\nto unpack")


def test_a_figure_that_fails_is_a_line_and_the_others_are_saved(tmp_path, capsys):
    folder = Folder(tmp_path)

    def second():
        assert (tmp_path / "first.png").exists(), "saved before the next is drawn"
        return Figure()

    figures = {"first": Figure, "broken": broken, "second": second}
    failed = tables.save_figures(folder, figures)
    assert failed == ["broken.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first.png", "second.png"]
    assert capsys.readouterr().err == (
        "error: broken.png could not be drawn (ValueError: not enough values to unpack)\n"
    )
    assert tables.where(folder, failed) == 1
    assert tables.where(folder) is None


def test_a_full_disk_is_not_the_fault_of_a_figure(tmp_path):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        tables.save_figures(Folder(tmp_path), {"figure": full})
