"""Pictures of a training."""

import numpy as np
import pytest

from vaejax import plots
from vaejax.training.run import NO_HISTORY


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


def test_a_run_of_no_step_has_no_curve():
    with pytest.raises(ValueError, match="no step yet; train first"):
        plots.curves(NO_HISTORY)
