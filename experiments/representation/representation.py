r"""What the posterior means are worth as features of digits, and how well each keeps to one factor
of shapes, against beta.

    python experiments/representation/representation.py
    python experiments/representation/representation.py --parts digits --data mnist \
        --latent-dim 20 --num-steps 10000 --out runs/representation_mnist

digits: a VAE is trained on the images alone. A linear probe and the nearest neighbour are then
shown a few labelled images, as raw pixels, as principal components (as many as there are latents,
fitted to the same images) or as the posterior means, and tested on the test set.

shapes: ellipses on 16 x 16 pixels, made from four independent uniform factors: the centre's two
coordinates, the size and the elongation. A beta-VAE (Higgins et al. 2017) is trained at each beta,
with several seeds, and its posterior means on unseen images are scored by MIG, DCI and SAP
(`vaejax.representation`). Units that are not active are set to zero first. Traversals are of the
first seed.

Expected: the posterior means beat raw pixels where labels are few (Kingma et al. 2014); a beta
above 1 raises the scores of disentanglement, until latents collapse and informativeness falls; and
seeds differ a lot (Locatello et al. 2019). Measured by the first command: test accuracy, mean of
ten choices of the labelled images, standard errors below 0.025; the last column is the nearest
neighbour:

    linear probe of            10 labels    30       100      300      1,000    1 nearest, 100
    10 posterior means         0.366        0.566    0.802    0.887    0.914    0.821
    10 principal components    0.417        0.663    0.827    0.874    0.906    0.865
    64 pixels                  0.418        0.639    0.850    0.931    0.958    0.891

Mean of two seeds (least to most):

    beta   MIG                   SAP                   DCI: D                DCI: I   active units
    1      0.11 (0.06 to 0.16)   0.37 (0.23 to 0.50)   0.35 (0.26 to 0.45)   0.93     5
    2      0.18 (0.15 to 0.22)   0.59 (0.55 to 0.62)   0.38 (0.34 to 0.42)   0.93     4
    4      0.25 (0.20 to 0.30)   0.62 (0.58 to 0.66)   0.40 (0.35 to 0.46)   0.77     3
    8      0.14 (0.05 to 0.24)   0.31 (0.16 to 0.47)   0.13 (0.03 to 0.23)   0.53     2

and by the second, on MNIST:

    linear probe of            10 labels    30       100      300      1,000    1 nearest, 100
    20 posterior means         0.307        0.487    0.701    0.795    0.835    0.593
    20 principal components    0.270        0.482    0.704    0.801    0.855    0.737
    784 pixels                 0.298        0.477    0.711    0.815    0.869    0.716

Of beta all comes true. The codes do not beat the pixels on 8 x 8 digits, and on MNIST no more than
by the error, with 10 labels.

Duration: 104 s on one core of an Intel Xeon, the second command 105 s.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, probes, tables
from experiments.lib.data import require_labels
from experiments.lib.script import Report, joined, run_script, tell
from experiments.lib.shapes import FACTORS, SIDE, ellipses
from experiments.lib.training import fitted_seeds
from vaejax import plots
from vaejax.base.fields import Count, Plural
from vaejax.data.pixels import Policy
from vaejax.evaluation.representation import dci, mig, mutual_information, sap
from vaejax.runs.build import load_data, trained
from vaejax.runs.config import LikelihoodName


@dataclasses.dataclass(frozen=True)
class Config(flags.PlainSetting):
    """The VAE whose codes are probed, and the beta-VAEs whose codes are scored."""

    parts: flags.Parts[Literal["digits", "shapes"]] = ("digits", "shapes")
    binarisation: Policy = "none"
    likelihood: LikelihoodName = "continuous-bernoulli"
    latent_dim: Count = 10
    num_steps: Count = 4_000
    label_counts: flags.LabelCounts = (10, 30, 100, 300, 1_000)
    num_choices: Count = 10
    """Choices of the labelled images, at random, the same for each kind of feature."""
    betas: flags.Betas = (1.0, 2.0, 4.0, 8.0)
    shape_latent_dim: Plural = 6
    """Dimensions of z of the beta-VAEs."""
    shape_steps: Count = 4_000
    """Steps of each of their trainings."""
    shape_examples: Count = 5_000
    """Shapes to train on; 2,000 more are for the scores."""
    num_seeds: flags.NumSeeds = 2
    out: str = "runs/representation"


# Digits.


def learned_features(config: Config, dataset: vaejax.Dataset, transform) -> probes.Features:
    """What is learned without labels."""
    from sklearn.decomposition import PCA

    images, test = dataset.train.images, dataset.test.images
    settings = {"estimator": "analytic-kl", "schedule": "cosine"}
    model, params = trained(config, images, transform, config.num_steps, **settings)
    means = partial(vaejax.posterior_means, model, params, transform=transform)
    codes_key, dim = jax.random.key(config.seed + 1), config.latent_dim
    raw, raw_test = (
        np.asarray(stored, np.float64).reshape(len(stored), -1) / dataset.unit
        for stored in (images, test)
    )
    components = PCA(dim, svd_solver="full").fit(raw).transform
    return {
        f"posterior means, {dim}": (means(images, codes_key), means(test, codes_key)),
        f"principal components, {dim}": (components(raw), components(raw_test)),
        f"raw pixels, {raw.shape[1]}": (raw, raw_test),
    }


def digits(config: Config) -> Report:
    dataset, transform = load_data(config)
    size = len(dataset.train.images)
    labels = require_labels(dataset, "to probe for")
    features = learned_features(config, dataset, transform)
    counts = tuple(count or size for count in config.label_counts)
    draws = probes.random_choices(size, counts, config.num_choices, config.seed)
    rows = probes.accuracies(features, *labels, draws)
    choices = f"mean of {config.num_choices} choices of the labelled"
    title = f"{config.data}: features learned without labels, {choices}"
    heading = f"test accuracy, {choices} images ± standard error"
    pictures = {"probes": lambda: probes.figure(rows, title)}
    return Report(rows, f"{heading}\n{probes.table(rows)}", pictures)


# Shapes.

SCORES = {
    "mig": ("MIG", plots.BLUE),
    "disentanglement": ("DCI: D", plots.ORANGE),
    "completeness": ("DCI: C", "#3a9a5b"),
    "sap": ("SAP", "#8a4fa3"),
    "informativeness": ("DCI: I", plots.GREY),
}


def beta_vae(config: Config) -> vaejax.VAE:
    net, dim = partial(vaejax.MLP, hidden=(128, 128)), config.shape_latent_dim
    likelihood, encoder = vaejax.Bernoulli(net((SIDE, SIDE))), vaejax.DiagNormal(net(dim, heads=2))
    return vaejax.VAE(vaejax.StandardNormal(dim), likelihood, encoder)


def scores(means: np.ndarray, factors: np.ndarray) -> dict[str, float]:
    """Of codes whose inactive units have been set to zero."""
    active = vaejax.active_units(means)
    codes = np.where(active, means, 0.0)
    disentangled = dci(codes, factors, num_trees=30)._asdict()
    separate = {"mig": mig(codes, factors), "sap": sap(codes, factors)}
    return {**separate, **disentangled, "active": int(active.sum())}


def traversals(
    model: vaejax.VAE, params: vaejax.Params, means: np.ndarray, factors: np.ndarray, count: int = 7
) -> dict[str, np.ndarray]:
    """{name: images [count, 16, 16]}: E[x | z] as one active unit goes from -2 to 2, the others at
    the mean of all codes.

    Units stand in the order of the factor that each says most about; the names have it, with the
    share of its entropy that is known.
    """
    units = np.flatnonzero(vaejax.active_units(means))
    if len(units) == 0:
        return {}
    # With a unit of zeros: of one alone there is nothing to compare.
    padded = np.concatenate([means[:, units], np.zeros((len(means), 1))], axis=1)
    # Uniform factors in 20 bins have the entropy log 20.
    shares = mutual_information(padded, factors)[:-1] / np.log(20)
    zs = np.tile(means.mean(axis=0), (len(units), count, 1))
    zs[np.arange(len(units)), :, units] = np.linspace(-2, 2, count)
    decode = jax.jit(jax.vmap(jax.vmap(lambda z: model.p_x_given_z(params, z).mean())))
    images = np.asarray(decode(jnp.asarray(zs, jnp.float32)))
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    names = [f"{FACTORS[share.argmax()]} {share.max():.2f}" for share in shares]
    return {f"z[{units[i]}]: {names[i]}": images[i] for i in order}


def figure_of_scores(rows: list[dict], num_seeds: int) -> Figure:
    """The scores against beta."""
    drawing, [[axes]] = plots.figure_of(size=(6, 4))
    betas, *columns = tables.columns(rows, "beta", *SCORES)
    for (label, colour), values in zip(SCORES.values(), columns, strict=True):
        means = np.reshape(values, (-1, num_seeds)).mean(axis=1)
        axes.plot(betas[::num_seeds], means, color=colour, lw=1.8, label=label)
        axes.plot(betas, values, "o", color=colour, ms=4, alpha=0.6)
    title = "one seed" if num_seeds == 1 else f"each dot a seed of {num_seeds}, the line their mean"
    labels = {"xlabel": "β", "ylabel": "score", "ylim": (-0.02, 1.02), "title": title}
    plots.finish(axes, xscale="log", **labels)
    plots.ticks_at(axes, betas[::num_seeds])
    look = {"fontsize": 9, "handlelength": 1.2, "columnspacing": 1}
    plots.shared_legend(drawing, [axes], ncols=5, **look)
    return drawing


def table_of_shapes(rows: list[dict]) -> str:
    names = {**{name: label for name, (label, _) in SCORES.items()}, "active": "active units"}
    lines = []
    for beta in dict.fromkeys(row["beta"] for row in rows):
        columns = tables.columns(tables.where(rows, beta=beta), *names)
        cells = [f"{np.mean(part):.2f} ({min(part):.2f} to {max(part):.2f})" for part in columns]
        lines.append([f"{beta:g}", *cells])
    return tables.markdown(["beta", *names.values()], lines)


def shapes(config: Config) -> Report:
    generator, size = np.random.default_rng(config.seed), config.shape_examples
    factors = generator.random((size + 2_000, len(FACTORS)))
    images, transform = ellipses(factors), vaejax.Pixels(255)
    test, known = images[size:], factors[size:]
    model, rows, shown = beta_vae(config), [], {}
    init_key, fit_key = jax.random.split(jax.random.key(config.seed))
    init_keys, fit_keys = (jax.random.split(key, config.num_seeds) for key in (init_key, fit_key))
    starts = jax.vmap(model.init, (0, None))(init_keys, jnp.zeros((SIDE, SIDE)))
    steps = dataclasses.replace(config, num_steps=config.shape_steps, learning_rate=2e-3)
    for beta in config.betas:
        objective = vaejax.minibatch(vaejax.Beta(beta), model)
        seeds = fitted_seeds(steps, objective, starts, images[:size], fit_keys, transform)
        codes = [
            vaejax.posterior_means(model, params, test, jax.random.key(1), transform=transform)
            for params in seeds
        ]
        rows += [
            {"beta": beta, "seed": seed, **scores(means, known)} for seed, means in enumerate(codes)
        ]
        shown[beta] = traversals(model, seeds[0], codes[0], known)
        tell(f"beta {beta:g}")
    heading = f"mean over {tables.seeds(config.num_seeds)} (least to most)"
    pictures = {"disentanglement": lambda: figure_of_scores(rows, config.num_seeds)}
    units = {f"β = {beta:g}, {name}": row for beta in shown for name, row in shown[beta].items()}
    if units:
        title = "units from −2 to 2: the factor that each tells most of, and what share of it"
        pictures["traversals"] = lambda: figures.image_rows(units, title)
    return Report(rows, f"{heading}\n{table_of_shapes(rows)}", pictures)


def experiment(config: Config) -> Report:
    parts = {"digits": digits, "shapes": shapes}
    return joined({name: parts[name](config) for name in config.parts})


if __name__ == "__main__":
    run_script(Config, experiment, all_cores=True)
