r"""Everything about a trained run on one page: how likely the test set is, from both sides, and
what the latent space holds.

    python experiments/train.py --prior vamp:50 --net gated --latent-dim 8 --out runs/vamp
    python experiments/evaluate.py --run runs/vamp

Writes evaluation.json and report.html, which stands alone, into the run's folder, and prints a
table. Cut off and started again, it goes on with the test examples that are left
(evaluation-*.npz). A part that the run's prior or encoder is not for is left out, and the page says
so.

    bounds             the ELBO, IWAE-K for a ladder of K, k-hat and effective samples of the
                       weights, bits per dimension; whole test set
    both sides         AIS on some test examples beside IWAE-K on the same; on simulated data, the
                       gap of the sandwich
    latent space       KL of each latent, mutual information, KL(q(z) || p(z)), active units,
                       calibration of q on simulated data
    samples            nearest-neighbour precision and recall, a predictive check and a classifier
                       two-sample test, on pixels

Expected: of a good model the sandwich closes, and q is off by its k-hat and calibration. Measured
for `python experiments/train.py` (the digits, two latents, 10,000 steps), in 86 s on one core of an
Intel Xeon, on 300 test examples: ELBO -23.08 +- 0.27, IWAE-1000 -22.51 +- 0.24, k-hat above 0.7 for
24 % of the examples; AIS on 50 of them is 0.190 +- 0.141 nats above IWAE-1000, and the sandwich on
50 simulated ones is 0.009 +- 0.035 wide. Mutual information 3.14 of a rate of 3.31 nats, precision
0.89, recall 0.95 in pixels; a logistic regression tells samples from data in 53 % (p = 0.15). q is
not the posterior: calibration p = 7e-26.
"""

import base64
import dataclasses
import html
import io
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from ais_sandwich import simulated
from common import command_line, environment, some_rows
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from train import Config as TrainConfig
from train import build_model, build_optimizer, initial_params, saved_config

import vaejax
from vaejax import ais
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.evaluation.evaluate import RELIABLE
from vaejax.evaluation.latents import COLLAPSED
from vaejax.evaluation.samples import classifier_two_sample_test, precision_recall
from vaejax.plots.images import BLUE, GREY, INK, ORANGE
from vaejax.training.fit import saved_runs

PICTURES = ("samples", "reconstructions", "latent", "curves")  # what train.py has drawn
Row = tuple[str, str, str]  # quantity, value, remark


@dataclasses.dataclass(frozen=True)
class Config:
    """A run of train.py, and how closely it is looked at."""

    run: str
    """Its folder."""
    data_folder: str | None = None
    """Where NAME.npz or the idx.gz files lie; else $VAEJAX_DATA, then TFDS."""
    num_samples: int = 1_000
    """The largest K of IWAE-K."""
    eval_size: int | None = None
    """So many test examples, drawn at random; None takes all."""
    ais_size: int = 50
    """Test examples for AIS, and as many simulated ones; 0 leaves both sides out."""
    temperatures: int = 300
    num_chains: int = 16
    sample_size: int = 1_000
    """Draws from the model, and test examples, that are compared at most; 0 leaves the samples
    out.
    """
    simulations: int = 1_000
    """For the calibration of q."""
    batch_size: int = 50
    seed: int = 0


@dataclasses.dataclass
class Subject:
    """The run: its model, its parameters at the last checkpoint, and the test set as it is
    stored.
    """

    training: TrainConfig
    step: int
    model: vaejax.VAE
    params: vaejax.Params
    images: np.ndarray
    transform: Any


def subject(config: Config) -> Subject:
    if not (Path(config.run) / "config.json").exists():
        raise ValueError(
            f"{config.run} holds no config.json, so it is no run of train.py; name the folder of"
            " one with --run"
        )
    training = dataclasses.replace(saved_config(config.run), data_folder=config.data_folder)
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(training.data, training.data_folder),
        training.binarisation,
        seed=training.seed,
    )
    model = build_model(training, dataset.train.images[0])
    start = initial_params(
        training, model, dataset.train.images, transform, jax.random.key(training.seed)
    )
    runs = saved_runs(
        Path(config.run) / "checkpoints", start, build_optimizer(training), validated=True
    )
    if not runs:
        raise ValueError(
            f"{config.run} holds no checkpoint; train it further with train.py --resume --out"
            f" {config.run}"
        )
    step, run = max(runs.items())
    params = run.best_params if training.patience and run.best_params else run.params
    rows = some_rows(jax.random.key(config.seed), len(dataset.test.images), config.eval_size)
    return Subject(training, step, model, params, dataset.test.images[rows], transform)


# The parts. Each gives its rows of the table and what goes into evaluation.json.


def bounds(config: Config, of: Subject, key) -> tuple[list[Row], dict[str, Any], vaejax.Evaluation]:
    how: Any = {"transform": of.transform, "batch_size": config.batch_size, "progress": True}
    # Named by what it depends on, so that another setting, or the run trained further, starts anew.
    path = (
        Path(config.run)
        / f"evaluation-{of.step}-{len(of.images)}-{config.num_samples}-{config.seed}.npz"
    )
    found = vaejax.evaluate(
        of.model, of.params, of.images, key, num_samples=config.num_samples, path=path, **how
    )
    size = f"{len(of.images):,} test examples"
    rows = [("ELBO", nats(found.elbo), size)]
    rows += [
        (f"IWAE-{count:,}", nats(bound), "a lower bound on log p(x)")
        for count, bound in found.iwae.items()
        if count > 1
    ]
    effective = f"{found.effective_samples.mean:.1f} ± {found.effective_samples.standard_error:.1f}"
    rows.append(("effective samples", effective, f"of {found.num_samples:,} importance weights"))
    rows.append(
        (
            f"k-hat above {RELIABLE}",
            f"{found.unreliable:.1%}",
            "examples whose weights are not to be trusted",
        )
    )
    if found.bits_per_dim is not None:
        rows.append(
            (
                "bits per dimension",
                f"{found.bits_per_dim.mean:.4f} ± {found.bits_per_dim.standard_error:.4f}",
                "at the largest K",
            )
        )
    numbers = {
        "elbo": found.elbo._asdict(),
        "iwae": {str(count): bound._asdict() for count, bound in found.iwae.items()},
    }
    numbers |= {
        "effective_samples": found.effective_samples._asdict(),
        "unreliable": found.unreliable,
    }
    return (
        rows,
        numbers | {"bits_per_dim": found.bits_per_dim and found.bits_per_dim._asdict()},
        found,
    )


def both_sides(config: Config, of: Subject, key) -> tuple[list[Row], dict[str, Any]]:
    sampler = vaejax.AIS(of.model, ais.Sigmoid(config.temperatures), config.num_chains)
    images = of.images[: config.ais_size]
    how: Any = {"batch_size": min(10, config.ais_size)}
    lower = np.asarray(
        map_dataset(Transformed(sampler, of.transform), of.params, images, key, **how), np.float64
    )
    # The same key, so that the same pixels are seen.
    found = vaejax.evaluate(
        of.model,
        of.params,
        images,
        key,
        num_samples=config.num_samples,
        transform=of.transform,
        **how,
    )
    difference = estimate(lower - found.by_example[f"iwae_{config.num_samples}"])
    sandwich = map_dataset(
        partial(simulated, sampler),
        of.params,
        np.arange(len(images)),
        jax.random.fold_in(key, 1),
        **how,
    )
    below, above = (np.asarray(side, np.float64) for side in sandwich[:2])
    gap = estimate(above - below)
    rows = [
        (
            "AIS, lower bound",
            nats(estimate(lower)),
            f"{len(images)} test examples, {config.temperatures} temperatures",
        ),
        (f"AIS − IWAE-{config.num_samples:,}", nats(difference, 3), "on the same, paired"),
        (
            "gap of the sandwich",
            nats(gap, 3),
            f"{len(images)} simulated examples: upper − lower bound on log p(x)",
        ),
    ]
    return rows, {
        "ais": estimate(lower)._asdict(),
        "ais_less_iwae": difference._asdict(),
        "sandwich_gap": gap._asdict(),
    }


def latents(config: Config, of: Subject, key) -> tuple[list[Row], dict[str, Any], np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaejax.PosteriorCollapseWarning)  # the table says it
        found = vaejax.latent_space(of.model, of.params, of.images, key, transform=of.transform)
    calibrated = vaejax.calibration(of.model, of.params, key, num_simulations=config.simulations)
    near = ", which it is near: of more examples it would be higher" if found.near_limit else ""
    rows = [
        (
            "rate KL(q(z|x) ‖ p(z))",
            nats(found.rate),
            "THE POSTERIOR HAS COLLAPSED" if found.collapsed else "mean over the test set",
        ),
        (
            "mutual information",
            f"{found.mutual_information:.2f} nats",
            f"of x and z; at most log N = {found.limit:.2f}{near}",
        ),
        (
            "KL(q(z) ‖ p(z))",
            f"{found.marginal_kl:.2f} nats",
            f"{found.total_correlation:.2f} of it total correlation",
        ),
        (
            "active units",
            f"{int(found.active.sum())} of {len(found.active)}",
            "latents whose posterior mean varies",
        ),
        (
            "calibration of q",
            f"p = {calibrated.p_value:.2g}",
            f"{config.simulations:,} simulated examples; small where q is not p(z|x)",
        ),
    ]
    numbers = {
        "kl": found.kl.tolist(),
        "rate": found.rate._asdict(),
        "mutual_information": found.mutual_information,
    }
    numbers |= {
        "marginal_kl": found.marginal_kl,
        "active_units": int(found.active.sum()),
        "collapsed": found.collapsed,
    }
    return rows, numbers | {"calibration_p_value": calibrated.p_value}, found.kl


def samples(config: Config, of: Subject, key) -> tuple[list[Row], dict[str, Any]]:
    size = min(config.sample_size, len(of.images))
    pixels_key, draw_key = jax.random.split(key)
    real = np.asarray(
        jax.jit(jax.vmap(of.transform))(of.images[:size], jax.random.split(pixels_key, size))
    )
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda key: of.model.sample(of.params, key)[0]))(
            jax.random.split(draw_key, size)
        )
    )
    shares, test = precision_recall(real, drawn), classifier_two_sample_test(real, drawn)
    ink = vaejax.predictive_check(
        jax.numpy.mean, of.model, of.params, of.images, draw_key, transform=of.transform
    )
    rows = [
        (
            "precision",
            f"{shares.precision:.3f}",
            f"share of {size:,} samples that lie among as many test examples, in pixels",
        ),
        ("recall", f"{shares.recall:.3f}", "share of the test examples that lie among the samples"),
        (
            "mean pixel",
            f"{ink.z_score:+.1f} standard errors",
            "of the test set from that of samples: a predictive check",
        ),
        (
            "two-sample accuracy",
            f"{test.accuracy:.3f}",
            f"of a logistic regression; 0.5 is chance, p = {test.p_value:.2g}",
        ),
    ]
    return rows, {
        **shares._asdict(),
        "two_sample_accuracy": test.accuracy,
        "two_sample_p_value": test.p_value,
        "mean_pixel_z_score": ink.z_score,
    }


def nats(of: Any, digits: int = 2) -> str:
    return f"{of.mean:.{digits}f} ± {of.standard_error:.{digits}f} nats"


# The page.


def ladder_of(found: vaejax.Evaluation, ais_bound: dict | None) -> Figure:
    """IWAE-K against K, with twice the standard error."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    counts, means = list(found.iwae), np.array([of.mean for of in found.iwae.values()])
    errors = np.array([of.standard_error for of in found.iwae.values()])
    axes.fill_between(counts, means - 2 * errors, means + 2 * errors, color=BLUE, alpha=0.15, lw=0)
    axes.plot(counts, means, "o-", color=BLUE, label="IWAE-K, ± 2 standard errors")
    if ais_bound is not None:
        best = means[-1] + ais_bound["mean"]
        axes.axhline(best, color=ORANGE, lw=1.2, ls="--", label="with what AIS adds on some")
    axes.set(xscale="log", xlabel="K", ylabel="bound on log p(x) (nats)")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def kl_of(kl: np.ndarray) -> Figure:
    """The KL of each latent, sorted."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    ordered = np.sort(kl)[::-1]
    axes.bar(
        np.arange(1, len(kl) + 1),
        ordered,
        color=[BLUE if of > COLLAPSED else GREY for of in ordered],
    )
    axes.set(xlabel="latent, by its KL", ylabel="mean KL(q(z_j|x) ‖ p(z_j)) (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def inlined(picture: Figure | Path, name: str) -> str:
    """An <img> with the picture in it."""
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        picture.savefig(buffer, dpi=130, format="png")
        data = buffer.getvalue()
    else:
        data = picture.read_bytes()
    return (
        f'<figure><img alt="{name}"'
        f' src="data:image/png;base64,{base64.b64encode(data).decode()}"><figcaption>{name}</figcaption></figure>'
    )


def table_of(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"


STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; color: {INK}; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e3e7ea; vertical-align: top; }}
ul {{ columns: 3; font-size: .85rem; list-style: none; padding: 0; overflow-wrap: anywhere; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; flex: 1 1 440px; }} img {{ max-width: 100%; }} figcaption {{ color: #66747f; font-size: .85rem; }}
"""


def page(
    title: str,
    rows: list[Row],
    notes: list[str],
    pictures: dict[str, Figure | Path],
    facts: dict[str, dict[str, Any]],
) -> str:
    """A page that needs no other file."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        table_of(list(rows), ("quantity", "value", "")),
        *(f"<p>{html.escape(n)}</p>" for n in notes),
    ]
    parts += [
        '<h2>Pictures</h2><div class="pictures">',
        *(inlined(picture, name) for name, picture in pictures.items()),
        "</div>",
    ]
    for name, fact in facts.items():
        items = "".join(
            f"<li>{html.escape(key)} <b>{html.escape(str(value))}</b></li>"
            for key, value in fact.items()
        )
        parts.append(f"<h2>{html.escape(name)}</h2><ul>{items}</ul>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )


def attempt(part: Callable, notes: list[str], name: str, *args: Any):
    """What `part` gives, or a note of why this model has none."""
    try:
        return part(*args)
    except (TypeError, ValueError) as error:
        notes.append(f"{name} is left out: {error}")
        return None


def main(config: Config) -> dict:
    for name, least in {
        "num_samples": 2,
        "ais_size": 0,
        "sample_size": 0,
        "simulations": 1,
        "batch_size": 1,
    }.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least {least}")
    of, out = subject(config), Path(config.run)
    keys = jax.random.split(jax.random.key(config.seed + 1), 4)
    rows, numbers, evaluation = bounds(config, of, keys[0])
    notes: list[str] = []
    pictures: dict[str, Figure | Path] = {}
    sides = attempt(both_sides, notes, "AIS", config, of, keys[1]) if config.ais_size > 1 else None
    pictures["bounds"] = ladder_of(evaluation, sides and sides[1]["ais_less_iwae"])
    space = attempt(latents, notes, "the latent space", config, of, keys[2])
    if space is not None:
        pictures["KL of each latent"] = kl_of(space[2])
    drawn = (
        attempt(samples, notes, "the comparison of samples", config, of, keys[3])
        if config.sample_size
        else None
    )
    for part in (sides, space, drawn):
        if part is not None:
            rows, numbers = rows + part[0], numbers | part[1]
    pictures |= {name: out / f"{name}.png" for name in PICTURES if (out / f"{name}.png").exists()}
    versions = environment()
    facts = {
        "Configuration": dataclasses.asdict(of.training),
        "Evaluation": dataclasses.asdict(config),
    }
    facts["Made with"] = {**versions.pop("versions"), **versions}
    title = f"{config.run}: {of.training.data} at step {of.step:,}"
    (out / "report.html").write_text(page(title, rows, notes, pictures, facts), encoding="utf-8")
    result = {
        "run": config.run,
        "step": of.step,
        "examples": len(of.images),
        **numbers,
        "notes": notes,
    }
    (out / "evaluation.json").write_text(json.dumps({**result, **facts}, indent=2) + "\n")
    width = max(len(row[0]) for row in rows)
    print("\n".join(f"{name:<{width}}  {value:<24} {remark}" for name, value, remark in rows))
    print("\n".join([*notes, f"report: {out / 'report.html'}"]))
    return result


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
