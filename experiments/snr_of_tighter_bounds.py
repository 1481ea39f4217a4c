"""Are tighter bounds better? Not for q: with K samples the signal to noise ratio of IWAE's gradient
falls, while that of DReG's grows.

    python experiments/snr_of_tighter_bounds.py            # two to four minutes on two CPU cores
    python experiments/snr_of_tighter_bounds.py --scale-of-q deviation --also

p(z) = N(mu, I), p(x|z) = N(z, I), q(z|x) = N(A x + b, 2/3 I) in 20 dimensions, every parameter off
its optimum by N(0, 0.01^2). The posterior is N((x + mu)/2, I/2), so that q is never exact. As K
grows, the theory (Rainforth et al. 2018; Tucker et al. 2019) says of the gradients

    IWAE in b     mean ~ K^-1   standard deviation ~ K^-1/2   ratio ~ K^-1/2
    DReG in b     the same      standard deviation ~ K^-3/2   ratio ~ K^1/2
    either in mu  mean ~ 1      standard deviation ~ K^-1/2   ratio ~ K^1/2

and `large_k` has the constants of this instance in closed form. M independent copies multiply each
ratio by sqrt(M). A mean of n draws is never 0: IWAE's ratio by its own mean cannot fall below about
sqrt(2 / (pi n)), so its signal is taken from DReG, whose mean is the same.

Measured with N = 128 data and 64 draws, means over the coordinates (the slopes from K = 64 to 1024,
the last columns at K = 1024):

| estimator | slope of std | theory | slope of ratio | theory | std over theory | ratio over theory
| |---|---|---|---|---|---|---| | IWAE | -0.498 | -0.5 | -0.498 | -0.5 | 0.999 | 1.002 | | DReG |
-1.484 | -1.5 | +0.486 | +0.5 | 0.994 | 1.005 | | STL, with the bound of IWAE | -0.498 | -0.5 |
+0.497 | +0.5 | 0.999 | 1.002 | | RWS | -0.498 | -0.5 | +0.505 | +0.5 | 0.999 | 1.003 | | IWAE in mu
| -0.498 | -0.5 | +0.441 | +0.5 | 0.999 | 1.005 |

At K = 1024 the ratio is 0.017 for IWAE and 20.6 for DReG; by its own mean IWAE's reads 0.092, the
floor being 0.100. What to note:
  - The ratios of STL and RWS grow because their means do not vanish: as gradients of the bound they
  are biased, and that is their signal. - IWAE, STL, RWS and the gradient in mu are here the same
  sum_k w~_k z_k but for a shift and a factor, so that their noise is one. - In mu the limit of the
  mean is small (0.01 / 2), and up to K = 64 its term in 1 / K is seen as well: from 64 on the
  theory with that
    term has +0.487, and the mean of 64 draws adds noise of its own.
  - At K = 4 DReG's standard deviation is 0.57 of the constant's; at K = 64 it is 0.95. - With the
  paper's N = 1024 (--num-data 1024 --num-draws 4 --num-samples 64 256 1024 --also, 108 seconds) the
  slopes of DReG are -1.483
    and +0.482, those of IWAE -0.498 and -0.504, and the constants are within 1.5 %: std 0.0583
    K^-1/2 and 0.0506 K^-3/2, mean 0.093 / K.
  - Where 2/3 is q's standard deviation, q is narrower than the posterior, and the weights have no
  moment of order 9. DReG's slopes are
    then -1.363 and +0.383, and at K = 1024 its measured std is 0.69 of the constant's: the
    asymptote is not reached, and few samples carry the variance. IWAE has -0.492 and -0.491.

Time: 131 seconds with two cores shared with other work and most programs in the compilation cache,
241 seconds at the first run.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import command_line, record
from matplotlib.figure import Figure

import vaejax
from vaejax.base.types import Key
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.variance.groups import Part


@dataclasses.dataclass(frozen=True)
class Config:
    """The model, the numbers of samples K and the number of draws."""

    dim: int = 20
    num_data: int = 128
    """N: the gradient is the mean over these. The paper has 1024, whose standard deviations are
    sqrt(8) times smaller.
    """
    scale_of_q: Literal["covariance", "deviation"] = "covariance"
    """What the 2/3 of q is: its covariance, or its standard deviation."""
    perturbation: float = 0.01
    """The standard deviation of every parameter about its optimum."""
    num_samples: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """The values of K."""
    fit_from: int = 64
    """Slopes are fitted to K from here on: the theory is asymptotic."""
    num_draws: int = 64
    also: tuple[Literal["STL", "RWS"], ...] = ("STL", "RWS")
    """What to measure beside IWAE and DReG."""
    seed: int = 0
    out: str = "runs/snr_of_tighter_bounds"

    @property
    def variance_of_q(self) -> float:
        return 2 / 3 if self.scale_of_q == "covariance" else (2 / 3) ** 2


IWAE, DREG, STL, RWS = "IWAE", "DReG", "STL", "RWS"
IN_MU = "IWAE and DReG in mu"
ESTIMATORS: dict[str, Callable] = {
    IWAE: lambda k: vaejax.Pathwise(k, vaejax.iwae_bound),
    DREG: vaejax.DReG,
    STL: lambda k: vaejax.StickTheLanding(k, vaejax.iwae_bound),
    RWS: vaejax.RWS,
}
GROUPS = {"b": Part(("phi", "b")), "mu": Part(("theta", "prior", "loc"))}


def check(config: Config) -> None:
    """Raises ValueError for what the measurement or the fit of a slope cannot do with."""
    if config.dim < 1:
        raise ValueError(f"--dim {config.dim}: give at least 1")
    if config.num_data < 4:
        raise ValueError(
            f"--num-data {config.num_data}: give at least 4, so that the variance can be measured"
            " example by example"
        )
    if len({k for k in config.num_samples if k >= config.fit_from}) < 2:
        values = " ".join(map(str, config.num_samples))
        raise ValueError(
            f"--num-samples {values} has fewer than two values from --fit-from {config.fit_from}"
            " on; a slope needs two"
        )


# The model.


@vaejax.component
class Identity:
    """The net z -> z."""

    def init(self, key: Key, example) -> tuple:
        return ()

    def apply(self, params: tuple, example: jax.Array) -> jax.Array:
        return example


@vaejax.component
class LinearEncoder:
    """q(z|x) = N(A x + b, variance I), the variance fixed."""

    variance: float

    def init(self, key: Key, given: jax.Array) -> dict[str, jax.Array]:
        return {"A": jnp.zeros((given.size, given.size)), "b": jnp.zeros(given.size)}

    def __call__(self, params: dict[str, jax.Array], given: jax.Array) -> DiagNormalDensity:
        loc = params["A"] @ given + params["b"]
        return DiagNormalDensity(loc, jnp.full_like(loc, 0.5 * math.log(self.variance)))


def estimators(config: Config) -> dict[str, Callable]:
    return {name: make for name, make in ESTIMATORS.items() if name in (IWAE, DREG, *config.also)}


def linear_gaussian(config: Config) -> vaejax.VAE:
    return vaejax.VAE(
        vaejax.LearnedNormal(config.dim),
        vaejax.Gaussian(Identity(), 1.0),
        LinearEncoder(config.variance_of_q),
    )


def parameters(mu: jax.Array, a: jax.Array, b: jax.Array) -> vaejax.Params:
    prior = {"loc": mu, "log_scale": jnp.zeros_like(mu)}
    return vaejax.Params({"prior": prior, "likelihood": {"net": ()}}, {"A": a, "b": b})


@partial(jax.jit, static_argnames="config")
def near_the_optimum(config: Config, key: Key) -> tuple[vaejax.Params, jax.Array]:
    """Parameters about mu* = mean x, A* = I/2, b* = mu*/2, and the data x [N, dim] of a model whose
    mu is drawn from N(0, I).
    """
    mu_key, data_key, *keys = jax.random.split(key, 5)
    eye = jnp.eye(config.dim)
    truth = parameters(jax.random.normal(mu_key, (config.dim,)), eye, jnp.zeros(config.dim))
    model = linear_gaussian(config)
    xs = jax.vmap(lambda key: model.sample(truth, key)[0])(
        jax.random.split(data_key, config.num_data)
    )
    mean = jnp.mean(xs, axis=0)
    perturbed = [
        value + config.perturbation * jax.random.normal(key, value.shape)
        for value, key in zip((mean, eye / 2, mean / 2), keys, strict=True)
    ]
    return parameters(*perturbed), xs


# The theory.


class Constants(NamedTuple):
    """As K grows, E g ~ limit + signal / K in each coordinate, and the standard deviation of g ~
    deviation K^exponent.
    """

    limit: np.ndarray
    signal: np.ndarray
    deviation: np.ndarray
    exponent: float

    def mean(self, k: float) -> np.ndarray:
        return self.limit + self.signal / k

    def std(self, k: float) -> np.ndarray:
        return self.deviation * k**self.exponent


def large_k(config: Config, params: vaejax.Params, xs: jax.Array) -> dict[str, Constants]:
    """The constants of this instance. Per datum, with w normalised by p(x), so that E_q w f = E f
    over the posterior,

        sum_k w~_k f(z_k)      mean E_q w f - E_q w^2 f_0 / K    variance E_q w^2 f_0^2 / K,    f_0
                               = f - E_q w f
        sum_k w~_k^2 h(z_k)    mean G / K,  G = E_q w^2 h        variance Var_q(w^2 h - 2 G w) / K^3

    With l(z) = d/dz log p(x, z) and s(z) = (z - A x - b) / variance, the score of q in b, f is l
    for IWAE in b, h = l + s for STL, s for RWS, and z - mu for IWAE and DReG in mu. E_q w l = 0, so
    that IWAE's signal falls as 1 / K, and its noise as 1 / sqrt(K) alone.
    """
    x, mu, a, b = (
        np.asarray(of, np.float64)
        for of in (xs, params.theta["prior"]["loc"], params.phi["A"], params.phi["b"])
    )
    centre, variance = (x + mu[None]) / 2, 0.5  # of the posterior
    loc, variance_of_q = x @ a.T + b[None], config.variance_of_q

    def expectation(power: int, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """E_q w^power f(z) [N, dim] for f of degree 3 or less: w^power q is a Gaussian but for its
        mass, and two points integrate f.
        """
        v = power * variance_of_q + (1 - power) * variance
        if v <= 0:
            raise ValueError(f"the weights have no moment of order {power}")
        log_mass = (
            (1 - power) * math.log(variance) + power * math.log(variance_of_q) - math.log(v)
        ) / 2
        mass = np.exp(
            np.sum(
                log_mass - power * (1 - power) * (centre - loc) ** 2 / (2 * v),
                axis=1,
                keepdims=True,
            )
        )
        mean = (power * centre * variance_of_q + (1 - power) * loc * variance) / v
        sd = math.sqrt(variance * variance_of_q / v)
        return mass * (f(mean + sd) + f(mean - sd)) / 2

    def over_data(limit, signal, variance, exponent) -> Constants:
        """Of the mean over the data, whose noise is independent."""
        limit, signal, variance = (np.mean(of, axis=0) for of in (limit, signal, variance))
        return Constants(limit, signal, np.sqrt(variance / len(xs)), exponent)

    def self_normalised(f) -> Constants:
        limit = expectation(1, f)
        return over_data(
            limit,
            -expectation(2, lambda z: f(z) - limit),
            expectation(2, lambda z: (f(z) - limit) ** 2),
            -0.5,
        )

    def joint(z):
        return (centre - z) / variance

    def score(z):
        return (z - loc) / variance_of_q

    def path(z):
        return joint(z) + score(z)

    g = expectation(2, path)
    square = (
        expectation(4, lambda z: path(z) ** 2)
        - 4 * g * expectation(3, path)
        + 4 * g**2 * expectation(2, np.ones_like)
    )
    every = {
        IWAE: self_normalised(joint),
        DREG: over_data(np.zeros_like(g), g, square - g**2, -1.5),
        STL: self_normalised(path),
        RWS: self_normalised(score),
        IN_MU: self_normalised(lambda z: z - mu[None]),
    }
    return {name: of for name, of in every.items() if name in (*estimators(config), IN_MU)}


# The measurement.


def measured(config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key) -> list[dict]:
    """A row for each estimator, means over the coordinates. All see the same noise.

    The signal to noise ratio has the gradient's own mean over its standard deviation; `snr` of IWAE
    in b that of DReG, which is the same in expectation and far less noisy. With the noisy one,
    `plug_in`, a gradient of mean zero has a ratio of sqrt(2 / (pi num_draws)).
    """
    model = linear_gaussian(config)
    moments = {
        name: vaejax.gradient_moments(
            vaejax.minibatch(partial(make(k), model)),
            params,
            xs,
            key,
            config.num_draws,
            order=2,
            groups=GROUPS,
            by="examples",
        )
        for name, make in estimators(config).items()
    }
    means = {name: GROUPS["b"](of.mean) for name, of in moments.items()} | {
        IN_MU: GROUPS["mu"](moments[IWAE].mean)
    }
    variances = {name: GROUPS["b"](of.variance) for name, of in moments.items()} | {
        IN_MU: GROUPS["mu"](moments[IWAE].variance)
    }
    rows = []
    for name, mean in means.items():
        std = np.sqrt(variances[name])
        signal = means[DREG] if name == IWAE else mean
        averages = {
            "std": std,
            "snr": np.abs(signal) / std,
            "plug_in": np.abs(mean) / std,
            "mean": np.abs(signal),
        }
        rows.append(
            {"estimator": name, "num_samples": k}
            | {what: float(np.mean(of)) for what, of in averages.items()}
        )
    return rows


def predicted(constants: Constants, k: float) -> dict[str, float]:
    """The same averages over the coordinates, from the theory."""
    std, mean = constants.std(k), np.abs(constants.mean(k))
    return {
        "std": float(np.mean(std)),
        "snr": float(np.mean(mean / std)),
        "mean": float(np.mean(mean)),
    }


def slope(ks, values) -> float:
    """Of log values against log K, by least squares."""
    return float(np.polyfit(np.log(ks), np.log(values), 1)[0])


def floor(num_draws: int) -> float:
    """E |mean| / sd of a mean of n normal draws whose expectation is zero, at known sd: sqrt(2 /
    (pi n)).
    """
    return math.sqrt(2 / (math.pi * num_draws))


def comparison(
    config: Config, constants: dict[str, Constants], rows: list[dict]
) -> dict[str, dict]:
    """Per estimator: the slopes with those of the theory, and at the largest K what was measured
    over what is predicted.
    """
    ks = sorted(k for k in set(config.num_samples) if k >= config.fit_from)
    result = {}
    for name, of_name in constants.items():
        at = {row["num_samples"]: row for row in rows if row["estimator"] == name}
        theory = {k: predicted(of_name, k) for k in ks}
        result[name] = {
            f"slope of {what}": {
                "measured": slope(ks, [at[k][what] for k in ks]),
                "theory": slope(ks, [theory[k][what] for k in ks]),
            }
            for what in ("std", "snr")
        } | {
            f"{what} over theory": at[ks[-1]][what] / theory[ks[-1]][what]
            for what in ("std", "snr")
        }
    return result


COLOURS = {IWAE: "#2c6fbb", DREG: "#d9730d", STL: "#2e8b57", RWS: "#8e5ea2", IN_MU: "#6b7280"}
MARKERS = {IWAE: "o", DREG: "s", STL: "^", RWS: "v", IN_MU: "D"}
BIASED = (STL, RWS)
POWERS = {
    ("std", IWAE): "$K^{-1/2}$",
    ("std", DREG): "$K^{-3/2}$",
    ("snr", IWAE): "$K^{-1/2}$",
    ("snr", DREG): "$K^{1/2}$",
}


def figure(config: Config, constants: dict[str, Constants], rows: list[dict]) -> Figure:
    """What was measured as points, the theory of large K as dashed lines, the floor of IWAE's ratio
    with its own mean dotted.
    """
    drawing = Figure(figsize=(10, 5), layout="constrained")
    panels = dict(zip(("std", "snr"), drawing.subplots(1, 2), strict=True))
    ks = sorted(set(config.num_samples))
    grid = np.geomspace(ks[0], ks[-1], 51)
    for name, of_name in constants.items():
        points = [row for row in rows if row["estimator"] == name]
        label = f"{name}, biased" if name in BIASED else name
        for what, axes in panels.items():
            if (what, name) == ("std", IN_MU):
                continue
            line = [predicted(of_name, k)[what] for k in grid]
            axes.plot(grid, line, "--", color=COLOURS[name], lw=1.2)
            axes.plot(
                ks,
                [row[what] for row in points],
                MARKERS[name],
                ms=6,
                color=COLOURS[name],
                label=label,
            )
            if (what, name) in POWERS:
                middle, above = (
                    (grid[32], line[32]),
                    {
                        "textcoords": "offset points",
                        "color": COLOURS[name],
                        "fontsize": 10,
                    },
                )
                side, align = (-3, "center") if line[-1] > line[0] else (4, "left")
                axes.annotate(POWERS[what, name], middle, (side, 4), ha=align, **above)
    own = [row["plug_in"] for row in rows if row["estimator"] == IWAE]
    panels["snr"].plot(
        ks,
        own,
        MARKERS[IWAE],
        ms=6,
        mfc="white",
        color=COLOURS[IWAE],
        label="IWAE by its own noisy mean",
    )
    panels["snr"].axhline(
        floor(config.num_draws), color=COLOURS[IWAE], lw=1, ls=":", label="the floor of that"
    )
    panels["std"].set(
        title="standard deviation of the gradient in b", ylabel=f"mean of {config.dim} coordinates"
    )
    panels["snr"].set_title("signal to noise ratio of the gradient in b, and in mu")
    for axes in panels.values():
        axes.set(xscale="log", yscale="log", xlabel="K, samples")
        axes.minorticks_off()
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.spines[["top", "right"]].set_visible(False)
    panels["std"].plot([], [], "--", color="black", lw=1.2, label="theory of large K")
    entries = {
        label: handle
        for axes in panels.values()
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    drawing.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return drawing


def report(config: Config, rows: list[dict], summary: dict[str, dict]) -> None:
    header = [f"{what} {name}" for what in ("std", "SNR") for name in estimators(config)] + [
        "SNR IWAE, own mean",
        "SNR in mu",
    ]
    print(f"| K | {' | '.join(header)} |\n|{'---|' * (len(header) + 1)}")
    for k in sorted(set(config.num_samples)):
        at = {row["estimator"]: row for row in rows if row["num_samples"] == k}
        numbers = [at[name][what] for what in ("std", "snr") for name in estimators(config)] + [
            at[IWAE]["plug_in"],
            at[IN_MU]["snr"],
        ]
        print(f"| {k} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
    print(f"\nThe floor of a ratio with its own mean: {floor(config.num_draws):.3f}\n")
    print(
        "| estimator | slope of std | theory | slope of SNR | theory | std over theory | SNR over"
        " theory |\n|---|---|---|---|---|---|---|"
    )
    for name, of in summary.items():
        slopes = " | ".join(
            f"{of[f'slope of {what}'][which]:+.3f}"
            for what in ("std", "snr")
            for which in ("measured", "theory")
        )
        print(f"| {name} | {slopes} | {of['std over theory']:.3f} | {of['snr over theory']:.3f} |")


def main(config: Config) -> dict:
    check(config)
    instance_key, draw_key = jax.random.split(jax.random.key(config.seed))
    params, xs = near_the_optimum(config, instance_key)
    constants = large_k(config, params, xs)
    ks = sorted(set(config.num_samples))
    rows = [
        row for k in ks for row in measured(config, params, xs, k, jax.random.fold_in(draw_key, k))
    ]
    summary = comparison(config, constants, rows)
    report(config, rows, summary)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure(config, constants, rows).savefig(out / "snr.png", dpi=150)
    at_one = {
        name: predicted(of, 1) | {"exponent of std": of.exponent} for name, of in constants.items()
    }
    record(out, config, rows=rows, constants=at_one, comparison=summary)
    return {"comparison": summary, "floor": floor(config.num_draws), "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
