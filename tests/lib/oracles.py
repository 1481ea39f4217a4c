"""Exact answers: the linear-Gaussian model in closed form, Gauss-Hermite quadrature over the noise,
calibrated tests of samples.

The model is p(z) = N(0, 1), p(x|z) = N(w z + b, tau^2), q = N(mu, s^2), built from the library's
own components around two nets of a line each. With lam = 1 + w^2/tau^2 and m = w (x - b)/(tau^2
lam), the posterior is N(m, 1/lam), and

    ELBO = log p(x) - (lam s^2 + lam d^2 - 1 - log(lam s^2))/2,    d = mu - m,
    log p(x) = log N(x; b, w^2 + tau^2).
"""

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from tests.lib.given_keys import key_of_normals


@vaejax.component
class Line:
    """x -> w x + b, one number in and out."""

    def init(self, key, example):
        return {"w": jnp.ones(()), "b": jnp.zeros(())}

    def apply(self, params, z):
        return params["w"] * z + params["b"]


@dataclass(frozen=True)
class LinearGaussian:
    """Numbers of one such model and the closed forms at them. The defaults are the frozen point of
    the tables below.
    """

    w: float = 1.3
    b: float = 0.2
    tau: float = 0.8
    x: float = 1.1
    mu: float = 0.4
    s: float = 0.6

    @property
    def model(self):
        likelihood = vaejax.Gaussian(Line(), scale=self.tau)
        return vaejax.VAE(
            vaejax.StandardNormal(1),
            likelihood,
            vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None),
        )

    @property
    def params(self):
        theta = {
            "prior": (),
            "likelihood": {"net": {"w": jnp.asarray(self.w), "b": jnp.asarray(self.b)}},
        }
        return vaejax.Params(
            theta, {"loc": jnp.asarray([self.mu]), "log_scale": jnp.log(jnp.asarray([self.s]))}
        )

    @property
    def datum(self):
        return jnp.asarray([self.x])

    @property
    def lam(self):
        return 1 + self.w**2 / self.tau**2

    @property
    def posterior_mean(self):
        return self.w * (self.x - self.b) / (self.tau**2 * self.lam)

    @property
    def d(self):
        return self.mu - self.posterior_mean

    @property
    def log_marginal(self):
        variance = self.w**2 + self.tau**2
        return -0.5 * (np.log(2 * np.pi * variance) + (self.x - self.b) ** 2 / variance)

    @property
    def kl_to_posterior(self):
        return 0.5 * (
            self.lam * self.s**2 + self.lam * self.d**2 - 1 - np.log(self.lam * self.s**2)
        )

    @property
    def elbo(self):
        return self.log_marginal - self.kl_to_posterior

    @property
    def weight_second_moment(self):
        """E_q[(w/p(x))^2], for 2 s^2 > 1/lam."""
        v = 2 * self.s**2 - 1 / self.lam
        return self.lam**0.5 * self.s**2 / v**0.5 * np.exp(self.d**2 / v)

    @property
    def elbo_gradient(self):
        """d ELBO / d (mu, rho, w), rho = log s."""
        d_w = ((self.x - self.b) * self.mu - self.w * (self.mu**2 + self.s**2)) / self.tau**2
        return np.array([-self.lam * self.d, 1 - self.lam * self.s**2, d_w])

    def at_posterior(self):
        return LinearGaussian(self.w, self.b, self.tau, self.x, self.posterior_mean, self.lam**-0.5)


def gradient_vector(params_gradient):
    """(mu, rho, w) of a gradient with respect to Params."""
    theta, phi, _ = params_gradient
    return jnp.stack([phi["loc"][0], phi["log_scale"][0], theta["likelihood"]["net"]["w"]])


def gauss_hermite(num_nodes, dim=1):
    """Nodes [n^dim, dim] and weights [n^dim] for an expectation over N(0, I)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = weights / weights.sum()
    grid = np.array(list(itertools.product(nodes, repeat=dim)))
    return jnp.asarray(grid), jnp.asarray(
        np.prod(list(itertools.product(weights, repeat=dim)), axis=1)
    )


def exact_moments(
    estimator,
    oracle,
    num_samples=1,
    num_nodes=60,
    model=None,
    params=None,
    vector=gradient_vector,
    x=None,
    noise_shape=(1,),
):
    """Exact mean of the value, and exact mean and variance of the gradient in (mu, rho, w), of an
    estimator: no sampling.

    The estimator runs as it stands, under keys that hold their noise, at every node of a tensor
    Gauss-Hermite rule over its K draws of `noise_shape`, (2, 1) for two layers of one number.
    """
    model, params = model or oracle.model, params or oracle.params
    x = oracle.datum if x is None else x
    noise, weights = gauss_hermite(num_nodes, num_samples * math.prod(noise_shape))
    value_and_gradient = jax.value_and_grad(
        lambda p, noise: estimator(model, p, x, key_of_normals(noise))
    )

    @jax.jit
    def moments(params, noise, weights):
        values, gradients = jax.vmap(value_and_gradient, (None, 0))(params, noise)
        gradients = jax.vmap(vector)(gradients)
        mean = weights @ gradients
        return weights @ values, mean, weights @ (gradients - mean[None]) ** 2

    return moments(params, noise, weights)


FALSE_ALARM = 1e-6
Z = 4.8916  # two-sided normal quantile of FALSE_ALARM
Z_POWER = 2.3263  # a bias of (Z + Z_POWER) standard errors is caught 99 times in 100


def assert_mean(samples, expected, detectable):
    """E[samples] = expected, with false-alarm rate 1e-6, and power: a bias of `detectable` would be
    caught in 99 % of runs.
    """
    samples = np.asarray(samples, np.float64)
    standard_error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    caught = (Z + Z_POWER) * standard_error
    assert np.all(caught <= detectable), (
        f"only a bias of {caught} would be caught, not one of {detectable}"
    )
    error = np.abs(samples.mean(axis=0) - expected)
    assert np.all(error <= Z * standard_error), (
        f"{samples.mean(axis=0)} is {error / standard_error} standard errors from {expected}"
    )


def assert_distributed(samples, cdf):
    """Samples follow the cdf: Dvoretzky-Kiefer-Wolfowitz with false-alarm rate 1e-6, for any n and
    any cdf.

    With 40,000 samples a cdf that is off by 0.027 anywhere is caught in 99 % of runs (a scale wrong
    by 1.12, for instance).
    """
    samples = np.sort(np.asarray(samples, np.float64).ravel())
    n = len(samples)
    assert n >= 40_000, "too few samples for the stated power"
    expected = cdf(samples)
    distance = max(np.max(np.arange(1, n + 1) / n - expected), np.max(expected - np.arange(n) / n))
    assert distance <= np.sqrt(np.log(2 / FALSE_ALARM) / (2 * n)), f"the cdf is off by {distance}"
