r"""The rate-distortion curve of a VAE, by training it at many weights of the KL at once.

    python experiments/representation/rate_distortion.py
    python experiments/representation/rate_distortion.py --data mnist --latent-dim 20 \
        --num-steps 10000 --out runs/rd_mnist

At each beta, E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) is maximised, all of them in one program,
mapped over beta. The rate is the mean KL, the distortion D = -E_q log p(x|z), and ELBO = -(D + R)
holds at every point, not only at beta = 1.

linear: data of five dimensions with known eigenvalues l, a linear VAE of five latents and noise
sigma^2. The whole curve is known: with the water level t = beta sigma^2 the rate is sum_i max(0,
log(l_i / t)) / 2 and the squared error sum_i min(l_i, t) ("reverse water-filling"), and latent i
collapses where l_i <= t.

digits: the VAE of the flags on test images; beside the curve, how many latents are in use.

Expected: the linear curve lies on the exact one to 1 %; on images the rate falls with beta, latent
after latent (Alemi et al. 2018). Measured by the first command, the linear VAE:

    beta    rate      exact     squared error    exact     active
    0.5     5.6954    5.6952    0.6254           0.6250    5
    1       4.0728    4.0739    1.2008           1.2000    4
    2       2.6856    2.6876    2.2025           2.2000    4
    4       1.5535    1.5568    3.8079           3.8000    3
    8       0.6598    0.6609    6.3055           6.3000    2
    16      0.1117    0.1116    9.2868           9.3000    1

and the digits:

    beta    rate     distortion    ELBO      active
    0.1     15.01    15.13         -30.13    8
    0.2     11.68    15.59         -27.27    8
    0.5      7.61    16.92         -24.53    8
    1        4.21    19.49         -23.70    8
    1.5      2.16    22.18         -24.34    8
    2        1.32    23.70         -25.02    4
    3        0.12    26.76         -26.88    4

Every point of the linear VAE is within 0.2 % of the exact curve, and as many latents are in use as
have l_i > t.

Duration: 46 s on one core of an Intel Xeon.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.data import Examples
from experiments.lib.script import Report, run_script
from experiments.lib.training import fitted_seeds
from vaejax import plots
from vaejax.base.fields import Count, Distinct, Positive
from vaejax.data.check import check_data
from vaejax.runs.build import build_model, load_data
from vaejax.runs.config import training_config

EIGENVALUES = np.array([5.0, 3.0, 1.5, 0.6, 0.2])  # of the covariance of the linear VAE's data
SCALE = 0.5  # of its likelihood


@dataclasses.dataclass(frozen=True)
class Config(flags.PlainSetting):
    """The weights of the KL, and the two families of models."""

    betas: flags.Betas = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
    hidden: tuple[Count, ...] = (100,)
    latent_dim: Count = 8
    num_steps: Count = 3_000
    bound_samples: flags.BoundSamples = 200
    linear_betas: Distinct[Positive] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    """Weights of the KL of the linear VAE."""
    linear_steps: Count = 10_000
    """Steps of its training."""
    linear_examples: Count = 500
    """Examples of its data."""
    out: str = "runs/rate_distortion"


# One model at every beta.


@vaejax.component
class Weighted(vaejax.Estimator):
    """log p(x|z) - beta KL at one z ~ q, beta = params.psi, held; the bound has beta = 1."""

    def __call__(self, model, params, x, key):
        return self.terms(model, params, x, key, 0).bound

    def terms(self, model, params, x, key, step):
        q = model.posterior(params, x)
        log_p_x = model.p_x_given_z(params, q.sample(key)).log_prob(x)
        kl = vaejax.kl_divergence(q, model.p_z(params))
        weight = jax.lax.stop_gradient(params.psi)
        return vaejax.Terms(log_p_x - kl, log_p_x - weight * kl, log_p_x)


def trained_at_each(
    steps: Config, betas: tuple[float, ...], model: vaejax.VAE, train: Examples, key
) -> dict[float, vaejax.Params]:
    """The parameters at every beta: the same start, the same batches and the same noise for all."""
    init_key, pixels_key, fit_key = jax.random.split(key, 3)
    start = jax.jit(model.init)(init_key, train.first(pixels_key))
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(betas)), start)
    params = fitted_seeds(
        steps,
        vaejax.minibatch(Weighted(), model),
        starts._replace(psi=jnp.asarray(betas)),
        train.stored,
        jnp.stack([fit_key] * len(betas)),
        train.transform,
        strategy="vmap",
    )
    return dict(zip(betas, params, strict=True))


def rate_and_distortion(model: vaejax.VAE, num_samples: int, params: vaejax.Params, x, key):
    """(KL(q || p), -E_q log p(x|z), E_q |x - E[x|z]|^2, E_q z) of one example."""
    q = model.posterior(params, x)

    def errors(key):
        p_x = model.p_x_given_z(params, q.sample(key))
        return -p_x.log_prob(x), jnp.sum((x - p_x.mean()) ** 2)

    distortion, error = map(jnp.mean, jax.vmap(errors)(jax.random.split(key, num_samples)))
    return vaejax.kl_divergence(q, model.p_z(params)), distortion, error, q.mean()


def curve(config: Config, model: vaejax.VAE, by_beta: dict, test: Examples, key) -> list[dict]:
    """A row for each beta of {beta: parameters}, means over the images."""
    rows, measure = [], partial(rate_and_distortion, model, config.bound_samples)
    for beta, params in by_beta.items():
        *parts, means = test.each(measure, params, key)
        rate, distortion, error = (float(part.mean()) for part in parts)
        row = {"beta": beta, "rate": rate, "distortion": distortion, "squared_error": error}
        row |= {"elbo": -(rate + distortion), "active": int(vaejax.active_units(means).sum())}
        rows.append(row)
    return rows


# The linear VAE, and the one on images.


def water_filling(beta: float) -> tuple[float, float]:
    """(rate, squared error) at the optimum."""
    level = beta * SCALE**2
    # rate = sum_i max(0, log(l_i / t)) / 2,  squared error = sum_i min(l_i, t)
    rate = 0.5 * np.maximum(0, np.log(EIGENVALUES / level)).sum()
    return float(rate), float(np.minimum(EIGENVALUES, level).sum())


def gaussian_data(size: int, seed: int) -> np.ndarray:
    """[n, d] with exactly these variances, no covariance and mean 0."""
    raw = np.random.default_rng(seed).normal(size=(size, len(EIGENVALUES)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / len(raw))).T
    return (white * np.sqrt(EIGENVALUES)[None]).astype(np.float32)


def linear_rows(config: Config) -> list[dict]:
    """The rows of the linear VAE, each with the exact rate and squared error."""
    data = Examples(gaussian_data(config.linear_examples, config.seed), None)
    dim = len(EIGENVALUES)
    likelihood = vaejax.Gaussian(vaejax.MLP(dim, ()), SCALE)
    encoder = vaejax.DiagNormal(vaejax.MLP(dim, (), heads=2))
    model = vaejax.VAE(vaejax.StandardNormal(dim), likelihood, encoder)
    key, curve_key = jax.random.split(jax.random.key(config.seed))
    steps = {"num_steps": config.linear_steps, "batch_size": len(data), "learning_rate": 0.02}
    settings = dataclasses.replace(config, **steps)
    by_beta = trained_at_each(settings, config.linear_betas, model, data, key)
    rows = curve(config, model, by_beta, data, curve_key)
    for row in rows:
        row["exact_rate"], row["exact_squared_error"] = water_filling(row["beta"])
    return rows


def image_rows(config: Config) -> list[dict]:
    """The rows of the VAE on images, on the test set."""
    dataset, transform = load_data(config)
    train, test = (Examples(split.images, transform) for split in (dataset.train, dataset.test))
    model = build_model(training_config(config), train.stored[0])
    check_data(train.stored, model.support, transform, name=config.data)
    key, curve_key = jax.random.split(jax.random.key(config.seed + 1))
    by_beta = trained_at_each(config, config.betas, model, train, key)
    return curve(config, model, by_beta, test, curve_key)


# What is reported.


def figure(config: Config, linear: list[dict], images: list[dict]) -> Figure:
    """Left: the linear VAE on its exact curve. Right: images, and a line of equal ELBO."""
    drawing, [[left, right]] = plots.figure_of(columns=2, size=(10, 4.2))
    draw_linear(left, config, linear)
    draw_images(right, images)
    right.set_title(f"{config.data}, test set, labelled β (active latents)")
    for axes, rows, name in ((left, linear, "squared_error"), (right, images, "distortion")):
        label_points(axes, rows, name)
        plots.legend(axes, "upper right")
        axes.margins(x=0.1)
        plots.finish(axes)
        axes.set_xlim(left=-0.03 * max(row["rate"] for row in rows))
    return drawing


def label_points(axes: Axes, rows: list[dict], name: str) -> None:
    """Each beta beside its point; of points that lie on one another, such as those of the betas
    that leave no latent active, the first alone.
    """
    points = np.array([(row["rate"], row[name]) for row in rows])
    apart = 0.05 * np.ptp(points, axis=0)
    labelled: list[np.ndarray] = []
    for row, point in zip(rows, points, strict=True):
        if not any(np.all(np.abs(point - other) < apart) for other in labelled):
            figures.note(
                axes, f"{row['beta']:g} ({row['active']})", tuple(point), (6, 5), fontsize=8
            )
            labelled.append(point)


def draw_linear(axes: Axes, config: Config, rows: list[dict]) -> None:
    low, high = min(config.linear_betas), max(config.linear_betas)
    exact = [water_filling(beta) for beta in np.geomspace(0.5 * low, 2 * high, 300)]
    label = "exact: reverse water-filling"
    axes.plot(*np.array(exact).T, color=plots.GREY, lw=2, label=label)
    points = tables.columns(rows, "rate", "squared_error")
    axes.plot(*points, "o", color=plots.BLUE, label="linear VAE, trained")
    axes.set(xlabel="rate (nats)", ylabel="E |x − E[x|z]|²")
    axes.set_title(f"{len(EIGENVALUES)} Gaussian dimensions, labelled β (active latents)")


def draw_images(axes: Axes, rows: list[dict]) -> None:
    rates, distortions, elbos = tables.columns(rows, "rate", "distortion", "elbo")
    axes.plot(rates, distortions, "o-", color=plots.BLUE)
    best = max(elbos)
    ends = np.array([max(0, -best - max(distortions)), max(rates)])
    label = f"D + R = {-best:.1f}, the best ELBO"
    axes.plot(ends, -best - ends, color=plots.ORANGE, lw=1, ls="--", label=label)
    axes.set(xlabel="rate KL(q‖p) (nats)", ylabel="distortion −E log p(x|z) (nats)")


def experiment(config: Config) -> Report:
    images = image_rows(config)  # first, since data may be refused
    linear = linear_rows(config)
    exact = "{rate:.4f} | {exact_rate:.4f} | {squared_error:.4f} | {exact_squared_error:.4f}"
    header = "beta | rate | exact | squared error | exact | active"
    of_linear = tables.table(header, f"{{beta:g}} | {exact} | {{active}}", linear)
    line = "{beta:g} | {rate:.2f} | {distortion:.2f} | {elbo:.2f} | {active}"
    of_images = tables.table("beta | rate | distortion | ELBO | active", line, images)
    return Report(
        {"linear": linear, "images": images},
        f"nats per example\n{of_linear}\n\n{of_images}",
        {"rate_distortion": lambda: figure(config, linear, images)},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
