"""What products of matrices in TF32 do to bounds, evaluations and gradients: the accelerator's
default precision for float32 against float32 itself, `jax_default_matmul_precision` "highest".

TF32 keeps 10 bits of each factor, so a product is off by about 3e-4. Here is what becomes of it.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from workloads import WORKLOADS, binary_images, objective_of

import vaejax

Row = dict[str, Any]
PRECISIONS = "default", "highest"
# Estimators against closed forms, quadrature and enumeration.
TESTS = [
    "tests/test_bounds.py",
    "tests/estimators/test_pathwise.py",
    "tests/estimators/test_doubly_reparameterised.py",
    "tests/estimators/test_score_function.py",
    "tests/evaluation/test_evaluate.py",
    "tests/networks/test_precision.py",
]
TEST_SECONDS = 120


def truth(shrink: int) -> Iterator[Row]:
    """Against a closed form; then of W2 and W4 after a short training, both precisions with the
    same noise.
    """
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            yield {"case": f"log p(x) in closed form, {precision}", **error_of_log_marginal()}
    for name in ("W2", "W4"):
        yield {"case": f"{name}, default - highest", **differences(name, shrink)}


@vaejax.component
class Linear:
    """x -> heads of matrix @ x + bias, the matrices and biases given as parameters."""

    def init(self, key, example):
        raise NotImplementedError

    def apply(self, params, given):
        heads = [matrix @ given + bias for matrix, bias in params]
        return heads[0] if len(heads) == 1 else tuple(heads)


def error_of_log_marginal(dim: int = 784, latent_dim: int = 20, count: int = 100) -> Row:
    """log w - log p(x), nats, of a linear Gaussian model at its exact posterior, where log w is log
    p(x) whatever z is.

    p(z) = N(0, I), p(x|z) = N(U S z, t^2 I) with U'U = I, so the posterior has the diagonal
    covariance t^2/(t^2 + s^2) and the mean s/(t^2 + s^2) U'x. In float64 by NumPy:

        log p(x) = -1/2 [d log 2 pi t^2 + sum log(1 + s^2/t^2) + (|x|^2 - sum a (U'x)^2)/t^2],

    a = s^2/(t^2 + s^2).
    """
    generator, t = np.random.default_rng(0), 0.5
    u, _ = np.linalg.qr(generator.normal(size=(dim, latent_dim)))
    s = np.linspace(0.5, 5.0, latent_dim)
    x = (generator.normal(size=(count, latent_dim)) * s) @ u.T
    x = (x + t * generator.normal(size=x.shape)).astype(np.float32)
    wide = x.astype(np.float64)
    explained = np.sum(s**2 / (t**2 + s**2) * (wide @ u) ** 2, -1)
    exact = -0.5 * (
        dim * math.log(2 * math.pi * t**2)
        + np.sum(np.log1p((s / t) ** 2))
        + (np.sum(wide**2, -1) - explained) / t**2
    )
    scale = np.sqrt(t**2 / (t**2 + s**2))
    zeros = np.zeros(latent_dim)
    theta = {"prior": (), "likelihood": {"net": [(u * s, np.zeros(dim))]}}
    encoder = [((u * s / (t**2 + s**2)).T, zeros), (np.zeros((latent_dim, dim)), np.log(scale))]
    params = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), vaejax.Params(theta, encoder))
    model = vaejax.VAE(
        vaejax.StandardNormal(latent_dim),
        vaejax.Gaussian(Linear(), scale=t),
        vaejax.DiagNormal(Linear(), max_log_scale=None),
    )
    keys = jax.random.split(jax.random.key(0), count)
    bounds = jax.jit(jax.vmap(partial(vaejax.elbo, model), (None, 0, 0)))(params, x, keys)
    return summary(np.asarray(bounds, np.float64) - exact) | {"log_marginal": float(exact.mean())}


def summary(difference: np.ndarray) -> Row:
    return {"mean": float(difference.mean()), "largest": float(np.abs(difference).max())}


def differences(name: str, shrink: int, count: int = 200, num_draws: int = 64) -> Row:
    """Of one-sample ELBOs and of bounds of a thousand samples, nats of an example; of minibatch
    gradients, relative; and after how many draws a test of bias would see it.

    The mean of n gradients has a standard error of sd/sqrt(n), so the shift b of an entry is five
    of these at n = (5 sd/b)^2: a test of more draws must ask for float32.
    """
    workload, data = WORKLOADS[name], binary_images()
    objective = objective_of(workload)
    start_key, fit_key, bound_key, gradient_key = jax.random.split(jax.random.key(0), 4)
    params = jax.jit(objective.model.init)(start_key, data[0])
    run = vaejax.fit(
        objective,
        params,
        optax.adam(1e-3),
        data,
        fit_key,
        num_steps=max(10, 500 // shrink),
        batch_size=workload.batch_size,
        progress=False,
    )
    xs = data[: max(4, count // shrink)].astype(np.float32)
    batch = data[: workload.batch_size].astype(np.float32)
    keys = jax.random.split(bound_key, len(xs))
    gradient_keys = jax.random.split(gradient_key, num_draws)
    num_samples = max(25, 1_000 // shrink)

    def bounds(params, xs, keys):
        def of_example(example):
            x, key = example
            elbo = vaejax.elbo(objective.model, params, x, key)
            return elbo, vaejax.iwae(objective.model, params, x, key, num_samples)

        return jax.lax.map(of_example, (xs, keys))

    def gradients(params, keys):
        def gradient(key):
            def value(params):
                return objective(params, batch, key, 0).objective

            return ravel_pytree(jax.grad(value)(params))[0]

        return jax.lax.map(gradient, keys)

    def measured(precision):
        with jax.default_matmul_precision(precision):
            results = jax.jit(bounds)(run.params, xs, keys)
            results = *results, jax.jit(gradients)(run.params, gradient_keys)
        return [np.asarray(values, np.float64) for values in results]

    (elbos, iwaes, means), exact = (measured(precision) for precision in PRECISIONS)
    shift = means - exact[2]
    spread = exact[2].std(0)
    moves = spread > 1e-3 * spread.max()
    shown_at = (5 * spread[moves]) ** 2 / np.maximum(shift.mean(0)[moves] ** 2, 1e-30)
    return {
        **{f"elbo {name}": value for name, value in summary(elbos - exact[0]).items()},
        **{f"iwae {name}": value for name, value in summary(iwaes - exact[1]).items()},
        "gradient": float(np.linalg.norm(shift) / np.linalg.norm(exact[2])),
        "seen by draws": float(shown_at.min()),
    }


def tests(shrink: int) -> Iterator[Row]:
    """How many of the tests of truth hold here, by precision, and which do not."""
    for precision in PRECISIONS:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        began, environment = time.perf_counter(), {"JAX_DEFAULT_MATMUL_PRECISION": precision}
        files = TESTS if shrink == 1 else TESTS[-1:]
        with subprocess.Popen(
            [*command, *files], env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE
        ) as pytest:
            timer = threading.Timer(TEST_SECONDS, pytest.send_signal, [signal.SIGINT])
            timer.start()
            lines = pytest.communicate()[0].splitlines()
            timer.cancel()
        failed = [line.split(" ")[1] for line in lines if line.startswith("FAILED")]
        spent = time.perf_counter() - began
        yield {"case": precision, "said": lines[-1:], "failed": failed, "seconds": spent}
