"""Samples of densities whose parameters lie on a mesh with explicit axes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vaejax.distributions.numpyro import NumPyroDensity


@pytest.mark.parametrize(
    "family",
    [
        lambda a: npd.Gamma(a, 2.0).to_event(1),
        lambda a: npd.Beta(a, 2 * a).to_event(1),
        lambda a: npd.InverseGamma(a, 2.0).to_event(1),
        npd.Dirichlet,
    ],
    ids=["gamma", "beta", "inverse gamma", "dirichlet"],
)
def test_samples_on_explicit_axes(family):
    """Where JAX knows no derivative of a gamma variable."""

    @jax.jit
    @jax.grad
    def gradient(shapes, keys):
        def log_q(a, key):
            return NumPyroDensity(family(a)).sample_and_log_prob(key)[1]

        return jnp.mean(jax.vmap(log_q)(shapes, keys))

    shapes, keys = jnp.linspace(0.3, 4, 8).reshape(4, 2), jax.random.split(jax.random.key(0), 4)
    mesh = Mesh(np.array(jax.devices()[:2]), "data", axis_types=(AxisType.Explicit,))
    split = jax.device_put((shapes, keys), NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(gradient(*split), gradient(shapes, keys), rtol=1e-5, atol=1e-6)
