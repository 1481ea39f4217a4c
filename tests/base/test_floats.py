"""The dtype of densities, and sums of logarithms some of which are -inf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from vaejax.base.floats import full_dtype, log_sum_exp, times_log, widened, without_half

INF = jnp.inf


@pytest.mark.parametrize("x64", [False, True])
def test_the_widest_float_and_float32_at_least(x64):
    small = [np.uint8(3), True, 7, jnp.zeros(2, jnp.bfloat16), np.zeros(2, np.float16)]
    with jax.enable_x64(x64):
        assert full_dtype(*small) == full_dtype(0.5) == jnp.float32
        assert full_dtype(np.zeros(2), *small) == (jnp.float64 if x64 else jnp.float32)
        assert full_dtype(0.5, jnp.zeros(2, jnp.float32)) == jnp.float32  # a number of Python's


def test_what_is_widened():
    wide = jnp.zeros(2), np.zeros(2), jax.random.key(0), None, "a", 3
    assert all(widened(leaf) is leaf and without_half(leaf) is leaf for leaf in wide)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.uint8, jnp.bool_):
        assert widened(jnp.ones(2, dtype)).dtype == jnp.float32
    assert without_half(jnp.ones(2, jnp.int8)).dtype == jnp.int8
    assert without_half(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    tangent = np.zeros(2, jax.dtypes.float0)
    assert widened(tangent) is tangent


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_log_sum_exp_is_jaxs_and_has_a_gradient_where_all_is_minus_infinity(axis):
    x = jnp.asarray([[0.3, -INF, 1.0], [2.0, -INF, -50.0], [1e4, -INF, -1e4]])
    both = [
        jax.value_and_grad(lambda x, f=f: jnp.sum(jnp.exp(f(x, axis=axis) / 1e4)))(x)
        for f in (log_sum_exp, logsumexp)
    ]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-6)
    assert np.isfinite(both[0][1]).all()
    if axis != 0:  # JAX's gradient of a column of -inf is NaN
        np.testing.assert_allclose(both[0][1], both[1][1], rtol=1e-5)
    assert log_sum_exp(jnp.full(3, -INF)) == -INF


def test_what_is_impossible_and_did_not_happen_is_worth_0():
    x, log_p = jnp.asarray([0.0, 1.0, 0.0, 0.5]), jnp.asarray([-INF, -INF, -2.0, -2.0])
    assert times_log(x, log_p).tolist() == [0, -INF, 0, -1]
    x, likely = jnp.asarray([0.0, 0.0, 0.5]), jnp.asarray([-INF, -2.0, -2.0])
    slopes = jax.grad(lambda x, l: jnp.sum(times_log(x, l)), argnums=(0, 1))(x, likely)
    assert [slope.tolist() for slope in slopes] == [[0, -2, -2], [0, 0, 0.5]]
