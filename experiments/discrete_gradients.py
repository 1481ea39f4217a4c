"""Gradients through discrete latents: what each estimator's variance is, exactly where it can be,
and what it buys in training.

    python experiments/discrete_gradients.py                                         # all three
                                                                                     parts
    python experiments/discrete_gradients.py --part toy python experiments/discrete_gradients.py
    --part vae --data binarized_mnist --latent-dim 100 --num-steps 5000

The three parts are E (b - 0.499)^2 of one Bernoulli variable (Tucker et al. 2017), the mean of 200
such (Titsias & Shi 2022), and a Bernoulli VAE on the digits. Every estimator has 6 evaluations of f
for one gradient; those of its derivative are a column of their own. Psi learns for 1,000 steps at
fixed logits, at a rate that falls to zero, before a variance is measured. In the first part all
moments are exact too, by enumeration or quadrature.

Measured on two cores of an Intel Xeon, all three parts in 4 min 43 s. The variance, or for the
biased the mean squared error, of the gradient in the logits (phi in the VAE), and the test ELBO
after 1,000 steps, mean of two seeds:

| estimator              | one, p = 0.5 | p = 0.9 | 200, p = 0.5 | p = 0.9 | VAE  | ELBO   |
|---|---|---|---|---|---|---|
| score function         | 2.6e-3       | 9.3e-4  | 0.52         | 0.19    | 2693 | -26.44 |
| leave-one-out          | 1.7e-8       | 4.1e-8  | 5.0e-8       | 6.7e-9  | 8.12 | -24.86 |
| DisARM                 | 0            | 4.3e-8  | 8.3e-8       | 1.1e-8  | 7.68 | -24.87 |
| double control variate | 1.7e-8       | 1.4e-10 | 5.0e-8       | 1.5e-11 | 8.14 | -24.87 |
| REBAR                  | 7.8e-3       | 2.8e-3  | 1.9e-3       | 2.9e-4  | 13.6 | -25.01 |
| RELAX                  | 1.7e-5       | 1.5e-5  | 1.2e-3       | 2.5e-4  | 12.1 | -25.03 |
| relaxed (biased)       | 2.3e-3       | 2.0e-3  | 1.2e-5       | 1.0e-5  | 5.00 | -24.98 |
| straight-through       | 1.0e-2       | 5.7e-3  | 5.2e-5       | 2.8e-5  | 9.04 | -25.37 |

What to note: a baseline is most of the gain, four to seven orders where f is large and nearly
constant. The double control variate is leave-one-out at p = 1/2 and better by more the nearer p is
to 1, on one variable (300 times at p = 0.9) as on 200 (460 times). On the toy REBAR has just the
variance of a score function of two samples: its control does not help there. Of 49 intervals at 95
%, 48 cover the exact variance, but they share keys. Where psi learns at a constant rate it keeps
moving, and the double control variate has up to three times the variance of leave-one-out, which a
= 0 would give it; the net of RELAX on 200 variables has not converged in 1,000 steps either way. In
the VAE the relaxed gradient has the least mean squared error at that point, bias included, and not
the best ELBO; those of leave-one-out, DisARM and the double control variate are not told apart by
two seeds.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from train import NETS, Setting, build_likelihood, build_optimizer, initial_params, training_config

import vaejax
from vaejax import Params
from vaejax.base.checks import unknown_name
from vaejax.data.check import check_data, support_of
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.estimators.control_variates import (
    disarm_gradient,
    double_control_variate_gradient,
    logit,
    rebar_gradient,
)
from vaejax.variance.groups import Part
from vaejax.variance.moments import Moments


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """The estimators, the two functions of Bernoulli variables, and the Bernoulli VAE. The flags
    from data to seed are the VAE's.
    """

    part: Literal["toy", "quadratic", "vae", "all"] = "all"
    encoder: str = "bernoulli"
    """Bernoulli alone."""
    hidden: tuple[int, ...] = (100,)
    latent_dim: int = 20
    """Bernoulli latents of the VAE."""
    evaluations: int = 6
    """Evaluations of f that each estimator has for one gradient, a multiple of 6."""
    estimators: tuple[str, ...] = (
        "score function",
        "leave-one-out",
        "DisARM",
        "double control variate",
        "REBAR",
        "RELAX",
        "relaxed",
        "straight-through",
    )
    t: float = 0.499
    """f(b) = mean_i (b_i - t)^2."""
    quadratic_dim: int = 200
    probabilities: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    """Where the variance is measured in the toy and the quadratic, the same for every b_i."""
    psi_steps: int = 1_000
    """Steps that a control variate learns for, at fixed parameters, before its variance is
    measured.
    """
    num_draws: int = 20_000
    """Gradients for each measured variance, in the toy and the quadratic."""
    ascent_steps: int = 2_000
    ascent_rate: float = 0.01
    ascent_seeds: int = 20
    num_steps: int = 1_000
    """Training steps of the VAE."""
    num_seeds: int = 2
    """Trainings of the VAE by each estimator."""
    validate_every: int = 50
    measured_examples: int = 20
    """The fixed minibatch at which the gradient of the VAE is measured."""
    vae_draws: int = 400
    out: str = "runs/discrete_gradients"


class Entry(NamedTuple):
    """An estimator with n evaluations of f, for n of which it also takes the gradient of f, and how
    it is drawn.
    """

    make: Callable[[int], Any]
    gradients: Callable[[int], int]
    colour: str
    marker: str
    biased: bool = False


ESTIMATORS = {
    "score function": Entry(
        lambda n: vaejax.ScoreFunction(n, vaejax.NoBaseline()), lambda n: 0, "#7f8c8d", "o"
    ),
    "leave-one-out": Entry(lambda n: vaejax.ScoreFunction(n), lambda n: 0, "#2c6fbb", "s"),
    "DisARM": Entry(lambda n: vaejax.DisARM(n), lambda n: 0, "#d9730d", "D"),
    "double control variate": Entry(
        lambda n: vaejax.DoubleControlVariate(n), lambda n: n, "#1e8449", "^"
    ),
    "REBAR": Entry(lambda n: vaejax.REBAR(n // 3), lambda n: 2 * n // 3, "#8e44ad", "v"),
    "RELAX": Entry(
        lambda n: vaejax.RELAX(vaejax.MLP(1, (20,)), n // 3), lambda n: 2 * n // 3, "#c0392b", "P"
    ),
    "relaxed": Entry(lambda n: vaejax.Relaxed(0.5, n), lambda n: n, "#b7950b", "X", biased=True),
    "straight-through": Entry(
        lambda n: vaejax.StraightThrough(None, n), lambda n: n, "#17a2a2", "*", biased=True
    ),
}
LOGITS = {"logits": Part(("phi",))}
NO_DATA = np.zeros(())


@vaejax.component
class Expectation:
    """The model whose ELBO is E_q f, f(b) = mean_i (b_i - t)^2, q = Bernoulli(sigmoid(phi)): log
    p(x, b) = f(b) + log q(b).

    So that log w = f, without an entropy. In log p, q is held fixed: its score has mean zero and
    would be noise. An estimator that differentiates log w through a relaxed sample must see the two
    log q cancel there: for it q is not `held`.
    """

    t: float
    dim: int
    held: bool = True

    def init(self, key: Any, x: Any) -> Params:
        return Params((), jnp.zeros(self.dim))

    def f(self, b: Any) -> jax.Array:
        return jnp.mean((b - self.t) ** 2)

    def posterior(self, params: Params, x: Any) -> BernoulliDensity:
        return BernoulliDensity(params.phi)

    def log_joint(self, params: Params, x: Any, z: Any) -> jax.Array:
        q = self.posterior(params, x)
        return self.f(z) + (jax.lax.stop_gradient(q) if self.held else q).log_prob(z)


def exact_gradient(config: Config, p: float, dim: int) -> float:
    """dE f / dl_i = p (1 - p) [(1 - t)^2 - t^2] / D, of one logit."""
    return p * (1 - p) * ((1 - config.t) ** 2 - config.t**2) / dim


def closed_forms(config: Config, p: float, dim: int) -> dict[str, float]:
    """The traces of two estimators in any dimension D, by the moments of f and of the score s_i =
    b_i - p, g = E f s_i.

    score function   D (E[f^2 s_i^2] - g^2) / K
    leave-one-out    D [E[(f - E f)^2 s_i^2] - (K-2)/(K-1) g^2 + Var f Var s_i / (K-1)] / K
    """
    k, v = config.evaluations, p * (1 - p)
    f0, f1 = config.t**2 / dim, (1 - config.t) ** 2 / dim  # one coordinate's part of f
    mean_of_one, variance_of_one = p * f1 + (1 - p) * f0, v * (f1 - f0) ** 2

    def with_score(c: float) -> float:
        """E[(f - c)^2 s_i^2]: b_i by its two values, the other coordinates by their mean and
        variance.
        """
        others = (dim - 1) * mean_of_one - c
        of_b = ((p, 1 - p, f1), (1 - p, -p, f0))
        return sum(
            weight * score**2 * ((value + others) ** 2 + (dim - 1) * variance_of_one)
            for weight, score, value in of_b
        )

    g = v * (f1 - f0)
    of_others = (
        with_score(dim * mean_of_one)
        - (k - 2) / (k - 1) * g**2
        + dim * variance_of_one * v / (k - 1)
    )
    return {
        "score function": dim * (with_score(0.0) - g**2) / k,
        "leave-one-out": dim * of_others / k,
    }


def of_uniforms(config: Config, name: str, p: float, psi: Any) -> tuple[Callable, int, int, int]:
    """An estimator on the toy as a function of uniform numbers u [n, 1], by the library's formulas.

    Also n, the number of Gauss-Legendre nodes that each cell between its jumps needs, and how many
    independent copies of it are averaged.
    """
    model, k = Expectation(config.t, 1), config.evaluations
    l = jnp.asarray([math.log(p / (1 - p))])

    def samples(u):
        return (u < p).astype(u.dtype)

    def relaxed(u):
        return jax.grad(lambda l: model.f(jax.nn.sigmoid((l + logit(u[0])) / 0.5)))(l)

    controlled = {"REBAR": vaejax.REBAR(), "RELAX": ESTIMATORS["RELAX"].make(3)}
    if name in controlled:
        control = controlled[name].control(psi, model.f)
        return lambda u: rebar_gradient(model.f, control, l, u[0], u[1])[1], 2, 60, k // 3
    table = {
        "score function": (lambda u: model.f(samples(u)) * (samples(u[0]) - p), 1, 1, k),
        "leave-one-out": (
            lambda u: double_control_variate_gradient(model.f, l, samples(u), 0.0),
            k,
            1,
            1,
        ),
        "DisARM": (lambda u: disarm_gradient(model.f, l, u[0])[1], 1, 1, k // 2),
        "double control variate": (
            lambda u: double_control_variate_gradient(model.f, l, samples(u), psi),
            k,
            1,
            1,
        ),
        "relaxed": (relaxed, 1, 60, k),
        "straight-through": (lambda u: jax.grad(model.f)(samples(u[0])) * p * (1 - p), 1, 1, k),
    }
    return table[name]


def exact_moments(config: Config, name: str, p: float, psi: Any) -> tuple[float, float]:
    """Mean and variance of an estimator on the toy, by quadrature over its uniform numbers, cut at
    p and 1 - p where it may jump.
    """
    estimate, number, per_cell, copies = of_uniforms(config, name, p, psi)
    cuts = np.unique([0, 1, p, 1 - p] if per_cell > 1 or name == "DisARM" else [0, 1, p])
    nodes, weights = np.polynomial.legendre.leggauss(per_cell)
    cells = list(itertools.pairwise(cuts))
    u = np.concatenate([low + (high - low) * (nodes + 1) / 2 for low, high in cells])
    w = np.concatenate([(high - low) * weights / 2 for low, high in cells])
    us = np.stack(np.meshgrid(*[u] * number, indexing="ij"), axis=-1).reshape(-1, number, 1)
    ws = np.prod(
        np.stack(np.meshgrid(*[w] * number, indexing="ij"), axis=-1).reshape(-1, number), axis=1
    )
    g = np.asarray(jax.jit(jax.vmap(estimate))(jnp.asarray(us)))[:, 0]
    mean = float(ws @ g)
    return mean, float(ws @ (g - mean) ** 2) / copies


@partial(jax.jit, static_argnames=("model", "estimator", "num_steps", "rate", "learned", "settles"))
def ascend(
    model: Expectation,
    estimator: Any,
    params: Params,
    key,
    num_steps: int,
    rate: float,
    learned: tuple[str, ...],
    settles: bool = False,
):
    """Adam's gradient ascent in the parts of params that are `learned`: the last params, and the
    mean probability after each step.

    The rate is constant, or, where it `settles`, falls to zero as a cosine.
    """
    schedule = optax.cosine_decay_schedule(rate, num_steps) if settles else rate
    optimizer = optax.adam(schedule, eps=1e-20)  # gradients here are far below the usual eps

    def step(carry, key):
        params, state = carry
        gradient = jax.grad(lambda params: estimator(model, params, NO_DATA, key))(params)
        kept = {
            name: jax.tree.map(jnp.zeros_like, getattr(gradient, name))
            for name in Params._fields
            if name not in learned
        }
        updates, state = optimizer.update(
            jax.tree.map(jnp.negative, gradient._replace(**kept)), state, params
        )
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), jnp.mean(jax.nn.sigmoid(params.phi))

    (params, _), path = jax.lax.scan(
        step, (params, optimizer.init(params)), jax.random.split(key, num_steps)
    )
    return params, path


def with_psi(estimator: Any, model: Any, params: Params, x: Any, key) -> Params:
    """The parameters with those of the control variate at their start, for an estimator that has
    one.
    """
    return (
        params._replace(psi=estimator.init(model, params, x, key))
        if hasattr(estimator, "init")
        else params
    )


def measure_quadratic(config: Config, dim: int, name: str, key) -> list[dict]:
    """The rows of one estimator: at each probability psi learns at fixed logits, then the variance
    is measured, and, at D = 1, exact.
    """
    entry, rows = ESTIMATORS[name], []
    estimator, model = (
        entry.make(config.evaluations),
        Expectation(config.t, dim, held=not entry.biased),
    )
    for p, key_of_p in zip(
        config.probabilities, jax.random.split(key, len(config.probabilities)), strict=True
    ):
        init_key, learn_key, draw_key = jax.random.split(key_of_p, 3)
        params = Params((), jnp.full(dim, math.log(p / (1 - p))))
        params = with_psi(estimator, model, params, NO_DATA, init_key)
        if jax.tree.leaves(params.psi):
            params, _ = ascend(
                model, estimator, params, learn_key, config.psi_steps, 0.01, ("psi",), settles=True
            )
        objective = partial(estimator, model)
        moments = vaejax.gradient_moments(
            objective,
            params,
            NO_DATA,
            draw_key,
            config.num_draws,
            order=2,
            groups=LOGITS,
            chunk=500,
        )
        spread = vaejax.gradient_spread(moments, LOGITS)["logits"]
        bias = moments.mean.phi - exact_gradient(config, p, dim)
        squared_bias = (
            vaejax.tree_sum(bias**2 - moments.variance.phi / moments.num_draws)
            if entry.biased
            else 0.0
        )
        row = {
            "estimator": name,
            "p": p,
            "trace": spread.trace,
            "low": spread.low,
            "high": spread.high,
            "squared_bias": squared_bias,
        }
        exact = closed_forms(config, p, dim).get(name)
        if dim == 1:
            mean, exact = exact_moments(config, name, p, params.psi)
            row |= {
                "exact_mean": mean,
                "squared_bias": (mean - exact_gradient(config, p, 1)) ** 2 if entry.biased else 0.0,
            }
        best = spread.trace if exact is None else exact
        rows.append(
            row | {"exact": exact, "mean_squared_error": max(row["squared_bias"], 0.0) + best}
        )
    return rows


def ascent(config: Config, dim: int, name: str, key) -> np.ndarray:
    """The mean probability at each step [seed, step], from 1/2 on, psi learned along."""
    entry = ESTIMATORS[name]
    estimator, model = (
        entry.make(config.evaluations),
        Expectation(config.t, dim, held=not entry.biased),
    )

    def one(key):
        init_key, step_key = jax.random.split(key)
        params = with_psi(estimator, model, model.init(init_key, NO_DATA), NO_DATA, init_key)
        return ascend(
            model,
            estimator,
            params,
            step_key,
            config.ascent_steps,
            config.ascent_rate,
            ("phi", "psi"),
        )[1]

    return np.asarray(jax.vmap(one)(jax.random.split(key, config.ascent_seeds)))


def quadratic(config: Config, dim: int) -> dict:
    """Variances and ascents of every estimator on f(b) = mean_i (b_i - t)^2, in double precision: f
    hardly depends on b.
    """
    rows, paths = [], {}
    with jax.enable_x64(True):
        measure_key, ascent_key = jax.random.split(jax.random.key(config.seed + dim))
        for name in config.estimators:
            rows += measure_quadratic(config, dim, name, measure_key)
            paths[name] = ascent(config, dim, name, ascent_key)
    known = [row for row in rows if row["exact"] is not None and row["exact"] > 1e-25]
    facts = {
        "intervals_that_cover": sum(row["low"] <= row["exact"] <= row["high"] for row in known),
        "intervals": len(known),
        "probability_at_the_end": {
            name: np.quantile(path[:, -1], [0.25, 0.5, 0.75]).tolist()
            for name, path in paths.items()
        },
    }
    return {
        "rows": rows,
        "paths": {
            name: path[:, :: max(1, path.shape[1] // 200)].tolist() for name, path in paths.items()
        },
        **facts,
    }


def quadratic_table(config: Config, found: dict) -> str:
    """Variance, or mean squared error where there is bias, by probability; ** the least of a
    column.
    """
    columns = [[row for row in found["rows"] if row["p"] == p] for p in config.probabilities]
    least = [min(row["mean_squared_error"] for row in column) for column in columns]
    head = " | ".join(f"p = {p}" for p in config.probabilities)
    lines = [
        f"| estimator | f | grad f | {head} | P(b = 1) after {config.ascent_steps} |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for i, name in enumerate(config.estimators):
        numbers = [column[i]["mean_squared_error"] for column in columns]
        shown = ["0" if number < 1e-30 else f"{number:.2e}" for number in numbers]
        cells = [
            f"**{cell}**" if number == low else cell
            for cell, number, low in zip(shown, numbers, least, strict=True)
        ]
        low, median, high = found["probability_at_the_end"][name]
        lines.append(
            f"| {costs(config, name)} | {' | '.join(cells)} | {median:.2f} [{low:.2f},"
            f" {high:.2f}] |"
        )
    return "\n".join(lines)


def costs(config: Config, name: str) -> str:
    """The estimator's name, and how often it takes f and its gradient."""
    entry = ESTIMATORS[name]
    return (
        f"{name}{' (biased)' * entry.biased} | {config.evaluations} |"
        f" {entry.gradients(config.evaluations)}"
    )


def vae(config: Config) -> dict:
    """Trainings of the Bernoulli VAE by each estimator, and the variance of each in phi at one
    shared set of parameters.
    """
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    images, test = dataset.train.images, dataset.test.images
    training = training_config(config, num_steps=config.num_steps)
    likelihood = build_likelihood(training, images[0].shape)
    prior, encoder = (
        vaejax.FactorialBernoulli(config.latent_dim),
        NETS[config.net](config.latent_dim, config.hidden),
    )
    model = vaejax.VAE(prior, likelihood, vaejax.Bernoulli(encoder))
    check_data(images, support_of(model), transform, name=config.data)
    init_key, psi_key, fit_key, rows_key, pixels_key, draw_key, learn_key = jax.random.split(
        jax.random.key(config.seed), 7
    )
    steps = {"batch_size": config.batch_size, "transform": transform, "progress": False}
    start = initial_params(training, model, images, transform, init_key)
    rows = np.asarray(
        jax.random.choice(rows_key, len(images), (config.measured_examples,), replace=False)
    )
    xs = jax.jit(jax.vmap(transform))(images[rows], jax.random.split(pixels_key, len(rows)))
    optimizer = build_optimizer(training)
    only_psi = optax.multi_transform(
        {"learned": optax.adam(0.01), "held": optax.set_to_zero()},
        Params("held", "held", "learned"),
    )

    # Where all are measured is where leave-one-out has come to, whichever are compared.
    neutral = vaejax.minibatch(partial(ESTIMATORS["leave-one-out"].make(config.evaluations), model))
    fit_keys = jax.random.split(fit_key, config.num_seeds)
    shared = vaejax.fit(
        neutral, start, optimizer, images, fit_keys[0], num_steps=config.num_steps, **steps
    ).params
    measure = {"order": 2, "groups": PHI}
    reference = vaejax.gradient_moments(
        neutral, shared, xs, learn_key, 10 * config.vae_draws, **measure
    )

    curves, found = {}, []
    for name in config.estimators:
        estimator = ESTIMATORS[name].make(config.evaluations)
        objective = vaejax.minibatch(partial(estimator, model))
        held_out = {"validation": test, "validate_every": config.validate_every}
        begin = with_psi(estimator, model, start, xs[0], psi_key)
        runs = [
            vaejax.fit(
                objective,
                begin,
                optimizer,
                images,
                key,
                num_steps=config.num_steps,
                **steps,
                **held_out,
            ).history
            for key in fit_keys
        ]
        curves[name] = {
            "step": runs[0]["validation_step"].tolist(),
            "bound": [run["validation_bound"].tolist() for run in runs],
        }

        params = shared._replace(psi=begin.psi)
        if jax.tree.leaves(params.psi):
            params = vaejax.fit(
                objective, params, only_psi, images, learn_key, num_steps=config.psi_steps, **steps
            ).params
        moments = vaejax.gradient_moments(
            objective, params, xs, draw_key, config.vae_draws, **measure
        )
        spread = vaejax.gradient_spread(moments, PHI)["phi"]
        off = max(squared_bias(moments, reference), 0.0) if ESTIMATORS[name].biased else 0.0
        row = {
            "estimator": name,
            "trace": spread.trace,
            "low": spread.low,
            "high": spread.high,
            "squared_bias": off,
        }
        found.append(
            row
            | {
                "mean_squared_error": spread.trace + off,
                "test_bound": [run["validation_bound"][-1] for run in runs],
            }
        )
        print(
            f"vae, {name}: trace in phi {spread.trace:.3g}, test ELBO"
            f" {np.mean(found[-1]['test_bound']):.2f}",
            file=sys.stderr,
        )
    norm = vaejax.tree_sum(
        jax.tree.map(
            lambda m, v: m**2 - v / reference.num_draws, reference.mean.phi, reference.variance.phi
        )
    )
    return {"rows": found, "curves": curves, "squared_gradient": norm, "data": dataset.source}


PHI = {"phi": Part(("phi",))}


def squared_bias(moments: Moments, reference: Moments) -> float:
    """|E g - E reference|^2 in phi, without the noise of the two means."""

    def of_leaf(mean, variance, other, of_other):
        return (mean - other) ** 2 - variance / moments.num_draws - of_other / reference.num_draws

    return vaejax.tree_sum(
        jax.tree.map(
            of_leaf,
            moments.mean.phi,
            moments.variance.phi,
            reference.mean.phi,
            reference.variance.phi,
        )
    )


def vae_table(config: Config, found: dict) -> str:
    least = min(row["mean_squared_error"] for row in found["rows"])
    header = (
        "| estimator | f | grad f | trace in phi | 95 % interval | squared bias | mean squared"
        " error | test ELBO, by seed |"
    )
    lines = [header, "|---" * 8 + "|"]
    for row in found["rows"]:
        error, bounds = (
            f"{row['mean_squared_error']:.3g}",
            ", ".join(f"{bound:.2f}" for bound in row["test_bound"]),
        )
        error = f"**{error}**" if row["mean_squared_error"] == least else error
        interval = f"{row['low']:.3g} to {row['high']:.3g}"
        bias = f"{row['squared_bias']:.3g}" if ESTIMATORS[row["estimator"]].biased else "0"
        lines.append(
            f"| {costs(config, row['estimator'])} | {row['trace']:.3g} | {interval} | {bias} |"
            f" {error} | {bounds} |"
        )
    return "\n".join(lines)


def style_of(name: str) -> dict[str, Any]:
    entry = ESTIMATORS[name]
    return {"color": entry.colour, "marker": entry.marker, "ls": "--" if entry.biased else "-"}


def draw_errors(axes: Axes, config: Config, found: dict) -> None:
    for name in config.estimators:
        rows = [
            row
            for row in found["rows"]
            if row["estimator"] == name and row["mean_squared_error"] > 1e-25
        ]
        axes.plot(
            [row["p"] for row in rows],
            [row["mean_squared_error"] for row in rows],
            **style_of(name),
            ms=6,
            lw=1.4,
        )
    axes.set(yscale="log", xlabel=r"$p = P(b_i = 1)$", ylabel="variance (dashed: + bias²)")


def draw_paths(axes: Axes, config: Config, found: dict) -> None:
    for name in config.estimators:
        paths = np.asarray(found["paths"][name])
        steps = np.arange(paths.shape[1]) * max(1, config.ascent_steps // 200)
        low, median, high = np.quantile(paths, [0.25, 0.5, 0.75], axis=0)
        if not ESTIMATORS[name].biased:  # theirs go from 0 to 1, and would cover the panel
            axes.fill_between(steps, low, high, color=ESTIMATORS[name].colour, alpha=0.12, lw=0)
        style: dict[str, Any] = style_of(name) | {"marker": "", "lw": 1.6}
        axes.plot(steps, median, **style)
    axes.set(
        ylim=(-0.02, 1.02),
        xlabel="step of gradient ascent",
        ylabel=r"mean of $P(b_i = 1)$; the best is 1",
    )


def quadratic_figure(config: Config, found: dict[str, dict]) -> Figure:
    """A row for each problem: the variance against the probability, and the ascent, its median and
    quartiles over the seeds.
    """
    figure = Figure(figsize=(11, 3.9 * len(found)), layout="constrained")
    titles = {
        "toy": f"one variable: E(b − {config.t})²",
        "quadratic": f"{config.quadratic_dim} variables: E mean (b − {config.t})²",
    }
    for (part, one), (left, right) in zip(
        found.items(), figure.subplots(len(found), 2, squeeze=False), strict=True
    ):
        draw_errors(left, config, one)
        draw_paths(right, config, one)
        left.set_title(titles[part], loc="left")
    return finished(figure, config)


def vae_figure(config: Config, found: dict) -> Figure:
    """The test bound against the step, and the variance in phi at one shared set of parameters."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for name, curve in found["curves"].items():
        left.plot(
            curve["step"],
            np.mean(curve["bound"], axis=0),
            **style_of(name) | {"marker": ""},
            lw=1.6,
        )
    finals = [
        bound for curve in found["curves"].values() for bound in np.mean(curve["bound"], axis=0)
    ]
    left.set(
        xlabel="training step",
        ylabel="test ELBO, nats",
        ylim=(np.quantile(finals, 0.03), max(finals) + 0.3),
    )
    for i, row in enumerate(found["rows"]):
        style = style_of(row["estimator"]) | {"ls": ""}
        right.plot(row["mean_squared_error"], i, **style, ms=8)
        right.plot(
            [row["low"] + row["squared_bias"], row["high"] + row["squared_bias"]],
            [i, i],
            color=style["color"],
            lw=1.4,
        )
    right.set(
        xscale="log", xlabel=r"trace of the covariance in $\phi$ (biased: + bias²)", yticks=[]
    )
    right.invert_yaxis()
    return finished(figure, config)


def finished(figure: Figure, config: Config) -> Figure:
    """One legend for all panels, and no frame."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for name in config.estimators:
        figure.axes[0].plot(
            [], [], **style_of(name), label=name + " (biased)" * ESTIMATORS[name].biased
        )
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def check(config: Config) -> None:
    """Raises ValueError for what cannot be, before anything runs."""
    if config.evaluations < 6 or config.evaluations % 6:
        raise ValueError(
            f"evaluations = {config.evaluations}; give a multiple of 6, which pairs, triples and"
            " single samples share"
        )
    for name in config.estimators:
        if name not in ESTIMATORS:
            raise ValueError(unknown_name("estimator", name, list(ESTIMATORS)))
    if not all(0 < p < 1 for p in config.probabilities):
        raise ValueError(f"probabilities = {config.probabilities}; each is between 0 and 1")
    if config.encoder != "bernoulli" or config.warm_up:
        raise ValueError(
            f"encoder = {config.encoder!r}, warm_up = {config.warm_up}: here q is Bernoulli, and"
            " the ELBO has no warm-up"
        )
    counts = (
        "quadratic_dim psi_steps ascent_steps ascent_seeds num_steps num_seeds validate_every"
        " measured_examples latent_dim"
    )
    for name in counts.split():
        if getattr(config, name) < 1:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least 1")
    if config.validate_every > config.num_steps:
        raise ValueError(
            f"validate_every = {config.validate_every}, but num_steps = {config.num_steps};"
            " validate more often"
        )


def main(config: Config) -> dict:
    check(config)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    for part, dim in (("toy", 1), ("quadratic", config.quadratic_dim)):
        if config.part in (part, "all"):
            found[part] = quadratic(config, dim)
            print(
                f"{part}: variance, or mean squared error of the biased, in {dim} logits; P after"
                " the ascent: median [quartiles]"
            )
            print(quadratic_table(config, found[part]))
            print(
                f"{found[part]['intervals_that_cover']} of {found[part]['intervals']} intervals at"
                " 95 % cover the exact variance\n"
            )
    if found:
        quadratic_figure(config, found).savefig(out / "quadratic.png", dpi=150)
    if config.part in ("vae", "all"):
        found["vae"] = vae(config)
        print(
            f"vae: {config.data}, {config.latent_dim} Bernoulli latents; |E g|^2 in phi is"
            f" {found['vae']['squared_gradient']:.3g}"
        )
        print(vae_table(config, found["vae"]))
        vae_figure(config, found["vae"]).savefig(out / "vae.png", dpi=150)
    record(out, config, **found)
    summary = {
        part: {row["estimator"]: row["mean_squared_error"] for row in one["rows"]}
        for part, one in found.items()
    }
    return {"mean_squared_error": summary, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
