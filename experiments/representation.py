r"""What the posterior means are worth as features of digits, and how well each keeps to one factor
of shapes, against beta.

    python experiments/representation.py                                                # both
                                                                                        parts, the
                                                                                        embedded
                                                                                        digits
    python experiments/representation.py --part digits --data mnist --latent-dim 20 --num-steps
    10000 --out runs/representation_mnist

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
seeds differ a lot (Locatello et al. 2019). Measured by the first command on one core of an Intel
Xeon, in 104 s. Test accuracy, mean of ten choices of the labelled images, standard errors below
0.025:

    linear probe of                10 labels    30       100      300      1,000       1 nearest,
                                   100
    10 posterior means             0.366        0.566    0.802    0.887    0.914       0.821
    10 principal components        0.417        0.663    0.827    0.874    0.906       0.865
    64 pixels                      0.418        0.639    0.850    0.931    0.958       0.891

Mean of two seeds (least to most):

    beta    MIG                    SAP                    DCI: D                 DCI: I    active
            units
    1       0.11 (0.06 to 0.16)    0.37 (0.23 to 0.50)    0.35 (0.26 to 0.45)    0.93      5
    2       0.18 (0.15 to 0.22)    0.59 (0.55 to 0.62)    0.38 (0.34 to 0.42)    0.93      4
    4       0.25 (0.20 to 0.30)    0.62 (0.58 to 0.66)    0.40 (0.35 to 0.46)    0.77      3
    8       0.14 (0.05 to 0.24)    0.31 (0.16 to 0.47)    0.13 (0.03 to 0.23)    0.53      2

and by the second, without the shapes, in 105 s, on MNIST:

    linear probe of                10 labels    30       100      300      1,000       1 nearest,
                                   100
    20 posterior means             0.307        0.487    0.701    0.795    0.835       0.593
    20 principal components        0.270        0.482    0.704    0.801    0.855       0.737
    784 pixels                     0.298        0.477    0.711    0.815    0.869       0.716

Of beta all comes true. The codes do not beat the pixels on 8 x 8 digits, and on MNIST no more than
by the error, with 10 labels.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record, use_all_cores
from matplotlib.figure import Figure
from train import Setting, trained

import vaejax
from vaejax.base.mapping import estimate
from vaejax.data.pixels import Policy
from vaejax.evaluation.representation import (
    dci,
    knn_accuracy,
    linear_probe,
    mig,
    mutual_information,
    sap,
)
from vaejax.plots.images import BLUE, GREY, INK, ORANGE, tile

FACTORS = ("x", "y", "size", "elongation")
SCORES = {
    "mig": ("MIG", BLUE),
    "disentanglement": ("DCI: D", ORANGE),
    "completeness": ("DCI: C", "#3a9a5b"),
    "sap": ("SAP", "#8a4fa3"),
    "informativeness": ("DCI: I", GREY),
}


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """The VAE whose codes are probed, and the beta-VAEs whose codes are scored."""

    part: Literal["both", "digits", "shapes"] = "both"
    binarisation: Policy = "none"
    likelihood: str = "continuous-bernoulli"
    latent_dim: int = 10
    num_steps: int = 4_000
    num_labels: tuple[int, ...] = (10, 30, 100, 300, 1_000)
    """Labelled images that a probe is shown."""
    num_draws: int = 10
    """Choices of those images, at random, the same for each kind of feature."""
    num_neighbours: int = 1
    betas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    shape_latents: int = 6
    shape_steps: int = 4_000
    num_shapes: int = 5_000
    """Images to train on; 2,000 more are for the scores."""
    num_seeds: int = 2
    out: str = "runs/representation"
    """The folder for result.json, probes.png and disentanglement.png."""


# Digits.


def features_of(
    config: Config, dataset: vaejax.Dataset, transform
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{kind: (of the training images, of the test images)}, learned without labels."""
    images, test = dataset.train.images, dataset.test.images
    model, params = trained(
        config, images, transform, config.num_steps, estimator="analytic-kl", schedule="cosine"
    )
    codes_key = jax.random.key(config.seed + 1)
    codes = [
        vaejax.posterior_means(model, params, of, codes_key, transform=transform)
        for of in (images, test)
    ]
    raw = [
        np.asarray(of, np.float64).reshape(len(of), -1) / dataset.maximum for of in (images, test)
    ]
    _, _, directions = np.linalg.svd(raw[0] - raw[0].mean(axis=0), full_matrices=False)
    components = [(of - raw[0].mean(axis=0)) @ directions[: config.latent_dim].T for of in raw]
    dim = config.latent_dim
    pairs = {
        f"posterior means, {dim}": codes,
        f"principal components, {dim}": components,
        f"raw pixels, {raw[0].shape[1]}": raw,
    }
    return {name: (train, test) for name, (train, test) in pairs.items()}


def probes(config: Config) -> dict[str, Callable[..., float]]:
    return {
        "linear probe": linear_probe,
        f"{config.num_neighbours} nearest": partial(
            knn_accuracy, num_neighbours=config.num_neighbours
        ),
    }


def accuracies(
    config: Config, dataset: vaejax.Dataset, features: dict[str, tuple[np.ndarray, np.ndarray]]
) -> list[dict]:
    """A row for each probe, kind of feature and number of labels, with the accuracy of each
    draw.
    """
    labels, test_labels = dataset.train.labels, dataset.test.labels
    assert labels is not None and test_labels is not None  # as `run_digits` made sure
    generator = np.random.default_rng(config.seed)
    chosen = [
        [generator.choice(len(labels), count, replace=False) for _ in range(config.num_draws)]
        for count in config.num_labels
    ]
    return [
        {
            "probe": probe,
            "features": kind,
            "labels": count,
            "accuracy": [function(train[some], labels[some], test, test_labels) for some in draws],
        }
        for probe, function in probes(config).items()
        for kind, (train, test) in features.items()
        for count, draws in zip(config.num_labels, chosen, strict=True)
    ]


def figure_of_probes(rows: list[dict], title: str) -> Figure:
    """Accuracy against the number of labels, a panel for each probe."""
    names = list(dict.fromkeys(row["probe"] for row in rows))
    kinds = list(dict.fromkeys(row["features"] for row in rows))
    figure = Figure(figsize=(4.6 * len(names), 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for kind, colour in zip(kinds, (BLUE, ORANGE, GREY), strict=True):
            some = [row for row in rows if (row["probe"], row["features"]) == (name, kind)]
            means = [estimate(row["accuracy"]) for row in some]
            error = [of.standard_error for of in means]
            counts = [row["labels"] for row in some]
            axes.errorbar(
                counts,
                [of.mean for of in means],
                error,
                color=colour,
                marker="o",
                ms=4,
                lw=1.6,
                capsize=2,
                label=kind,
            )
        counts = sorted({row["labels"] for row in rows})
        axes.set(xscale="log", xlabel="labelled images", title=name)
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.grid(axis="y", color="#e3e7ea", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test accuracy")
    panels[-1].legend(frameon=False, loc="lower right")
    figure.suptitle(title, fontsize=11)
    return figure


def run_digits(config: Config, out: Path) -> list[dict]:
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    if max(config.num_labels) > len(dataset.train.images) or min(config.num_labels) < max(
        1, config.num_neighbours
    ):
        raise ValueError(
            f"num_labels = {config.num_labels}; each must be at least num_neighbours ="
            f" {config.num_neighbours}, and at most the {len(dataset.train.images)} training images"
            f" of {config.data}"
        )
    if dataset.train.labels is None or dataset.test.labels is None:
        raise ValueError(
            f"{config.data} has no labels to probe for; choose digits, mnist or fashion_mnist"
        )
    rows = accuracies(config, dataset, features_of(config, dataset, transform))
    figure_of_probes(
        rows,
        f"{config.data}: features learned without labels, mean of {config.num_draws} choices of the"
        " labelled",
    ).savefig(out / "probes.png", dpi=150)
    print(
        f"test accuracy, mean over {config.num_draws} choices of the labelled images ± standard"
        " error"
    )
    print(table_of_probes(rows))
    return rows


def table_of_probes(rows: list[dict]) -> str:
    counts = list(dict.fromkeys(row["labels"] for row in rows))
    lines = [
        "| probe | features | " + " | ".join(f"{count} labels" for count in counts) + " |",
        "|---" * (2 + len(counts)) + "|",
    ]
    for first in rows[:: len(counts)]:
        some = [
            row
            for row in rows
            if (row["probe"], row["features"]) == (first["probe"], first["features"])
        ]
        cells = [
            f"{of.mean:.3f} ± {of.standard_error:.3f}"
            for of in (estimate(row["accuracy"]) for row in some)
        ]
        lines.append(f"| {first['probe']} | {first['features']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Shapes.


def ellipses(factors: np.ndarray, size: int = 16) -> np.ndarray:
    """Soft-edged images [n, size, size], 0..255, of factors [n, 4] in [0, 1]: x, y, size and
    elongation, from wide to tall.

    The centre moves over the middle half, the radius is from 0.11 to 0.24 of the side, and the axes
    are the radius times e and over e, with log e from 0.5 to -0.5.
    """
    x, y, radius, elongation = (column[:, None, None] for column in factors.T)
    grid = np.arange(size) + 0.5
    radius, stretch = size * (0.11 + 0.13 * radius), np.exp(0.5 - elongation)
    across, down = (
        (grid[None, None] - size * (0.25 + 0.5 * x)) / stretch,
        (grid[None, :, None] - size * (0.25 + 0.5 * y)) * stretch,
    )
    distance = radius - np.hypot(
        across, down
    )  # in pixels, from the edge inwards, but for the stretch
    return np.round(255 / (1 + np.exp(-3 * distance))).astype(np.uint8)


def beta_vae(config: Config) -> vaejax.VAE:
    net = partial(vaejax.MLP, hidden=(128, 128))
    encoder = vaejax.DiagNormal(net(config.shape_latents, heads=2))
    return vaejax.VAE(
        vaejax.StandardNormal(config.shape_latents), vaejax.Bernoulli(net((16, 16))), encoder
    )


def trained_on(
    config: Config, model: vaejax.VAE, beta: float, images: np.ndarray, transform
) -> list[vaejax.Params]:
    """The parameters of each seed."""
    init_key, fit_key = jax.random.split(jax.random.key(config.seed))
    starts = jax.vmap(model.init, (0, None))(
        jax.random.split(init_key, config.num_seeds), jnp.zeros((16, 16))
    )
    run = vaejax.fit_seeds(
        vaejax.minibatch(partial(vaejax.Beta(beta), model)),
        starts,
        optax.adam(optax.cosine_decay_schedule(2e-3, config.shape_steps)),
        images,
        jax.random.split(fit_key, config.num_seeds),
        num_steps=config.shape_steps,
        batch_size=config.batch_size,
        transform=transform,
    )
    return [jax.tree.map(lambda leaf, s=s: leaf[s], run.params) for s in range(config.num_seeds)]


def scores_of(means: np.ndarray, factors: np.ndarray) -> dict[str, float]:
    """Of codes whose inactive units have been set to zero."""
    codes = np.where(vaejax.active_units(means), means, 0.0)
    of_dci = dci(codes, factors, num_trees=30)._asdict()
    return {
        "mig": mig(codes, factors),
        "sap": sap(codes, factors),
        **of_dci,
        "active": int(vaejax.active_units(means).sum()),
    }


def traversals(
    model: vaejax.VAE, params: vaejax.Params, means: np.ndarray, factors: np.ndarray, count: int = 7
):
    """(names, images [units, count, 16, 16]): E[x | z] as one active unit goes from -2 to 2, the
    others at the mean of all codes.

    Units stand in the order of the factor that each says most about; the names have it, with the
    share of its entropy that is known.
    """
    units = np.flatnonzero(vaejax.active_units(means))
    if len(units) == 0:
        return [], np.zeros((0, count, 16, 16))
    padded = np.concatenate(
        [means[:, units], np.zeros((len(means), 1))], axis=1
    )  # of one unit alone there is nothing to compare
    shares = mutual_information(padded, factors)[:-1] / np.log(20)  # uniform factors in 20 bins
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    names = [f"{FACTORS[shares[i].argmax()]} {shares[i].max():.2f}" for i in order]
    zs = np.tile(means.mean(axis=0), (len(units), count, 1))
    for row, i in enumerate(order):
        zs[row, :, units[i]] = np.linspace(-2, 2, count)
    decode = jax.jit(jax.vmap(jax.vmap(lambda z: model.p_x_given_z(params, z).mean)))
    return names, np.asarray(decode(jnp.asarray(zs, jnp.float32)))


def figure_of_shapes(rows: list[dict], shown: dict[float, tuple], seeds: int) -> Figure:
    """The scores against beta, and the traversals of the first seed at each."""
    figure = Figure(figsize=(5 + 2.4 * len(shown), 3.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[5, 2.4 * len(shown)])
    left, right = halves
    axes = left.subplots()
    betas = list(dict.fromkeys(row["beta"] for row in rows))
    for name, (label, colour) in SCORES.items():
        axes.plot(
            betas,
            [np.mean([row[name] for row in rows if row["beta"] == beta]) for beta in betas],
            color=colour,
            lw=1.8,
            label=label,
        )
        axes.plot(
            [row["beta"] for row in rows],
            [row[name] for row in rows],
            "o",
            color=colour,
            ms=4,
            alpha=0.6,
        )
    axes.set(xscale="log", xlabel="β", ylabel="score", ylim=(-0.02, 1.02))
    axes.set_title(f"each dot a seed of {seeds}, the line their mean", fontsize=10)
    axes.set_xticks(betas, [f"{beta:g}" for beta in betas])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    left.legend(
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        columnspacing=1,
    )
    most = max(len(names) for names, _ in shown.values())
    for axes, (beta, (names, images)) in zip(
        right.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        axes.set_title(f"β = {beta:g}", fontsize=11, color=INK)
        axes.axis("off")
        if len(names) == 0:
            continue
        count = images.shape[1]
        canvas = tile(images.reshape(-1, 16, 16), count, gap=2)
        axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_ylim(18 * most - 2.5, -0.5)  # rows of one size in all panels
        for row, name in enumerate(names):
            axes.text(
                -3,
                18 * row + 8,
                name.replace(" ", "\n"),
                ha="right",
                va="center",
                fontsize=8,
                color=INK,
            )
    right.suptitle(
        "each active unit from −2 to 2, the factor that it tells most of, and what share of it",
        fontsize=10,
    )
    return figure


def run_shapes(config: Config, out: Path) -> list[dict]:
    generator = np.random.default_rng(config.seed)
    factors = generator.random((config.num_shapes + 2_000, len(FACTORS)))
    images, transform = ellipses(factors), vaejax.Pixels(255)
    train, test, known = (
        images[: config.num_shapes],
        images[config.num_shapes :],
        factors[config.num_shapes :],
    )
    model, rows, shown = beta_vae(config), [], {}
    for beta in config.betas:
        began = time.perf_counter()
        seeds = trained_on(config, model, beta, train, transform)
        print(f"beta {beta:g}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        codes = [
            vaejax.posterior_means(model, params, test, jax.random.key(1), transform=transform)
            for params in seeds
        ]
        rows += [{"beta": beta, "seed": s, **scores_of(of, known)} for s, of in enumerate(codes)]
        shown[beta] = traversals(model, seeds[0], codes[0], known)
    figure_of_shapes(rows, shown, config.num_seeds).savefig(out / "disentanglement.png", dpi=150)
    print(f"mean over {config.num_seeds} seeds (least to most)")
    print(table_of_shapes(rows))
    return rows


def table_of_shapes(rows: list[dict]) -> str:
    names = {**{name: label for name, (label, _) in SCORES.items()}, "active": "active units"}
    lines = ["| beta | " + " | ".join(names.values()) + " |", "|---" * (1 + len(names)) + "|"]
    for beta in dict.fromkeys(row["beta"] for row in rows):
        values = [[row[name] for row in rows if row["beta"] == beta] for name in names]
        cells = [f"{np.mean(of):.2f} ({min(of):.2f} to {max(of):.2f})" for of in values]
        lines.append(f"| {beta:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(config: Config) -> dict:
    counts = ("num_draws", "num_seeds", "num_neighbours", "latent_dim", "num_shapes")
    for name, least in {**dict.fromkeys(counts, 1), "shape_latents": 2}.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least {least}")
    if not config.betas or not config.num_labels:
        raise ValueError("betas or num_labels is empty; name at least one of each")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    parts = {"digits": run_digits, "shapes": run_shapes}
    found = {name: run(config, out) for name, run in parts.items() if config.part in ("both", name)}
    record(out, config, **found)
    return {**found, "out": str(out)}


if __name__ == "__main__":
    use_all_cores()
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
