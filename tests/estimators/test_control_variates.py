"""Estimators for binary latents: against enumeration, and against closed forms for one Bernoulli
variable.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.binary import MODEL, NET, PARAMS, X, gradients, with_psi
from tests.lib.cases import cases
from tests.lib.oracles import assert_mean
from vaejax.estimators.binary_layers import above_zero, logit
from vaejax.estimators.control_variates import double_control_variate_gradient, rebar_gradient
from vaejax.estimators.disarm import disarm_gradient

UNBIASED = {
    "score function": vaejax.ScoreFunction(2),
    "DisARM": vaejax.DisARM(2),
    "DisARM, two pairs": vaejax.DisARM(4),
    "double control variate": vaejax.DoubleControlVariate(3, coefficient=0.7),
    "double control variate, learned": vaejax.DoubleControlVariate(2),
    "REBAR": vaejax.REBAR(),
    "RELAX": vaejax.RELAX(NET(1), num_samples=2),
    "optimal constant": vaejax.OptimalConstant(),
}


@pytest.mark.parametrize(
    "estimator", cases(UNBIASED, slow=("score function", "DisARM, two pairs", "optimal constant"))
)
def test_unbiased_for_the_exact_gradient(estimator):
    """In every parameter of prior, likelihood and encoder, and the value for the ELBO."""
    exact_value, exact = (leaf[0] for leaf in gradients(vaejax.Enumerate(), 1))
    assert np.abs(exact).max() > 0.5
    values, draws = gradients(estimator, 60_000)
    assert_mean(values, exact_value, detectable=0.1)
    assert_mean(draws, exact, detectable=0.15)


# One Bernoulli variable with p = 0.3, f(0) = 1.7, f(1) = -0.4: the exact gradient is p (1 - p)
# (f(1) - f(0)) = -0.441.
P, F0, F1 = 0.3, 1.7, -0.4
LOGIT = np.log(P / (1 - P))


def f_of_one(b):
    return jnp.sum(F0 + (F1 - F0) * b)


def uniform_nodes(num_nodes=400, breaks=(0.0, 0.3, 0.7, 1.0)):
    """Midpoints, whose cells end where an estimator may jump, and weights."""
    nodes, weights = [], []
    for low, high in itertools.pairwise(breaks):
        edges = np.linspace(low, high, num_nodes + 1)
        nodes.append((edges[1:] + edges[:-1]) / 2)
        weights.append(np.diff(edges))
    return np.concatenate(nodes), np.concatenate(weights)


def disarm(f, logits, u):
    """The estimate from the pair of the uniform numbers u."""
    b, opposite = above_zero(logits + logit(u)), above_zero(logits - logit(u))
    return disarm_gradient(f(b) - f(opposite), logits, u)


def test_disarm_exactly(x64):
    u, weights = uniform_nodes(1)
    gradient = jax.vmap(lambda u: disarm(f_of_one, jnp.asarray([LOGIT]), u[None])[0])
    g = np.asarray(gradient(jnp.asarray(u)))
    mean = weights @ g
    np.testing.assert_allclose(
        [mean, weights @ (g - mean) ** 2],
        [-0.441, P * (1 - P) * (F1 - F0) ** 2 * (0.7 / 2 - P * (1 - P))],
        rtol=1e-12,
    )
    np.testing.assert_allclose(weights @ (g - mean) ** 2, 0.129654, rtol=1e-6)


def test_disarm_loses_to_leaving_one_out_with_two_latents(x64):
    """p = (0.1, 0.5), f(b) = b_2, the gradient of the first coordinate, which is 0: variance 0.0405
    against 0.0225.
    """
    logits = jnp.log(jnp.asarray([0.1, 0.5]) / jnp.asarray([0.9, 0.5]))
    first, first_weights = uniform_nodes(1, (0.0, 0.1, 0.9, 1.0))
    second, second_weights = uniform_nodes(1, (0.0, 0.5, 1.0))
    us = jnp.asarray(list(itertools.product(first, second)))
    weights = np.array([a * b for a, b in itertools.product(first_weights, second_weights)])
    g = np.asarray(jax.jit(jax.vmap(lambda u: disarm(lambda b: b[1], logits, u)[0]))(us))
    np.testing.assert_allclose([weights @ g, weights @ g**2], [0, 0.0405], atol=1e-12)


def enumerated(estimate, num_samples=2, p=np.array([P])):
    """Exact mean and variance over all K-tuples of states."""
    states = [np.array(state) for state in itertools.product([0.0, 1.0], repeat=len(p))]
    tuples = list(itertools.product(states, repeat=num_samples))
    weights = np.array(
        [np.prod([np.prod(np.where(b == 1, p, 1 - p)) for b in bs]) for bs in tuples]
    )
    g = np.asarray(jax.jit(jax.vmap(estimate))(jnp.asarray(np.array(tuples))))
    mean = weights @ g
    return mean, weights @ (g - mean) ** 2


def test_the_double_control_variate_exactly(x64):
    """At a = 0 it is leave-one-out; at a = -1 a linear f has no variance left; for any a the mean
    is the exact one, at K = 2 and 3.
    """
    logits = jnp.asarray([LOGIT])
    mean, variance = enumerated(
        lambda bs: double_control_variate_gradient(f_of_one, logits, bs, 0.0)
    )
    np.testing.assert_allclose([mean[0], variance[0]], [-0.441, 0.268569], rtol=1e-5)
    for num_samples, a in ((2, 0.8), (3, -1.3), (2, -1.0)):
        mean, variance = enumerated(
            lambda bs, a=a: double_control_variate_gradient(f_of_one, logits, bs, a), num_samples
        )
        np.testing.assert_allclose(mean[0], -0.441, rtol=1e-10)
        assert (variance[0] < 1e-20) == (a == -1.0)


def test_the_toy_of_two_hundred_latents(x64):
    """f(b) = mean (b - 0.499)^2: the exact gradient, p (1 - p) ((1 - t)^2 - t^2) / D, whatever the
    coefficient.
    """
    dim, t = 200, 0.499
    p = np.linspace(0.2, 0.8, dim)
    logits = jnp.asarray(np.log(p / (1 - p)))
    bs = jax.random.bernoulli(
        jax.random.key(0), jnp.asarray(p)[None, None], (4_000, 2, dim)
    ).astype(jnp.float64)
    exact = p * (1 - p) * ((1 - t) ** 2 - t**2) / dim
    for a, detectable in ((0.0, 1e-5), (0.3, 1e-3)):
        g = jax.vmap(
            lambda b, a=a: double_control_variate_gradient(
                lambda b: jnp.mean((b - t) ** 2), logits, b, a
            )
        )(bs)
        assert_mean(g, exact, detectable)


@pytest.mark.parametrize(
    "temperature, eta",
    [
        (1.3, 0.6),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in ((0.5, 1.0), (0.5, 0.0))),
    ],
)
def test_rebar_by_quadrature_is_unbiased(x64, temperature, eta):
    """Over the uniform number of one Bernoulli variable, for a quadratic f, whose relaxation is not
    its own.
    """

    def f(b):
        return jnp.sum((b - 0.499) ** 2)

    def control(z):
        return eta * f(jax.nn.sigmoid(z / temperature))

    def estimate(u):
        b = above_zero(LOGIT + logit(u))
        return rebar_gradient(f(b), control, jnp.asarray([LOGIT]), u[None])[0]

    nodes, weights = uniform_nodes(4_000)
    g = np.asarray(jax.jit(jax.vmap(estimate))(jnp.asarray(nodes)))
    exact = P * (1 - P) * ((1 - 0.499) ** 2 - 0.499**2)
    np.testing.assert_allclose(weights @ g, exact, atol=2e-7)
    if eta == 0:  # the score function alone
        plain = P * (1 - P) * ((1 - P) * f(jnp.ones(1)) + P * f(jnp.zeros(1))) ** 2
        np.testing.assert_allclose(weights @ (g - exact) ** 2, plain, rtol=1e-6)


LEARNING = {
    "double control variate": vaejax.DoubleControlVariate(2),
    "REBAR": vaejax.REBAR(),
    "RELAX": vaejax.RELAX(NET(1)),
}


@pytest.mark.parametrize("estimator", cases(LEARNING, slow=("RELAX",)))
def test_psi_learns_to_reduce_the_variance(estimator):
    """Its gradient is that of minus half the square of the logits' gradient, by finite differences
    at the same noise: so ascent on the objective descends the variance.
    """
    params, keys = with_psi(estimator), jax.random.split(jax.random.key(5), 8)
    flat, unravel = ravel_pytree(params.psi)
    flat = flat + 0.1

    @jax.jit
    def of_psi(flat):
        """The gradient in psi, and half the square of that in the output bias of the encoder, which
        is the logits'.
        """

        def gradient(key):
            return jax.grad(lambda p: estimator(MODEL, p, X, key))(
                params._replace(psi=unravel(flat))
            )

        gradients = jax.vmap(gradient)(keys)
        in_psi = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients.psi)
        bias = gradients.phi["params"]["Dense_1"]["bias"]
        return ravel_pytree(in_psi)[0], 0.5 * jnp.mean(jnp.sum(bias**2, axis=-1))

    direction = jax.random.normal(jax.random.key(6), flat.shape)
    step = 1e-2 * direction
    numeric = (of_psi(flat + step)[1] - of_psi(flat - step)[1]) / 2e-2
    assert abs(numeric) > 0.01
    np.testing.assert_allclose(jnp.vdot(of_psi(flat)[0], direction), -numeric, rtol=0.02, atol=2e-3)


def test_the_controls_are_their_formulas():
    """c(z) = eta f(sigmoid(z / T)), and RELAX's with its net of (x, z)."""
    z, net = jnp.asarray([0.7, -1.2, 0.1]), NET(1)
    psi = {"eta": jnp.asarray(0.6), "log_temperature": jnp.log(0.25)}
    relaxed = lambda z, temperature: jnp.sum((jax.nn.sigmoid(z / temperature) - 0.3) ** 2)  # noqa: E731
    expected = 0.6 * jnp.sum((jax.nn.sigmoid(z / 0.25) - 0.3) ** 2)
    np.testing.assert_allclose(vaejax.REBAR().control(psi, relaxed, (X,))(z), expected, rtol=1e-5)
    of_net = net.init(jax.random.key(1), (X, z))
    control = vaejax.RELAX(net).control({**psi, "net": of_net}, relaxed, (X,))(z)
    np.testing.assert_allclose(control, expected + net.apply(of_net, (X, z))[0], rtol=1e-5)


def test_the_double_control_variate_of_two_latents_by_enumeration(x64):
    """Of a cost that is not linear and mixes them: the mean is the exact gradient, whatever a."""
    p = np.array([0.3, 0.6])

    def f(b):
        return 1.7 * b[0] - 0.4 * b[1] + 2.0 * b[0] * b[1] ** 2

    def total(logits):
        p = jax.nn.sigmoid(logits)
        states = itertools.product([0.0, 1.0], repeat=2)
        return sum(
            jnp.prod(jnp.where(jnp.asarray(b) == 1, p, 1 - p)) * f(jnp.asarray(b)) for b in states
        )

    logits = jnp.asarray(np.log(p / (1 - p)))
    for num_samples, a in ((2, 0.8), (3, -1.3)):
        mean, _ = enumerated(
            lambda bs, a=a: double_control_variate_gradient(f, logits, bs, a), num_samples, p
        )
        np.testing.assert_allclose(mean, jax.grad(total)(logits), rtol=1e-9)


def test_rebar_where_a_probability_rounds_to_one():
    """b = 1 against the odds, and latents that are certain: no weight is 0/0."""
    logits = jnp.asarray([-10.0, 10.0, -100.0, 100.0])
    u = jnp.asarray([1 - 1e-5, 1e-5, 0.5, 0.5])
    assert above_zero(logits + logit(u)).tolist() == [1, 0, 0, 1]
    estimate = rebar_gradient(1.3, lambda z: jnp.sum(jax.nn.sigmoid(2 * z)), logits, u)
    assert np.isfinite(estimate).all()


REFUSED = {
    "odd": (
        lambda: vaejax.DisARM(3),
        ValueError,
        "DisARM.num_samples = 3, but its samples come in pairs",
    ),
    "one": (
        lambda: vaejax.DoubleControlVariate(1),
        ValueError,
        "DoubleControlVariate.num_samples = 1; .* at least 2",
    ),
    "no psi": (
        lambda: vaejax.REBAR()(MODEL, PARAMS, X, jax.random.key(0)),
        ValueError,
        r"REBAR learns its control: params._replace\(psi=",
    ),
    "continuous": (
        lambda: continuous(),
        TypeError,
        "DisARM is for a q that is Bernoulli, .* DiagNormal; use vaejax.ScoreFunction",
    ),
    "pathwise": (
        lambda: vaejax.Pathwise()(MODEL, PARAMS, X, jax.random.key(0)),
        TypeError,
        "those of Bernoulli do not move smoothly .* use ScoreFunction, .*Enumerate, DisARM, REBAR",
    ),
}


def continuous():
    model = vaejax.VAE(
        vaejax.StandardNormal(3), MODEL.likelihood, vaejax.DiagNormal(NET(3, heads=2))
    )
    return vaejax.DisARM()(model, model.init(jax.random.key(0), X), X, jax.random.key(0))


@pytest.mark.parametrize("call, kind, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
