"""The variance of a minibatch gradient, parameter by parameter: `vaejax.gradient_moments` against
loops that one writes by hand.

    python scripts/bench_variance.py        # three minutes on two cores; nothing else may run

784-200-200-50, a minibatch of 100, fixed parameters. Three ways take as many draws: a Python loop
over a jitted gradient that keeps all of them, one jitted scan with running moments, and
`gradient_moments` by draws; that one by examples takes fewer. The root mean square error is
relative, over all parameters, against a long run by examples. What is reported is the median of the
ratios of neighbouring turns.

Measured on two cores of an Intel Xeon, 5 turns, four runs: errors of 4.6 % (loop and scan), 4.5 %
(by draws, 1,000 each) and 4.6 % (by examples, 68 draws). By examples it is 14.7 to 16.6 times as
fast as the scan and 32.4, 33.1, 35.6 and 36.0 times as the loop, which costs 2.1 to 2.4 scans here
and more where memory is slower. By draws it is 1.12 to 1.16 times as fast as the scan, though it
takes a pilot and the squares of each draw, of which intervals are made: it adds four draws to the
sums at once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import take_turns

import vaejax
from vaejax.runs.files import json_text

BATCH, WIDTH, LATENT = 100, 200, 50


def elbo_by_hand(params, xs, key):
    """The mean one-sample ELBO of the batch, written as one batch."""

    def mlp(net, h):
        for name in ("Dense_0", "Dense_1"):
            h = jnp.tanh(h @ net["params"][name]["kernel"] + net["params"][name]["bias"][None])
        return h @ net["params"]["Dense_2"]["kernel"] + net["params"]["Dense_2"]["bias"][None]

    loc, log_scale = jnp.split(mlp(params.phi, xs), 2, axis=-1)
    noise = jax.random.normal(key, loc.shape)
    z = loc + jnp.exp(log_scale) * noise
    logits = mlp(params.theta["likelihood"], z)
    log_likelihood = jnp.sum(
        xs * logits - jnp.maximum(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits))), -1
    )
    return jnp.mean(log_likelihood + jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2, -1))


gradient_by_hand = jax.jit(jax.grad(elbo_by_hand))


def kept(params, xs, keys):
    """The variance of all draws, kept."""
    draws = [jax.tree.map(np.asarray, gradient_by_hand(params, xs, key)) for key in keys]
    return jax.tree.map(lambda *leaves: np.var(np.stack(leaves), axis=0, ddof=1), *draws)


@jax.jit
def scanned(params, xs, keys):
    """Running moments in one scan."""

    def add(sums, key):
        first, second = sums
        gradient = jax.grad(elbo_by_hand)(params, xs, key)
        return (
            jax.tree.map(jnp.add, first, gradient),
            jax.tree.map(lambda s, g: s + g**2, second, gradient),
        ), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    (first, second), _ = jax.lax.scan(add, (zeros, zeros), keys)
    return jax.tree.map(lambda s, t: (t - s**2 / len(keys)) / (len(keys) - 1), first, second)


def ways_of(num_draws: int, num_draws_by_examples: int) -> tuple[dict, Callable[[], Any]]:
    """The four ways, each a function that returns the variances, and the long run that they are
    held against.
    """
    decoder, encoder = vaejax.MLP(784, (WIDTH, WIDTH)), vaejax.MLP(LATENT, (WIDTH, WIDTH), heads=2)
    model = vaejax.VAE(
        vaejax.StandardNormal(LATENT), vaejax.Bernoulli(decoder), vaejax.DiagNormal(encoder)
    )
    xs = (np.random.default_rng(0).random((BATCH, 784)) < 0.13).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), xs[0])
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    keys = jax.random.split(jax.random.key(1), num_draws)
    measure = partial(vaejax.gradient_moments, objective, params, xs, order=2)
    ways = {
        "a loop that keeps all draws": lambda: kept(params, xs, list(keys)),
        "one scan": lambda: jax.block_until_ready(scanned(params, xs, keys)),
        "gradient_moments by draws": (
            lambda: measure(jax.random.key(2), num_draws, by="draws").variance
        ),
        "gradient_moments by examples": (
            lambda: measure(jax.random.key(3), num_draws_by_examples, by="examples").variance
        ),
    }
    long_run = partial(measure, jax.random.key(4), 100 * num_draws_by_examples, by="examples")
    return ways, lambda: long_run().variance


def main(num_draws: int = 1_000, num_draws_by_examples: int = 68, repeats: int = 5) -> None:
    """Times the four and prints a table."""
    ways, long_run = ways_of(num_draws, num_draws_by_examples)
    exact = long_run()
    errors = {name: relative_error(way(), exact) for name, way in ways.items()}
    times = take_turns(ways, repeats)
    print(f"{jax.devices()}, jax {jax.__version__}")
    print(
        "| way | draws | seconds | error of the variances | speed, of one scan | of the loop"
        " |\n|---|---|---|---|---|---|"
    )
    results = {}
    for name, seconds in times.items():
        ratios = [
            float(np.median(times[other] / seconds))
            for other in ("one scan", "a loop that keeps all draws")
        ]
        draws = num_draws_by_examples if "examples" in name else num_draws
        print(
            f"| {name} | {draws} | {np.median(seconds):.3f} | {100 * errors[name]:.1f} % |"
            f" {ratios[0]:.2f} | {ratios[1]:.1f} |"
        )
        results[name] = {"error": errors[name], "of_one_scan": ratios[0], "of_the_loop": ratios[1]}
    print(json_text(results))


def relative_error(variance, exact) -> float:
    """Root mean square of variance / exact - 1 over all parameters that have a variance."""
    measured, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (variance, exact)
    )
    moves = expected > 1e-9 * expected.max()
    return float(np.sqrt(np.mean((measured[moves] / expected[moves] - 1) ** 2)))


if __name__ == "__main__":
    tyro.cli(main)
