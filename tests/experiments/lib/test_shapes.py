"""Images of known factors."""

import numpy as np
import pytest

from experiments.lib.shapes import ellipses


def test_the_factors_of_ellipses_are_seen():
    """The centre of mass is the stated one, to a tenth of a pixel, and a size above is larger."""
    factors = np.array([[0.2, 0.7, 0.3, 0.5], [0.2, 0.7, 0.9, 0.5]])
    small, large = ellipses(factors).astype(float)
    grid = np.arange(16) + 0.5
    assert np.average(grid, weights=small.sum(0)) == pytest.approx(16 * 0.35, abs=0.1)
    assert np.average(grid, weights=small.sum(1)) == pytest.approx(16 * 0.6, abs=0.1)
    assert large.sum() > 1.5 * small.sum()
