"""Pictures of a training."""

import numpy as np

from vaejax import plots


def test_curves():
    history = {
        "bound": np.linspace(-100, -80, 500),
        "validation_step": np.array([250, 500]),
        "validation_bound": np.array([-91.0, -83.0]),
    }
    assert len(plots.curves(history).axes[0].lines) == 3
    plots.curves(
        {
            "bound": np.array([-3.0]),
            "validation_step": np.zeros(0, int),
            "validation_bound": np.zeros(0),
        }
    )
