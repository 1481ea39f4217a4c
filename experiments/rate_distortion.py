r"""The rate-distortion curve of a VAE, by training it at many weights of the KL at once.

    python experiments/rate_distortion.py python experiments/rate_distortion.py --data mnist
    --latent-dim 20 --num-steps 10000 --out runs/rd_mnist

At each beta, E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) is maximised, all of them in one program,
mapped over beta. The rate is the mean KL, the distortion D = -E_q log p(x|z), and ELBO = -(D + R)
holds at every point, not only at beta = 1.

linear: data of five dimensions with known eigenvalues l, a linear VAE of five latents and noise
sigma^2. The whole curve is known: with the water level t = beta sigma^2 the rate is sum_i max(0,
log(l_i / t)) / 2 and the squared error sum_i min(l_i, t) ("reverse water-filling"), and latent i
collapses where l_i <= t. digits: the VAE of the flags on test images; beside the curve, how many
latents are in use.

Expected: the linear curve lies on the exact one to 1 %; on images the rate falls with beta, latent
after latent (Alemi et al. 2018). Measured by the first command on one core of an Intel Xeon, in 46
s:

    beta    rate      exact     squared error    exact     active        beta    rate     distortion
            ELBO      active
    0.5     5.6954    5.6952    0.6254           0.6250    5             0.1     15.01    15.13
            -30.13    8
    1       4.0728    4.0739    1.2008           1.2000    4             0.2     11.68    15.59
            -27.27    8
    2       2.6856    2.6876    2.2025           2.2000    4             0.5      7.61    16.92
            -24.53    8
    4       1.5535    1.5568    3.8079           3.8000    3             1        4.21    19.49
            -23.70    8
    8       0.6598    0.6609    6.3055           6.3000    2             1.5      2.16    22.18
            -24.34    8
    16      0.1117    0.1116    9.2868           9.3000    1             2        1.32    23.70
            -25.02    4
                                                                         3        0.12    26.76
                                                                                  -26.88    4

Every point of the linear VAE is within 0.2 % of the exact curve, and as many latents are in use as
have l_i > t.
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record
from matplotlib.figure import Figure
from train import Setting, build_model, training_config

import vaejax
from vaejax.base.mapping import Transformed, map_dataset
from vaejax.data.check import check_data, support_of
from vaejax.evaluation.latents import active_units
from vaejax.plots.images import BLUE, GREY, INK, ORANGE


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """The weights of the KL, and the two families of models."""

    betas: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
    """For the VAE on images."""
    hidden: tuple[int, ...] = (100,)
    latent_dim: int = 8
    num_steps: int = 3_000
    eigenvalues: tuple[float, ...] = (5.0, 3.0, 1.5, 0.6, 0.2)
    """Of the covariance of the data for the linear VAE."""
    sigma: float = 0.5
    """Its likelihood's scale."""
    linear_betas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    linear_steps: int = 10_000
    linear_size: int = 500
    """Examples of that data."""
    eval_samples: int = 200
    """Draws of q(z|x) that each distortion is the mean of."""
    out: str = "runs/rate_distortion"
    """The folder for result.json and rate_distortion.png."""


def weighted(model: vaejax.VAE, params: vaejax.Params, x, key) -> vaejax.Terms:
    """log p(x|z) - beta KL(q || p) at one z ~ q, beta = params.psi, which no gradient moves."""
    q = model.posterior(params, x)
    log_p_x = model.p_x_given_z(params, q.sample(key)).log_prob(x)
    kl = vaejax.kl_divergence(q, model.p_z(params))
    return vaejax.Terms(log_p_x - kl, log_p_x - jax.lax.stop_gradient(params.psi) * kl)


def trained(
    model: vaejax.VAE, betas: tuple[float, ...], images, transform, optimizer, key, **how: Any
) -> vaejax.Params:
    """Parameters at every beta, stacked: the same start, the same batches and the same noise for
    all.
    """
    init_key, pixels_key, fit_key = jax.random.split(key, 3)
    example = jnp.asarray(images[0]) if transform is None else transform(images[0], pixels_key)
    params = jax.jit(model.init)(init_key, example)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(betas)), params)._replace(
        psi=jnp.asarray(betas)
    )
    keys = jnp.stack([fit_key] * len(betas))
    return vaejax.fit_seeds(
        vaejax.minibatch(partial(weighted, model)),
        params,
        optimizer,
        images,
        keys,
        transform=transform,
        strategy="vmap",
        **how,
    ).params


def rate_and_distortion(model: vaejax.VAE, num_samples: int, params: vaejax.Params, x, key):
    """(KL(q || p), -E_q log p(x|z), E_q |x - E[x|z]|^2, E_q z) of one example."""
    q = model.posterior(params, x)

    def one(key):
        p_x = model.p_x_given_z(params, q.sample(key))
        return -p_x.log_prob(x), jnp.sum((x - p_x.mean) ** 2)

    distortion, error = map(jnp.mean, jax.vmap(one)(jax.random.split(key, num_samples)))
    return vaejax.kl_divergence(q, model.p_z(params)), distortion, error, q.mean


def curve(
    config: Config,
    model: vaejax.VAE,
    params: vaejax.Params,
    betas: tuple[float, ...],
    images,
    transform,
    key,
) -> list[dict]:
    """A row for each beta, means over the images."""
    rows, function = (
        [],
        Transformed(partial(rate_and_distortion, model, config.eval_samples), transform),
    )
    for i, beta in enumerate(betas):
        of_beta = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        found = map_dataset(function, of_beta, images, key)
        rate, distortion, error = (
            float(np.mean(np.asarray(part, np.float64))) for part in found[:3]
        )
        row = {
            "beta": beta,
            "rate": rate,
            "distortion": distortion,
            "squared_error": error,
            "elbo": -(rate + distortion),
        }
        rows.append(row | {"active": int(active_units(found[3]).sum())})
    return rows


# The linear VAE.


def water_filling(config: Config, beta: float) -> tuple[float, float]:
    """(rate, squared error) at the optimum."""
    level, eigenvalues = beta * config.sigma**2, np.asarray(config.eigenvalues)
    return float(0.5 * np.maximum(0, np.log(eigenvalues / level)).sum()), float(
        np.minimum(eigenvalues, level).sum()
    )


def gaussian_data(config: Config) -> np.ndarray:
    """[n, d] with exactly these variances, no covariance and mean 0."""
    raw = np.random.default_rng(config.seed).normal(
        size=(config.linear_size, len(config.eigenvalues))
    )
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / len(raw))).T
    return (white * np.sqrt(config.eigenvalues)).astype(np.float32)


def linear(config: Config) -> list[dict]:
    """The rows of the linear VAE, each with the exact rate and squared error."""
    dim = len(config.eigenvalues)
    likelihood, encoder = (
        vaejax.Gaussian(vaejax.MLP(dim, ()), config.sigma),
        vaejax.DiagNormal(vaejax.MLP(dim, (), heads=2)),
    )
    model, xs = vaejax.VAE(vaejax.StandardNormal(dim), likelihood, encoder), gaussian_data(config)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, config.linear_steps))
    key, curve_key = jax.random.split(jax.random.key(config.seed))
    how = {"num_steps": config.linear_steps, "batch_size": len(xs)}
    params = trained(model, config.linear_betas, xs, None, optimizer, key, **how)
    rows = curve(config, model, params, config.linear_betas, xs, None, curve_key)
    for row in rows:
        row["exact_rate"], row["exact_squared_error"] = water_filling(config, row["beta"])
    return rows


def images_of(config: Config) -> list[dict]:
    """The rows of the VAE on images, on the test set."""
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    images = dataset.train.images
    settings = training_config(config, num_steps=config.num_steps)
    model = build_model(settings, images[0])
    check_data(images, support_of(model), transform, name=config.data)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.num_steps))
    key, curve_key = jax.random.split(jax.random.key(config.seed + 1))
    how = {"num_steps": config.num_steps, "batch_size": config.batch_size}
    params = trained(model, config.betas, images, transform, optimizer, key, **how)
    return curve(config, model, params, config.betas, dataset.test.images, transform, curve_key)


def tables(of_linear: list[dict], of_images: list[dict]) -> str:
    lines = ["| beta | rate | exact | squared error | exact | active |", "|---" * 6 + "|"]
    for row in of_linear:
        cells = (
            f"{row['rate']:.4f} | {row['exact_rate']:.4f} | {row['squared_error']:.4f} |"
            f" {row['exact_squared_error']:.4f}"
        )
        lines.append(f"| {row['beta']:g} | {cells} | {row['active']} |")
    lines += ["", "| beta | rate | distortion | ELBO | active |", "|---" * 5 + "|"]
    lines += [
        f"| {r['beta']:g} | {r['rate']:.2f} | {r['distortion']:.2f} | {r['elbo']:.2f} |"
        f" {r['active']} |"
        for r in of_images
    ]
    return "\n".join(lines)


def figure_of(config: Config, of_linear: list[dict], of_images: list[dict]) -> Figure:
    """Left: the linear VAE on its exact curve. Right: the curve on images, and the line of equal
    ELBO through its best point.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    betas = np.geomspace(0.5 * min(config.linear_betas), 2 * max(config.linear_betas), 300)
    exact = np.array([water_filling(config, beta) for beta in betas])
    left.plot(*exact.T, color=GREY, lw=2, label="exact: reverse water-filling")
    left.plot(
        [r["rate"] for r in of_linear],
        [r["squared_error"] for r in of_linear],
        "o",
        color=BLUE,
        label="linear VAE, trained",
    )
    left.set(
        xlabel="rate (nats)",
        ylabel="E |x − E[x|z]|²",
        title=f"{len(config.eigenvalues)} Gaussian dimensions, labelled β (active latents)",
    )
    rates, distortions = ([r[name] for r in of_images] for name in ("rate", "distortion"))
    right.plot(rates, distortions, "o-", color=BLUE)
    best = max(of_images, key=lambda row: row["elbo"])
    ends = np.array([max(0, -best["elbo"] - max(distortions)), max(rates)])
    right.plot(
        ends,
        -best["elbo"] - ends,
        color=ORANGE,
        lw=1,
        ls="--",
        label=f"D + R = {-best['elbo']:.1f}, the best ELBO",
    )
    for rows, axes, name in ((of_linear, left, "squared_error"), (of_images, right, "distortion")):
        for row in rows:
            label = f"{row['beta']:g} ({row['active']})"
            axes.annotate(
                label,
                (row["rate"], row[name]),
                (6, 5),
                textcoords="offset points",
                fontsize=8,
                color=INK,
            )
        axes.legend(frameon=False, loc="upper right")
        axes.margins(x=0.1)
        axes.set_xlim(left=-0.03 * max(row["rate"] for row in rows))
        axes.spines[["top", "right"]].set_visible(False)
    right.set(
        xlabel="rate KL(q‖p) (nats)",
        ylabel="distortion −E log p(x|z) (nats)",
        title=f"{config.data}, test set, labelled β (active latents)",
    )
    return figure


def main(config: Config) -> dict:
    for name in ("betas", "linear_betas"):
        betas = getattr(config, name)
        if not betas or min(betas) <= 0:
            raise ValueError(f"{name} = {betas}; give at least one, all above 0")
    began = time.perf_counter()
    of_linear = linear(config)
    of_images = images_of(config)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(config, of_linear, of_images).savefig(out / "rate_distortion.png", dpi=150)
    print(f"nats per example; {time.perf_counter() - began:.0f} s")
    print(tables(of_linear, of_images))
    record(out, config, linear=of_linear, images=of_images)
    return {"linear": of_linear, "images": of_images, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
