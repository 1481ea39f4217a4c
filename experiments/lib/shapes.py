"""Images whose factors are known: ellipses."""

import numpy as np

FACTORS = ("x", "y", "size", "elongation")
SIDE = 16  # pixels


def ellipses(factors: np.ndarray, size: int = SIDE) -> np.ndarray:
    """Soft-edged images [n, size, size], 0..255, of factors [n, 4] in [0, 1]: x, y, size and
    elongation, from wide to tall.

    The centre moves over the middle half, the radius is from 0.11 to 0.24 of the side, and the axes
    are the radius times e and over e, with log e from 0.5 to -0.5.
    """
    x, y, radius, elongation = (column[:, None, None] for column in factors.T)
    grid = np.arange(size) + 0.5
    radius, stretch = size * (0.11 + 0.13 * radius), np.exp(0.5 - elongation)
    across = (grid[None, None] - size * (0.25 + 0.5 * x)) / stretch
    down = (grid[None, :, None] - size * (0.25 + 0.5 * y)) * stretch
    # In pixels, from the edge inwards, but for the stretch.
    distance = radius - np.hypot(across, down)
    return np.round(255 / (1 + np.exp(-3 * distance))).astype(np.uint8)
