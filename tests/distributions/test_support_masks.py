"""The density of every NumPyro family is -inf off its support, whatever operation on pytrees the
distribution went through; the gradient there is 0, never NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from numpyro.distributions import constraints
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.numpyro_members import (
    COMPOSITES,
    COUNTS,
    MEMBERS,
    NO_DENSITY,
    REAL_VECTORS,
    REALS,
    SCALARS,
    THREE,
    VECTORS,
    WITH_ATOM,
    member,
)
from tests.lib.oracles import Line
from vaejax.distributions.numpyro import NumPyroDensity


@pytest.fixture(autouse=True)
def ranks_as_numpyro_promotes_them():
    with jax.numpy_rank_promotion("allow"):
        yield


def through_pytrees(p, xs):
    """log p and its gradient at each of xs, of a p that passed jit, vmap and stop_gradient."""
    two = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), NumPyroDensity(p))

    @jax.jit
    def at_each(two, xs):
        stopped = jax.vmap(jax.lax.stop_gradient, axis_size=2)(two)

        def log_prob(x):
            return jax.vmap(lambda q: q.log_prob(x), axis_size=2)(stopped)[1]

        if not jnp.issubdtype(xs.dtype, jnp.inexact):
            return jax.vmap(log_prob)(xs), jnp.zeros_like(xs)
        return jax.vmap(jax.value_and_grad(log_prob))(xs)

    return jax.tree.map(np.asarray, at_each(two, xs))


def test_every_family_of_numpyro_is_listed():
    """One that NumPyro adds has to be listed, and so to pass the tests below."""
    families = {
        kind
        for kind in vars(npd).values()
        if isinstance(kind, type) and issubclass(kind, npd.Distribution)
    }
    listed = {vars(npd)[name] for name in [*MEMBERS, *WITH_ATOM, *NO_DENSITY] if name in vars(npd)}
    assert families - listed == {npd.Distribution}


# x = sinh(pi/2 sinh t): the whole line, with tails like those of a Cauchy. 0 is left out.
T = np.linspace(-3.6, 3.6, 20_000)
LINE = np.sinh(np.pi / 2 * np.sinh(T))
WEIGHTS = np.cosh(np.pi / 2 * np.sinh(T)) * np.pi / 2 * np.cosh(T) * (T[1] - T[0])


SIMILAR = {"BetaProportion", "Chi2", "DoublyTruncatedPowerLaw", "Gompertz", "HalfCauchy"} | {
    "Dagum",
    "HalfNormal",
    "LeftTruncatedGamma",
    "RightTruncatedGamma",
    "TwoSidedTruncatedGamma",
    "Weibull",
}


@pytest.mark.parametrize("name", cases([*SCALARS, *COMPOSITES], slow={*REALS, *SIMILAR}))
def test_a_density_of_one_number_integrates_to_1_over_the_whole_line(name):
    """And what is not a number stays that: masked, it would be -inf, which is an answer."""
    p = member(name)
    xs = jnp.asarray([*LINE, np.nan], jnp.float32)
    values, gradients = through_pytrees(p, xs.reshape(-1, *p.event_shape))
    np.testing.assert_allclose(np.exp(values[:-1]) @ WEIGHTS, 1, atol=4e-3)
    assert np.isnan(values[-1]) or name == "MixtureGeneral"  # which has a mask of its own
    near = np.abs(LINE) < 15  # further out the derivative of a log-density may be infinite
    gradients = gradients.ravel()[:-1][near]
    if name == "TruncatedPolyaGamma":  # whose own density underflows near 0
        gradients = gradients[np.abs(LINE[near]) > 0.02]
    assert np.isfinite(gradients).all()


WHOLE = {"BernoulliLogits", "BinomialProbs", "CategoricalProbs", "DiscreteUniform", "Poisson"} | {
    "HurdleProbs",
    "ZeroInflatedProbs",
}


@pytest.mark.parametrize("name", cases([*COUNTS], slow=COUNTS.keys() - WHOLE))
def test_a_mass_sums_to_1_over_whole_numbers_and_is_0_between_them(x64, name):
    p = member(name)
    whole = jnp.arange(-5, 400)
    values, _ = through_pytrees(p, whole)
    np.testing.assert_allclose(np.exp(values).sum(), 1, atol=1e-6)
    assert (values[:5] == -np.inf).all()
    if not isinstance(p, npd.CategoricalProbs | npd.CategoricalLogits):  # of integers alone
        halves, gradients = through_pytrees(p, jnp.arange(-10, 800) / 2)
        np.testing.assert_allclose(halves[::2], values, rtol=2e-5)
        assert (halves[1::2] == -np.inf).all() and (gradients[1::2] == 0).all()


def perturbed(xs):
    """Points near the samples, of which most are off a support that is not all of R^d."""
    return jnp.concatenate(
        [xs * 1.0, 1.02 * xs, -xs, xs + 0.5, xs.at[..., 0].add(0.3), xs[:, ::-1]]
    )


QUICK = {"Dirichlet", "GaussianCopula", "LKJCholesky", "MultinomialProbs", "ZeroSumNormal"}


@pytest.mark.parametrize("name", cases([*VECTORS], slow=VECTORS.keys() - QUICK))
def test_a_density_of_vectors_is_numpyros_on_the_support_and_0_off_it(name):
    """The truth about the support is a distribution that went through nothing."""
    p = member(name)
    try:
        xs = jax.jit(jax.vmap(p.sample))(jax.random.split(jax.random.key(0), 8))
    except ImportError:  # what NumPyro takes from elsewhere
        xs = jnp.asarray([[0.2, 0.6], [0.0, 1.0]])
    points = perturbed(xs)
    values, gradients = through_pytrees(p, points)
    inside, expected = jax.jit(lambda xs: (p.support(xs * 1.0), p.log_prob(xs)))(points)
    inside = np.asarray(inside)
    if p.support.is_discrete:
        inside = inside & np.asarray((points == jnp.round(points)).all(-1))
    assert inside[: len(xs)].all() and (values[~inside] == -np.inf).all()
    np.testing.assert_allclose(values[inside], expected[inside], rtol=2e-4, atol=2e-4)
    assert np.isfinite(gradients).all() and (gradients[~inside] == 0).all()


@pytest.mark.parametrize(
    "size, dtype", [(2, "bfloat16"), (30, "float16"), (1000, "bfloat16"), (1000, "float32")]
)
def test_points_of_a_simplex_and_a_sphere_pass_as_far_as_their_numbers_go(size, dtype):
    noise = jax.random.normal(jax.random.key(0), (50, size))
    corner = jax.nn.softmax(0.5 * noise.astype(dtype))
    corners = jax.vmap(NumPyroDensity(npd.Dirichlet(jnp.full(size, 1.5))).log_prob)
    assert np.isfinite(corners(corner)).all() and (corners(1.5 * corner) == -np.inf).all()
    length = jnp.linalg.norm(noise[:, :3], axis=-1, keepdims=True)
    direction = (noise[:, :3] / length).astype(dtype)
    directions = jax.vmap(NumPyroDensity(npd.ProjectedNormal(jnp.ones(min(size, 3)))).log_prob)
    assert np.isfinite(directions(direction)).all()
    assert (directions(1.5 * direction) == -np.inf).all()


def test_points_in_float32_pass_in_double_precision(x64):
    x = np.float32([0.1, 0.2, 0.7])
    p = NumPyroDensity(npd.Dirichlet(jnp.asarray(THREE, float)))
    expected = stats.dirichlet(np.asarray(THREE, np.float64)).logpdf([0.1, 0.2, 0.7])
    np.testing.assert_allclose(p.log_prob(np.asarray(x, np.float64)), expected, rtol=1e-6)
    direction = np.float32([0.6, 0.0, 0.8]).astype(np.float64)
    assert np.isfinite(NumPyroDensity(npd.ProjectedNormal(jnp.ones(3))).log_prob(direction))


NAN_AT_INFINITY = ("LowRankMultivariateNormal", "MultivariateNormal")


@pytest.mark.parametrize(
    "name",
    cases(
        [name for name in (*REALS, *REAL_VECTORS) if name not in NAN_AT_INFINITY],
        slow={"GaussianStateSpace", "CAR", "EulerMaruyama"},
    ),
)
def test_where_a_support_is_everything_nothing_is_masked(name):
    """The program is NumPyro's own without its mask; those left out are NaN at infinity there."""
    p = member(name)
    x = jnp.zeros(p.event_shape)
    fresh = jax.tree.unflatten(*jax.tree.flatten(p)[::-1])  # here NumPyro does not validate
    ours = jax.make_jaxpr(lambda p, x: NumPyroDensity(p).log_prob(x))(p, x)
    assert str(ours) == str(jax.make_jaxpr(lambda p, x: p.log_prob(x))(fresh, x))


class Forgetful(npd.Distribution):
    """A user's, whose support is not among its `pytree_data_fields`."""

    pytree_data_fields = ("low",)

    def __init__(self, bound):
        self.low, self._support = bound, constraints.greater_than(bound)
        super().__init__(jnp.shape(bound))

    @property
    def support(self):
        return self._support

    def log_prob(self, value):
        return self.low - value


def test_a_support_that_was_lost_is_missed():
    p = NumPyroDensity(Forgetful(jnp.asarray(1.0)))
    assert p.log_prob(2.0) == -1 and p.log_prob(0.5) == -np.inf
    with pytest.raises(TypeError, match=r"Forgetful lost its support .* `pytree_data_fields`"):
        jax.jit(lambda p: p.log_prob(2.0))(p)


def encoder_of_uniforms(low):
    return NumPyroDensity(npd.Uniform(low, low + 1.0))


def test_a_vamp_prior_of_uniforms_integrates_to_1():
    """It was 15 over these points: each component had the density 1 everywhere."""
    p = vaejax.VampPrior(2)(jnp.asarray([0.0, 5.0]), encoder_of_uniforms)
    xs = jnp.linspace(-4.9995, 10.0005, 15_001)
    log_p = jax.jit(jax.vmap(jax.value_and_grad(p.log_prob)))(xs)[0]
    np.testing.assert_allclose(jnp.exp(log_p).sum() * 1e-3, 1, rtol=2e-3)
    gradient = jax.grad(lambda low: vaejax.VampPrior(2)(low, encoder_of_uniforms).log_prob(3.0))
    np.testing.assert_array_equal(gradient(jnp.asarray([0.0, 5.0])), 0)


def test_nuts_stays_on_the_half_line():
    """A conditioned graph as an argument of a compiled chain: z ~ Exponential(1), x = -1 seen
    through N(z, 1), so that half of the steps try to leave.
    """
    import blackjax

    prior = vaejax.NumPyroPrior(lambda: npd.Exponential(1.0).expand((1,)).to_event(1))
    line = vaejax.Gaussian(Line(), 1.0)
    graph = vaejax.DirectedGraph((vaejax.Node("z", prior), vaejax.Node("x", line, "z")))
    posterior = graph(graph.init(jax.random.key(0))).condition({"x": jnp.asarray([-1.0])})

    @jax.jit
    def chain(posterior, key):
        kernel = blackjax.nuts(
            lambda z: posterior.log_joint({"z": z}), step_size=0.7, inverse_mass_matrix=jnp.ones(1)
        )

        def step(state, key):
            state, _ = kernel.step(key, state)
            return state, state.position

        return jax.lax.scan(step, kernel.init(jnp.ones(1)), jax.random.split(key, 2_000))[1]

    zs = np.asarray(chain(posterior, jax.random.key(1)))[:, 0]
    exact = stats.truncnorm(2, np.inf, loc=-2)  # exp(-z) N(-1; z, 1) is N(z; -2, 1) on z > 0
    assert zs.min() > 0
    np.testing.assert_allclose(zs.mean(), exact.mean(), atol=0.1)
