r"""The exact posterior of a trained VAE with two latents, by NUTS and on a grid, against q(z|x) of
three families.

    python experiments/mcmc_posterior.py                                                    # the
                                                                                            embedded
                                                                                            digits
    python experiments/mcmc_posterior.py --data mnist --num-steps 10000 --out runs/mcmc_mnist

A VAE is trained with a diagonal normal q. Then theta stays, and with it p(z|x), and each family
gets an encoder of its own, trained anew on the ELBO. With two latents everything is exact on a grid
of z: p(z|x), its moments, and KL(q||p), which is log p(x) - ELBO. NUTS (Hoffman & Gelman 2014;
BlackJAX, with its window adaptation) runs on z -> log p(x, z), several chains from draws of the
prior, and is held against the grid: split R-hat, the effective sample size, and how many standard
errors its means are off. The picture has the posterior's density in grey, samples of NUTS as
points, and q's contours.

Expected: KL(q||p) falls from the diagonal to the full normal and on to the flow; most of it is the
encoder's and not the family's (Cremer et al. 2018), so that the best diagonal normal of each
example, refined from the encoder's, is below all three; and NUTS agrees with the grid where the
chains mix. Measured by the first command on two cores of an Intel Xeon in 44 s, over 50 test
examples, nats:

    q                       KL(q||p)           less than the first, paired
    diag-normal             0.292 +- 0.080
    full-normal             0.270 +- 0.068     0.022 +- 0.021
    real-nvp:4              0.224 +- 0.062     0.068 +- 0.025
    diag-normal, refined    0.095 +- 0.017     0.198 +- 0.067

On the five digits shown split R-hat is at most 1.002, 4,000 draws are worth 1,304 to 2,566, and the
ten means of NUTS are -2.3 to 2.4 of their standard errors from those of the grid. Two of the
posteriors have a second mode. That of the second digit has 0.8 % of the mass, and none of the draws
is in it: its spread along z_1 comes out as 0.86 of the true one. R-hat cannot say so, for no chain
was there. No q of the three covers it either.
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from blackjax.diagnostics import effective_sample_size, potential_scale_reduction
from common import command_line, record
from matplotlib.figure import Figure
from scipy.special import logsumexp
from train import Setting, build_encoder, build_optimizer, initial_params, training_config
from train import trained as trained_vae

import vaejax
from vaejax.base.mapping import estimate
from vaejax.plots.images import BLUE, INK, ORANGE, tile

NEGLIGIBLE = -25.0  # log density below the highest: what lies outside has a mass of about exp(-25)
REACH, COARSE = 6.0, 121  # the first grid is over [-6, 6]^2, at a spacing of 0.1
MASSES = (0.99, 0.9, 0.5)  # of the regions that are drawn
REFINED = "diag-normal, refined"
Entries = dict[str, tuple[Any, vaejax.Params]]  # a VAE or a Refined, and its parameters


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE with two latents, families of q for the same posterior, and how long NUTS runs."""

    hidden: tuple[int, ...] = (100, 100)
    num_steps: int = 3_000
    encoders: tuple[str, ...] = ("diag-normal", "full-normal", "real-nvp:4")
    """As --encoder of train.py; of each the density must be known everywhere."""
    encoder_steps: int = 3_000
    """Steps of each encoder's own training, with theta fixed."""
    refining_steps: int = 200
    """Steps from the diagonal normal's encoder to the best q of that family for each example
    (`vaejax.Refined`); 0 leaves that row out.
    """
    num_shown: int = 5
    """Test examples that NUTS is run on and that the picture shows: the first of each class, or the
    first where there are no labels.
    """
    num_measured: int = 50
    """Test examples that KL(q||p) is averaged over."""
    grid: int = 150
    """Points of the grid in each direction."""
    num_chains: int = 4
    num_warmup: int = 500
    num_samples: int = 1_000
    """Of each chain, after the warm-up."""
    out: str = "runs/mcmc_posterior"
    """The folder for result.json and posterior.png."""


def encoder_bound(model: vaejax.VAE, params: vaejax.Params, x, key):
    """The one-sample ELBO with theta held fixed."""
    return vaejax.Pathwise()(
        model, params._replace(theta=jax.lax.stop_gradient(params.theta)), x, key
    )


def encoders_of_one_decoder(
    setting: Setting, names: tuple[str, ...], num_steps: int, encoder_steps: int, images, transform
) -> Entries:
    """{encoder: (model, params)}: a VAE is trained, then an encoder of each kind on its theta,
    which is the same in all.
    """
    settings = training_config(setting, num_steps=encoder_steps, schedule="cosine")
    encoders = {
        name: build_encoder(dataclasses.replace(settings, encoder=name)) for name in names
    }  # a wrong name before anything trains
    model, of_decoder = trained_vae(setting, images, transform, num_steps, schedule="cosine")
    init_key, _, encoder_key = jax.random.split(jax.random.key(setting.seed), 3)
    optimizer, how = (
        build_optimizer(settings),
        {
            "batch_size": setting.batch_size,
            "transform": transform,
        },
    )
    entries: Entries = {}
    for name, encoder in encoders.items():
        other = dataclasses.replace(model, encoder=encoder)
        start = initial_params(settings, other, images, transform, init_key)._replace(
            theta=of_decoder.theta
        )
        objective = vaejax.minibatch(partial(encoder_bound, other))
        entries[name] = (
            other,
            vaejax.fit(
                objective, start, optimizer, images, encoder_key, num_steps=encoder_steps, **how
            ).params,
        )
    return entries


def trained(config: Config, dataset: vaejax.Dataset, transform) -> Entries:
    """{encoder: (model, params)}, theta the same in all."""
    entries = encoders_of_one_decoder(
        config,
        config.encoders,
        config.num_steps,
        config.encoder_steps,
        dataset.train.images,
        transform,
    )
    for name in [
        name for name in config.encoders if name == "diag-normal" and config.refining_steps
    ]:
        other, params = entries[name]
        entries[REFINED] = vaejax.Refined(other, config.refining_steps), params
    return entries


class OnGrid(NamedTuple):
    """The posterior and each q as probabilities of the cells of a grid over z, in logarithms that
    sum to one.

    `mass` is what the density of each q adds up to on the grid, 1 where the grid is wide and fine
    enough.
    """

    points: np.ndarray
    log_p: np.ndarray
    log_q: dict[str, np.ndarray]
    log_marginal: float
    mass: dict[str, float]

    def kl(self, name: str) -> float:
        """KL(q || p), nats."""
        log_q = self.log_q[name]
        return float(np.sum(np.exp(log_q) * (log_q - self.log_p)))


def square(low, high, size: int) -> jax.Array:
    """[size^2, 2] points of a grid between two corners."""
    axes = [jnp.linspace(low[i], high[i], size) for i in range(2)]
    return jnp.stack(jnp.meshgrid(*axes), axis=-1).reshape(-1, 2)


def on_grid(entries: Entries, xs, size: int) -> list[OnGrid]:
    """For each example, on a grid over where p(z|x) or a q(z|x) is not negligible: found on a
    coarse one, the same for all.
    """
    models = {name: model for name, (model, _) in entries.items()}
    params = {name: of for name, (_, of) in entries.items()}
    one = next(iter(models))

    @jax.jit
    def coarse(params, xs):
        points = square((-REACH, -REACH), (REACH, REACH), COARSE)
        at = lambda z: jax.vmap(lambda x: models[one].log_joint(params[one], x, z))(xs)  # noqa: E731  one decoding for all x
        return points, jax.lax.map(at, points, batch_size=1_000).T

    @jax.jit
    def log_q(params, x, points):
        return {
            name: jax.vmap(model.posterior(params[name], x).log_prob)(points)
            for name, model in models.items()
        }

    @jax.jit
    def fine(params, x, low, high):
        points = square(low, high, size)
        log_joint = jax.lax.map(
            partial(models[one].log_joint, params[one], x), points, batch_size=1_000
        )
        return points, log_joint, log_q(params, x, points)

    points, log_joints = coarse(params, xs)
    tables = []
    for x, log_joint in zip(xs, log_joints, strict=True):
        low, high = box(np.asarray(points), [log_joint, *log_q(params, x, points).values()])
        tables.append(
            normalised(
                *jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), fine(params, x, low, high))
            )
        )
    return tables


def box(points: np.ndarray, log_densities: list) -> tuple[np.ndarray, np.ndarray]:
    """The corners around all points where one of the densities is not negligible, with a margin of
    two cells.
    """
    densities = np.asarray(log_densities)
    inside = points[np.any(densities > densities.max(axis=1, keepdims=True) + NEGLIGIBLE, axis=0)]
    margin = 2 * 2 * REACH / (COARSE - 1)
    return inside.min(axis=0) - margin, inside.max(axis=0) + margin


def normalised(points: np.ndarray, log_joint: np.ndarray, log_q: dict[str, np.ndarray]) -> OnGrid:
    side = int(np.sqrt(len(points))) - 1
    log_area = np.log(np.ptp(points, axis=0) / side).sum()
    totals = {name: logsumexp(of) for name, of in log_q.items()}
    log_q = {name: of - totals[name] for name, of in log_q.items()}
    mass = {name: float(np.exp(total + log_area)) for name, total in totals.items()}
    return OnGrid(
        points,
        log_joint - logsumexp(log_joint),
        log_q,
        float(logsumexp(log_joint) + log_area),
        mass,
    )


def moments(points: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations."""
    weights = np.exp(log_weights)
    mean = weights @ points
    return mean, np.sqrt(weights @ (points - mean) ** 2)


def nuts(
    log_density: Callable, starts: jax.Array, key, num_warmup: int, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """Samples [chains, n, d] of NUTS, each chain adapted on its own from its start [d], and which
    of them ended in a divergence.
    """

    def chain(start, key):
        warmup_key, sample_key = jax.random.split(key)
        adaptation: Any = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), _ = adaptation.run(warmup_key, start, num_warmup)
        step: Any = blackjax.nuts(log_density, **parameters).step

        def one(state, key):
            state, info = step(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(one, state, jax.random.split(sample_key, num_samples))[1]

    return jax.vmap(chain)(starts, jax.random.split(key, len(starts)))


def split_r_hat(samples) -> np.ndarray:
    """Of the halves of the chains, for each coordinate of samples [chains, n, d]."""
    chains, n, dim = samples.shape
    return np.asarray(
        potential_scale_reduction(samples[:, : n // 2 * 2].reshape(2 * chains, n // 2, dim))
    )


class Sampled(NamedTuple):
    """What NUTS found of one example. `off` is how many standard errors its means are from the
    grid's, by the effective sample size.

    `spread` is its standard deviations over the grid's: below 1 where chains stay in one mode of
    several, all in the same.
    """

    samples: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray
    off: np.ndarray
    spread: np.ndarray
    divergences: int


def sample_posteriors(
    config: Config, model, params: vaejax.Params, xs, tables: list[OnGrid], key
) -> list[Sampled]:
    """NUTS on each example, from draws of the prior."""

    @jax.jit
    def run(params, x, key):
        start_key, key = jax.random.split(key)
        starts = jax.vmap(model.p_z(params).sample)(jax.random.split(start_key, config.num_chains))
        return nuts(
            partial(model.log_joint, params, x), starts, key, config.num_warmup, config.num_samples
        )

    results = []
    for i, (x, table) in enumerate(zip(xs, tables, strict=True)):
        samples, divergent = run(params, x, jax.random.fold_in(key, i))
        ess = np.asarray(effective_sample_size(samples))
        mean, deviation = moments(table.points, table.log_p)
        flat = np.asarray(samples, np.float64).reshape(-1, 2)
        off, spread = (
            (flat.mean(axis=0) - mean) / (deviation / np.sqrt(ess)),
            flat.std(axis=0) / deviation,
        )
        results.append(
            Sampled(
                np.asarray(samples), split_r_hat(samples), ess, off, spread, int(divergent.sum())
            )
        )
    return results


def chosen(labels: np.ndarray | None, count: int) -> np.ndarray:
    """Rows: the first of each class, classes in order, then the others."""
    if labels is None:
        return np.arange(count)
    first = np.unique(labels, return_index=True)[1]
    return np.concatenate([first, np.setdiff1d(np.arange(len(labels)), first)])[:count]


def figure_of(
    images: np.ndarray, tables: list[OnGrid], sampled: list[Sampled], names: tuple[str, ...]
) -> Figure:
    """A column for each digit, a row for each family of q."""
    columns = len(images)
    figure = Figure(figsize=(2.35 * columns + 0.6, 2.5 * len(names) + 1.6), layout="constrained")
    panels = figure.subplots(
        len(names) + 1, columns, squeeze=False, height_ratios=[0.42, *[1] * len(names)]
    )
    for axes, image, of in zip(panels[0], images, sampled, strict=True):
        axes.imshow(tile(image[None], 1), cmap="gray_r", vmin=0, vmax=1)
        axes.axis("off")
        axes.set_title(
            f"NUTS: $\\hat R$ {of.r_hat.max():.2f}, ESS {of.ess.min():,.0f}", fontsize=9, color=INK
        )
    for row, name in zip(panels[1:], names, strict=True):
        for axes, table, of in zip(row, tables, sampled, strict=True):
            draw(axes, table, of.samples, name)
            axes.set(**window(table))
        row[0].set_ylabel(f"q: {name}\n\n$z_2$", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("$z_1$", fontsize=10)
    figure.suptitle(
        "p(z|x) exactly (grey: regions of 50, 90 and 99 %), samples of NUTS (points), q(z|x)"
        " (orange: 50, 90 %)",
        fontsize=11,
    )
    return figure


def draw(axes, table: OnGrid, samples: np.ndarray, name: str, num_points: int = 250) -> None:
    side = int(np.sqrt(len(table.points)))
    first, second = table.points[:side, 0], table.points[::side, 1]
    density = lambda log_p: np.exp(log_p - log_p.max()).reshape(side, side)  # noqa: E731
    axes.contourf(
        first,
        second,
        density(table.log_p),
        [*levels(table.log_p, MASSES), 1.01],
        colors=["#e3e7ea", "#c3cacf", "#9aa5ad"],
    )
    flat = samples.reshape(-1, 2)
    shown = flat[:: max(1, len(flat) // num_points)]
    axes.scatter(*shown.T, s=2.5, color=BLUE, linewidths=0, alpha=0.7)
    axes.contour(
        first,
        second,
        density(table.log_q[name]),
        levels(table.log_q[name], MASSES[1:]),
        colors=ORANGE,
        linewidths=1.4,
    )
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
    axes.locator_params(nbins=4)
    axes.set_title(f"KL(q‖p) = {table.kl(name):.2f} nats", fontsize=10)


def window(table: OnGrid) -> dict[str, tuple[float, float]]:
    """The square that is shown: where p(z|x) or a q(z|x) is above a thousandth of its highest."""
    densities = [table.log_p, *table.log_q.values()]
    inside = np.concatenate(
        [table.points[log_p - log_p.max() > np.log(1e-3)] for log_p in densities]
    )
    centre, half = (
        (inside.max(axis=0) + inside.min(axis=0)) / 2,
        0.55 * np.ptp(inside, axis=0).max(),
    )
    return {f"{axis}lim": (centre[i] - half, centre[i] + half) for i, axis in enumerate("xy")}


def levels(log_p: np.ndarray, masses: tuple[float, ...]) -> np.ndarray:
    """The densities, as parts of the highest, whose regions above have these masses."""
    descending = np.sort(log_p)[::-1]
    rows = np.searchsorted(np.cumsum(np.exp(descending)), masses)
    return np.exp(descending[np.minimum(rows, len(descending) - 1)] - descending[0])


def table_of(rows: list[dict]) -> str:
    lines = [
        "| q | KL(q‖p) | sd of q / sd of p | KL less than the first's by |",
        "|---|---|---|---|",
    ]
    for row in rows:
        gain = "" if row is rows[0] else f"{row['gain']:.3f} ± {row['error_of_gain']:.3f}"
        lines.append(
            f"| {row['encoder']} | {row['kl']:.3f} ± {row['error']:.3f} |"
            f" {row['deviation_ratio']:.2f} | {gain} |"
        )
    return "\n".join(lines)


def table_of_chains(sampled: list[Sampled]) -> str:
    lines = [
        (
            "| NUTS on | split R-hat | effective samples | means off, errors | sd / sd on the grid"
            " | divergences |"
        ),
        "|---" * 6 + "|",
    ]
    for i, of in enumerate(sampled):
        off, spread = (
            ", ".join(f"{number:.2f}" for number in numbers) for numbers in (of.off, of.spread)
        )
        lines.append(
            f"| digit {i + 1} | {of.r_hat.max():.3f} | {of.ess.min():,.0f} | {off} | {spread} |"
            f" {of.divergences} |"
        )
    return "\n".join(lines)


def compare(tables: list[OnGrid], names: tuple[str, ...]) -> list[dict]:
    """A row for each family, over the measured examples; the gain is paired."""
    kls = {name: np.array([table.kl(name) for table in tables]) for name in names}
    rows = []
    for name in names:
        ratios = [
            moments(of.points, of.log_q[name])[1] / moments(of.points, of.log_p)[1] for of in tables
        ]
        kl, gain = estimate(kls[name]), estimate(kls[names[0]] - kls[name])
        row = {
            "encoder": name,
            "kl": kl.mean,
            "error": kl.standard_error,
            "gain": gain.mean,
            "error_of_gain": gain.standard_error,
        }
        least = {
            "least_kl": float(kls[name].min()),
            "least_mass": min(of.mass[name] for of in tables),
        }
        rows.append(row | {"deviation_ratio": float(np.mean(ratios))} | least)
    return rows


def check(config: Config) -> None:
    if config.latent_dim != 2:
        raise ValueError(
            f"latent_dim = {config.latent_dim}; the grid is over two latents, so it must be 2"
        )
    for name, least in {
        "num_shown": 1,
        "num_chains": 2,
        "num_samples": 4,
        "num_warmup": 20,
        "grid": 20,
    }.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least {least}")
    if config.num_measured < max(2, config.num_shown):
        raise ValueError(
            f"num_measured = {config.num_measured}; it must be at least 2, and at least num_shown ="
            f" {config.num_shown}"
        )
    if not config.encoders:
        raise ValueError("encoders is empty; name at least one, such as diag-normal")


def main(config: Config) -> dict:
    check(config)
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    entries = trained(config, dataset, transform)
    pixels_key, nuts_key = jax.random.split(jax.random.key(config.seed + 1))
    images = dataset.test.images[chosen(dataset.test.labels, config.num_measured)]
    xs = jax.jit(jax.vmap(transform))(images, jax.random.split(pixels_key, len(images)))
    tables = on_grid(entries, xs, config.grid)
    model, params = entries[config.encoders[0]]
    shown = slice(config.num_shown)
    sampled = sample_posteriors(config, model, params, xs[shown], tables[shown], nuts_key)
    rows = compare(tables, tuple(entries))
    chains = [
        {name: np.asarray(of).tolist() for name, of in one._asdict().items() if name != "samples"}
        for one in sampled
    ]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(np.asarray(xs[shown]), tables[shown], sampled, tuple(entries)).savefig(
        out / "posterior.png", dpi=150
    )
    print(
        f"nats per example, mean over {len(tables)} test examples ± standard error; the difference"
        " is paired"
    )
    print(table_of(rows))
    print(table_of_chains(sampled))
    record(out, config, data=dataset.source, rows=rows, nuts=chains)
    return {"rows": rows, "nuts": chains, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
