"""When does stopping the score help? On the one-dimensional linear-Gaussian model: where q is wider
than half the posterior's variance.

    python experiments/sticking_the_landing.py            # some seconds on two CPU cores

p(z) = N(0, 1), p(x|z) = N(w z + b, tau^2), q = N(mu, s^2). With lam the precision of the posterior
and d the distance of mu from its mean, the variances of one sample's gradient are, in closed form,

    Pathwise           in mu lam^2 s^2               in log s  lam^2 d^2 s^2 + 2 lam^2 s^4
    StickTheLanding    in mu (1 - lam s^2)^2 / s^2   in log s  lam^2 d^2 s^2 + 2 (1 - lam s^2)^2

so that they cross at lam s^2 = 1/2 in both, and the second vanishes at the posterior, lam s^2 = 1,
d = 0 (Roeder, Wu & Duvenaud 2017). The script measures both by `vaejax.gradient_moments` at twelve
widths, and holds them against these formulas.

Measured on two cores of an Intel Xeon, in 9 seconds: of the 48 intervals at 95 %, 43 cover the
closed form, and they share their keys; the worst of the 48 traces is off by 6 %, one of log s,
whose gradient is quadratic in the noise.
"""

import dataclasses
import math
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import command_line, record
from matplotlib.figure import Figure

import vaejax
from vaejax.variance.groups import Part
from vaejax.variance.intervals import Spread


@dataclasses.dataclass(frozen=True)
class Config:
    """The model, the widths and the number of draws."""

    w: float = 1.3
    b: float = 0.2
    tau: float = 0.8
    x: float = 1.1
    mu: float = 0.4
    widths: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
    """Values of lam s^2, the variance of q in units of the posterior's."""
    num_draws: int = 20_000
    seed: int = 0
    out: str = "runs/sticking_the_landing"


GROUPS = {"mu": Part(("phi", "loc")), "log s": Part(("phi", "log_scale"))}
ESTIMATORS = {"Pathwise": vaejax.Pathwise(), "StickTheLanding": vaejax.StickTheLanding()}


def closed_forms(config: Config, width: float) -> dict[tuple[str, str], float]:
    """The variance of each estimator in each parameter, at lam s^2 = width."""
    lam = 1 + config.w**2 / config.tau**2
    d = config.mu - config.w * (config.x - config.b) / (config.tau**2 * lam)
    s2 = width / lam
    return {
        ("Pathwise", "mu"): lam**2 * s2,
        ("Pathwise", "log s"): lam**2 * d**2 * s2 + 2 * lam**2 * s2**2,
        ("StickTheLanding", "mu"): (1 - width) ** 2 / s2,
        ("StickTheLanding", "log s"): lam**2 * d**2 * s2 + 2 * (1 - width) ** 2,
    }


def measured(config: Config, width: float, key) -> dict[tuple[str, str], Spread]:
    likelihood = vaejax.Gaussian(vaejax.MLP(1, ()), config.tau)
    model = vaejax.VAE(
        vaejax.StandardNormal(1), likelihood, vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None)
    )
    lam = 1 + config.w**2 / config.tau**2
    phi = {"loc": jnp.asarray([config.mu]), "log_scale": jnp.asarray([0.5 * math.log(width / lam)])}
    line = {
        "params": {
            "Dense_0": {"kernel": jnp.asarray([[config.w]]), "bias": jnp.asarray([config.b])}
        }
    }
    params = vaejax.Params({"prior": (), "likelihood": {"net": line}}, phi)
    spreads = {}
    for name, estimator in ESTIMATORS.items():
        arguments = params, jnp.asarray([config.x]), key, config.num_draws
        moments = vaejax.gradient_moments(
            partial(estimator, model), *arguments, groups=GROUPS, chunk=500
        )
        spreads |= {
            (name, group): spread
            for group, spread in vaejax.gradient_spread(moments, GROUPS).items()
        }
    return spreads


def figure(config: Config, rows: list[dict]) -> Figure:
    """Both parameters: the closed forms as lines, what was measured as points with intervals."""
    drawing = Figure(figsize=(9, 3.8), layout="constrained")
    grid = np.linspace(0.06, max(config.widths), 300)
    for axes, group in zip(drawing.subplots(1, 2), GROUPS, strict=True):
        for name, colour in zip(ESTIMATORS, ("#2c6fbb", "#d9730d"), strict=True):
            axes.plot(
                grid,
                [closed_forms(config, width)[name, group] for width in grid],
                color=colour,
                lw=1.4,
            )
            points = [row for row in rows if row["estimator"] == name and row["parameter"] == group]
            errors = np.array(
                [(row["measured"] - row["low"], row["high"] - row["measured"]) for row in points]
            ).T
            at = [row["width"] for row in points]
            axes.errorbar(
                at,
                [row["measured"] for row in points],
                errors,
                fmt="o",
                ms=4,
                color=colour,
                label=name,
            )
        axes.axvline(0.5, color="#95a5a6", lw=0.8, ls=":")
        axes.set(
            yscale="log",
            xlabel=r"$\lambda s^2$, the variance of q over the posterior's",
            title=f"gradient in {group}",
        )
        axes.set_ylim(bottom=3e-3)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.axes[0].set_ylabel("variance of one sample's gradient")
    drawing.axes[0].legend(frameon=False)
    return drawing


def main(config: Config) -> dict:
    rows = []
    keys = jax.random.split(jax.random.key(config.seed), len(config.widths))
    for width, key in zip(config.widths, keys, strict=True):
        exact, spreads = closed_forms(config, width), measured(config, width, key)
        for (name, group), spread in spreads.items():
            row = {
                "width": width,
                "estimator": name,
                "parameter": group,
                "exact": exact[name, group],
            }
            rows.append(row | {"measured": spread.trace, "low": spread.low, "high": spread.high})
    print(
        "| lam s^2 | parameter | Pathwise, exact | measured | StickTheLanding, exact | measured |"
        " less |\n|---|---|---|---|---|---|---|"
    )
    for first, second in (
        (rows[i], rows[i + 2]) for start in range(0, len(rows), 4) for i in (start, start + 1)
    ):
        numbers = " | ".join(
            f"{row['exact']:.4f} | {row['measured']:.4f}" for row in (first, second)
        )
        winner = min((first, second), key=lambda row: row["exact"])["estimator"]
        winner = "either" if math.isclose(first["exact"], second["exact"]) else winner
        print(f"| {first['width']} | {first['parameter']} | {numbers} | {winner} |")
    inside = float(np.mean([row["low"] <= row["exact"] <= row["high"] for row in rows]))
    worst = max(abs(row["measured"] / row["exact"] - 1) for row in rows if row["exact"] > 1e-6)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure(config, rows).savefig(out / "variance.png", dpi=150)
    summary = {"intervals_that_cover": inside, "worst_relative_error": worst}
    record(out, config, rows=rows, **summary)
    return summary | {"out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
