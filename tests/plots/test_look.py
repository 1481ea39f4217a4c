"""The look of every picture."""

import numpy as np

from vaejax.plots.look import bare, figure_of, finish, legend, save, shared_legend, ticks_at


def test_panels_are_a_table_and_finished_alike(tmp_path):
    figure, panels = figure_of(2, 3, size=(6, 4), sharey=True)
    assert panels.shape == (2, 3) and tuple(figure.get_size_inches()) == (6, 4)
    for axes in panels.flat:
        axes.plot([1, 2], [3, 4], label="line")
        finish(axes, grid=True, xlabel="x", xscale="log")
        assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
        assert axes.get_xlabel() == "x" and axes.get_xscale() == "log"
    save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1_000


def test_legends_have_no_frame_and_each_label_once():
    figure, [[left, right]] = figure_of(columns=2)
    for axes in (left, right):
        axes.plot([1, 2], [3, 4], label="both")
    right.plot([1, 2], [3, 5], label="right")
    legend(left, "upper left")
    shared_legend(figure, [left, right], ncols=2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["both", "right"]
    assert not figure.legends[0].get_frame_on() and not left.get_legend().get_frame_on()


def test_ticks_are_where_they_are_asked_for():
    _, [[axes]] = figure_of()
    axes.plot([1, 100], [1, 2])
    axes.set(xscale="log")
    ticks_at(axes, [1, 30], "{:,}")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "30"]
    assert len(axes.get_xticks(minor=True)) == 0
    bare(axes)
    assert len(axes.get_xticks()) == 0 and not np.any(
        [s.get_visible() for s in axes.spines.values()]
    )
