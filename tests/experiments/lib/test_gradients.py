"""Rows of measured gradients, and the steps at which they are measured."""

from experiments.lib.gradients import measured_steps, where


def test_rows_and_steps():
    rows = [{"step": step, "name": name} for step in (0, 4) for name in "ab"]
    assert where(rows, step=4) == rows[2:] and where(rows, step=4, name="a") == [rows[2]]
    assert measured_steps((1.0, 0.0, 0.5, 0.001), 8) == [0, 4, 8]
