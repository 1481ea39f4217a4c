"""The parts of an evaluation: each gives rows of the table and numbers for evaluation.json."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vaejax.base.fields import Count, CountOrZero, Plural, Seed
from vaejax.base.mapping import Estimate, Transformed, estimate
from vaejax.base.processes import Processes, processes_of
from vaejax.base.types import Key, Params
from vaejax.data.mapping import map_dataset
from vaejax.data.transforms import Transform
from vaejax.evaluation.evaluate import RELIABLE, Evaluation, evaluate
from vaejax.evaluation.latents import (
    LatentSpace,
    PosteriorCollapseWarning,
    known_nats,
    latent_space,
)
from vaejax.evaluation.model_checks import calibration, predictive_check
from vaejax.evaluation.samples import classifier_two_sample_test, precision_recall
from vaejax.inference.ais import AIS
from vaejax.inference.annealing import Sigmoid
from vaejax.models.vae import VAE
from vaejax.runs.config import Configuration, TestSize, TrainConfig
from vaejax.runs.report import Row

FEWEST = 20  # samples that can be compared with as many test examples


@dataclass(frozen=True)
class EvaluateConfig(Configuration):
    """A trained run, and how closely it is looked at."""

    run: str
    """Its folder."""
    data_folder: str | None = None
    """The folder that the run's data lie in now; else where they were."""
    eval_samples: Plural = 1_000
    """Importance samples per example for log p(x)."""
    eval_size: TestSize | None = None
    """So many test examples, drawn at random; None takes all."""
    ais_size: CountOrZero = 50
    """Test examples for AIS, and as many simulated ones; 0 leaves both sides out."""
    temperatures: Count = 300
    """Temperatures of AIS."""
    num_chains: Count = 16
    """Chains of MCMC or of AIS for each example."""
    sample_size: CountOrZero = 1_000
    """Draws from the model, and test examples, that are compared at most; 0 leaves the samples
    out.
    """
    simulations: Count = 1_000
    """For the calibration of q."""
    batch_size: Count = 50
    """Examples that are evaluated together, on each device."""
    devices: Count | None = None
    """Share each batch out over this many devices; None is one, with --distributed all that there
    are.
    """
    distributed: bool = False
    """Run in all processes of a job, such as of srun, mpirun or a TPU pod, on all their
    devices.
    """
    seed: Seed = 0
    """Of all that is random."""

    def check_together(self) -> None:
        if self.ais_size == 1:
            raise ValueError("ais_size = 1; give 0, which leaves both sides out, or at least 2")


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the run's model, its parameters, and the test set as it is stored."""

    config: TrainConfig
    step: int
    model: VAE
    params: Params
    images: np.ndarray
    transform: Transform
    mesh: Mesh | None = None  # over which the batches are shared out

    @property
    def processes(self) -> Processes:
        """Those that evaluate it."""
        return processes_of(self.mesh)


class EvaluationPart(NamedTuple):
    """What one part gives: rows of the table, numbers for evaluation.json, and what is drawn."""

    rows: list[Row]
    numbers: dict[str, Any]
    drawn: Any = None


class LeftOutError(ValueError):
    """A part is not for this run: its message says why."""


def bounds(config: EvaluateConfig, subject: Subject, key: Key) -> EvaluationPart:
    """The ELBO, IWAE-K for a ladder of K, and how far its weights are to be trusted."""
    # Named by what it depends on, so that another setting, or the run trained further, starts anew.
    size, count = len(subject.images), config.eval_samples
    path = Path(config.run) / f"evaluation-{subject.step}-{size}-{count}-{config.seed}.jsonl"
    evaluation = evaluate(
        subject.model,
        subject.params,
        subject.images,
        key,
        num_samples=config.eval_samples,
        path=path,
        transform=subject.transform,
        batch_size=config.batch_size,
        mesh=subject.mesh,
        progress=subject.processes.is_first,
    )
    numbers = {
        "elbo": evaluation.elbo._asdict(),
        "iwae": {str(count): bound._asdict() for count, bound in evaluation.iwae.items()},
        "effective_samples": evaluation.effective_samples._asdict(),
        "unreliable": evaluation.unreliable,
        "bits_per_dim": evaluation.bits_per_dim and evaluation.bits_per_dim._asdict(),
    }
    return EvaluationPart(_bounds_rows(evaluation, size), numbers, evaluation)


def _bounds_rows(evaluation: Evaluation, size: int) -> list[Row]:
    mean, error = evaluation.effective_samples
    effective = f"{mean:.1f} ± {error:.1f}"
    unreliable = "examples whose weights are not to be trusted"
    rows = [
        ("ELBO", nats(evaluation.elbo), f"{size:,} test examples"),
        *(
            (f"IWAE-{count:,}", nats(bound), "a lower bound on log p(x)")
            for count, bound in evaluation.iwae.items()
            if count > 1
        ),
        ("effective samples", effective, f"of {evaluation.num_samples:,} importance weights"),
        (f"k-hat above {RELIABLE}", f"{evaluation.unreliable:.1%}", unreliable),
    ]
    if evaluation.bits_per_dim is not None:
        mean, error = evaluation.bits_per_dim
        rows.append(("bits per dimension", f"{mean:.4f} ± {error:.4f}", "at the largest K"))
    return rows


def both_sides(config: EvaluateConfig, subject: Subject, key: Key) -> EvaluationPart:
    """AIS on some test examples beside IWAE-K on the same, and the sandwich on simulated ones."""
    if config.ais_size == 0:
        raise LeftOutError("ais_size = 0")
    sampler = _sampler(config, subject.model)
    images = subject.images[: config.ais_size]
    shared = {"batch_size": min(10, config.ais_size), "mesh": subject.mesh}
    function = Transformed(sampler, subject.transform)
    lower = map_dataset(function, subject.params, images, key, **shared)
    lower = np.asarray(lower, np.float64)
    importance = evaluate(
        subject.model,
        subject.params,
        images,
        key,  # the same, so that the same pixels are seen
        num_samples=config.eval_samples,
        transform=subject.transform,
        **shared,
    )
    beside = importance.by_example[f"iwae_{config.eval_samples}"]
    difference = estimate(lower - beside)
    gap = _sandwich_gap(sampler, subject.params, len(images), key, shared)
    on_test = f"{len(images)} test examples, {config.temperatures} temperatures"
    paired = f"paired: of the pixels that AIS saw, IWAE is {estimate(beside).mean:.2f} nats"
    simulated = f"{len(images)} simulated examples: upper − lower bound on log p(x)"
    rows = [
        ("AIS, lower bound", nats(estimate(lower)), on_test),
        (f"AIS − IWAE-{config.eval_samples:,}", nats(difference, 3), paired),
        ("gap of the sandwich", nats(gap, 3), simulated),
    ]
    numbers = {"ais": estimate(lower), "ais_less_iwae": difference, "sandwich_gap": gap}
    return EvaluationPart(rows, {name: number._asdict() for name, number in numbers.items()})


def _sampler(config: EvaluateConfig, model: VAE) -> AIS:
    try:
        return AIS(model, Sigmoid(config.temperatures), config.num_chains)
    except ValueError as error:  # the numbers are checked: what is refused is the latent's support
        raise LeftOutError(str(error)) from None


def _sandwich_gap(
    sampler: AIS, params: Params, size: int, key: Key, shared: Mapping[str, Any]
) -> Estimate:
    """Upper less lower bound on log p(x), of examples that the model itself draws."""
    function, key = partial(_simulated_bounds, sampler), jax.random.fold_in(key, 1)
    sandwich = map_dataset(function, params, np.arange(size), key, **shared)
    below, above = (np.asarray(side, np.float64) for side in sandwich[:2])
    return estimate(above - below)


def _simulated_bounds(sampler: AIS, params: Params, number: Any, key: Key) -> tuple:
    """(lower, upper, acceptance) of one example of the model's own, for `map_dataset`."""
    sandwich = sampler.bdmc(params, key)
    return sandwich.lower, sandwich.upper, sandwich.acceptance


def latents(config: EvaluateConfig, subject: Subject, key: Key) -> EvaluationPart:
    """What the latents tell, and whether q is the posterior."""
    model, params = subject.model, subject.params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorCollapseWarning)  # the table says it
        settings = {"transform": subject.transform, "mesh": subject.mesh}
        space = latent_space(model, params, subject.images, key, **settings)
    calibrated = calibration(model, params, key, num_simulations=config.simulations)
    simulated = f"{config.simulations:,} simulated examples; small where q is not p(z|x)"
    rows = [
        *_latent_rows(space),
        ("calibration of q", f"p = {calibrated.p_value:.2g}", simulated),
    ]
    numbers = {
        "kl": None if space.kl is None else space.kl.tolist(),
        "rate": space.rate._asdict(),
        "mutual_information": space.mutual_information,
        "information": None if space.information is None else space.information.tolist(),
        "marginal_kl": space.marginal_kl,
        "active_units": int(space.active.sum()),
        "collapsed": space.collapsed,
        "calibration_p_value": calibrated.p_value,
    }
    return EvaluationPart(rows, numbers, space)


def _latent_rows(space: LatentSpace) -> list[Row]:
    collapsed = "THE POSTERIOR HAS COLLAPSED" if space.collapsed else "mean over the test set"
    near = ", which it is near: of more examples it would be higher" if space.near_limit else ""
    limit = f"of x and z; at most log N = {space.limit:.2f}{near}"
    correlation = known_nats(space.total_correlation, " nats of total correlation under q")
    if space.total_correlation is None:
        correlation = "the latents are not a product under q, so it has no parts"
    active = f"{int(space.active.sum())} of {len(space.active)}"
    return [
        ("rate KL(q(z|x) ‖ p(z))", nats(space.rate), collapsed),
        ("mutual information", known_nats(space.mutual_information, " nats"), limit),
        ("KL(q(z) ‖ p(z))", known_nats(space.marginal_kl, " nats"), correlation),
        ("active units", active, "latents whose posterior mean varies"),
    ]


def sample_quality(config: EvaluateConfig, subject: Subject, key: Key) -> EvaluationPart:
    """Draws of the model beside test examples, in pixels."""
    if config.sample_size == 0:
        raise LeftOutError("sample_size = 0")
    size = min(config.sample_size, len(subject.images))
    if size < FEWEST:
        raise LeftOutError(f"{size} samples beside {size} test examples; {FEWEST} are the fewest")
    pixels_key, draw_key = jax.random.split(key)
    model, params, transform = subject.model, subject.params, subject.transform
    pixels_keys = jax.random.split(pixels_key, size)
    real = np.asarray(jax.jit(jax.vmap(transform))(subject.images[:size], pixels_keys))
    sample = jax.jit(jax.vmap(lambda key: model.sample(params, key)[0]))
    drawn = np.asarray(sample(jax.random.split(draw_key, size)))
    shares, test = precision_recall(real, drawn), classifier_two_sample_test(real, drawn)
    check = predictive_check(jnp.mean, model, params, subject.images, draw_key, transform=transform)
    numbers = {
        **shares._asdict(),
        "two_sample_accuracy": test.accuracy,
        "two_sample_p_value": test.p_value,
        "mean_pixel_z_score": check.z_score,
    }
    return EvaluationPart(_sample_rows(numbers, size), numbers)


def _sample_rows(numbers: dict[str, float], size: int) -> list[Row]:
    precision, recall = (f"{numbers[share]:.3f}" for share in ("precision", "recall"))
    off, accuracy = numbers["mean_pixel_z_score"], numbers["two_sample_accuracy"]
    among = f"share of {size:,} samples that lie among as many test examples, in pixels"
    check = "of the test set from that of samples: a predictive check"
    chance = f"of a logistic regression; 0.5 is chance, p = {numbers['two_sample_p_value']:.2g}"
    return [
        ("precision", precision, among),
        ("recall", recall, "share of the test examples that lie among the samples"),
        ("mean of x", f"{off:+.1f} standard errors", check),
        ("two-sample accuracy", f"{accuracy:.3f}", chance),
    ]


def nats(number: Estimate, digits: int = 2) -> str:
    return f"{number.mean:.{digits}f} ± {number.standard_error:.{digits}f} nats"
