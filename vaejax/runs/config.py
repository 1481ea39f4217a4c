"""The configuration of a run: flat, so that each field is one flag of the command line."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from vaejax.base.checks import require_count
from vaejax.data.pixels import Policy
from vaejax.runs.files import read_json

RUN_RECORD = ("config", "data", "versions")  # of config.json, whatever the revision


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every experiment on a VAE shares: data, likelihood, encoder and how a step is taken."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, omniglot, cifar10, or tfds:NAME."""
    data_folder: str | None = None
    """Where NAME.npz or the idx.gz files lie; else $VAEJAX_DATA, then TFDS."""
    binarisation: Policy = "dynamic"
    """How grey pixels become 0 and 1: dynamic (afresh at each access), static (once), threshold, or
    none.
    """
    likelihood: str = "bernoulli"
    """bernoulli, continuous-bernoulli, gaussian (its scale learned), gaussian:SCALE, laplace,
    categorical:LEVELS or discretized-logistic:LEVELS.
    """
    encoder: str = "diag-normal"
    """diag-normal, full-normal, low-rank:RANK, laplace, real-nvp:LAYERS, iaf:LAYERS, or vmf (for
    the sphere).
    """
    net: Literal["mlp", "gated", "conv"] = "mlp"
    """The nets of encoder and decoder."""
    hidden: tuple[int, ...] = (200, 200)
    """Widths of the hidden layers (mlp and gated)."""
    latent_dim: int = 2
    """Dimensions of z."""
    batch_size: int = 100
    learning_rate: float = 1e-3
    """Of Adam."""
    warm_up: int = 0
    """Steps over which the weight of the KL rises from 0 to 1 (estimator pathwise only)."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig(Setting):
    """A VAE and how it is trained. Names with a colon take a number: vamp:500."""

    prior: str = "normal"
    """normal, learned-normal, mixture:COMPONENTS, vamp:COMPONENTS (pseudo-inputs start at training
    examples), flow:LAYERS, maf:LAYERS, laplace, student-t, or sphere.
    """
    estimator: str = "pathwise"
    """Of the ELBO: pathwise, antithetic, sobol, analytic-kl, stick-the-landing,
    estimated-coefficient, taylor, measure-valued, score-function. Of the importance-weighted bound,
    with --num-samples of 2 or more: iwae, stopped-iwae, dreg, rws, vimco, ovis.
    """
    num_samples: int = 1
    """K, the samples of z in each bound."""
    num_steps: int = 10_000
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: cosine falls to 0 at num_steps."""
    clip_norm: float | None = None
    """Clip the gradient's global norm to this."""
    validate_every: int = 500
    patience: int | None = None
    """Stop after so many validations without a better one, and evaluate the best."""
    checkpoint_every: int = 2_000
    eval_samples: int = 500
    """Importance samples per example for log p(x)."""
    devices: int = 1
    """Shard each batch over so many devices."""
    out: str = "runs/train"
    """The run's folder."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; flags that are not given are the run's own."""
    overwrite: bool = False
    """Replace the run in --out, which stays in a folder there until the new one has ended."""


COUNT_FIELDS = (
    "latent_dim",
    "num_samples",
    "num_steps",
    "batch_size",
    "validate_every",
    "checkpoint_every",
    "eval_samples",
    "devices",
)

# What may differ between a run and its continuation: how far and where it goes, not what it
# computes.
FREE_TO_CHANGE = {
    "resume",
    "overwrite",
    "num_steps",
    "out",
    "data_folder",
    "eval_samples",
    "devices",
    "patience",
    "checkpoint_every",
    "validate_every",
}


def check_config(config: TrainConfig) -> None:
    """Raises ValueError for a number that cannot be."""
    for name in COUNT_FIELDS:
        require_count(getattr(config, name), name)
    if config.patience is not None:
        require_count(config.patience, "patience")
    if not (config.learning_rate > 0 and math.isfinite(config.learning_rate)):
        raise ValueError(f"learning_rate = {config.learning_rate}; it must be positive")
    if config.warm_up < 0:
        raise ValueError(f"warm_up = {config.warm_up}; it must be at least 0")
    if config.clip_norm is not None and not config.clip_norm > 0:
        raise ValueError(f"clip_norm = {config.clip_norm}; it must be positive")


def training_config(setting: Setting, **changes: Any) -> TrainConfig:
    """The configuration of a training in another experiment's setting."""
    names = (field.name for field in dataclasses.fields(Setting))
    shared = {name: getattr(setting, name) for name in names}
    return TrainConfig(**shared | changes)


def saved_config(folder: str | Path) -> TrainConfig:
    """The configuration of the run in a folder."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no config.json, so it is no run; name the folder of one")
    try:
        values = dict(read_json(path, *RUN_RECORD)["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} is no run ({error}); name the folder of one") from None
    unknown = values.keys() - {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown:
        raise ValueError(
            f"{path} has the fields {', '.join(sorted(unknown))}, which this vaejax does not know;"
            " use the one that made it"
        )
    config = TrainConfig(**{name: _from_json(value) for name, value in values.items()})
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not _is_like(value, field.default):
            raise ValueError(
                f"{path}: {field.name} = {value!r} is no {type(field.default).__name__}, so vaejax"
                " has not written it"
            )
    check_config(config)
    return config


def _from_json(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a field's default; None as the default says nothing."""
    kinds = {type(default), int} if isinstance(default, float) else {type(default)}
    return default is None or type(value) in kinds


def fixed_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields that a continuation must share.

    A cosine schedule depends on the length of the run, so then the length is one of them.
    """
    free = FREE_TO_CHANGE - ({"num_steps"} if config.schedule == "cosine" else set())
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name not in free}


def require_same_run(saved: TrainConfig, config: TrainConfig) -> None:
    """Raises ValueError for a continuation that would compute something else."""
    before, now = fixed_fields(saved), fixed_fields(config)
    differences = [
        f"{name}: saved {before[name]!r}, now {now[name]!r}"
        for name in before
        if name in now and now[name] != before[name]
    ]
    if differences:
        raise ValueError(
            f"{config.out} was trained with another configuration; {'; '.join(differences)}"
        )
