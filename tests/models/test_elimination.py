"""Variable elimination."""

import jax.numpy as jnp
import numpy as np

from vaejax.models.elimination import eliminate


def test_elimination_makes_small_tables():
    """Twenty binary variables in a chain have a million states, and no table of more than two of
    them.
    """
    tables = [((str(t), str(t + 1)), jnp.full((2, 2), -0.7 * t)) for t in range(40)]
    scope, total = eliminate(tables, [str(t) for t in range(41)])
    assert scope == ()
    np.testing.assert_allclose(total, 41 * np.log(2) - 0.7 * sum(range(40)), rtol=1e-6)
