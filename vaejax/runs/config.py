"""The configuration of a run: flat, so that each field is one flag of the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from vaejax.base.checks import SEEDS, require_in, require_kind
from vaejax.base.fields import (
    AtMost,
    Count,
    CountOrZero,
    InnerFraction,
    Positive,
    Rule,
    Seed,
    check_fields,
    check_sizes,
)
from vaejax.base.files import absolute_path
from vaejax.base.values import by_value
from vaejax.data.base import Dataset
from vaejax.data.dtypes import is_float
from vaejax.data.own import absolute
from vaejax.data.pixels import Policy
from vaejax.data.splits import Share
from vaejax.networks.precision import Precision
from vaejax.runs.names import Entry, require_named

TrainSize = Annotated[Count, AtMost("train")]
TestSize = Annotated[Count, AtMost("test")]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The flags of a command: derive a frozen dataclass, whose fields say what they may hold.

        from vaejax.base.fields import Count, Distinct, Positive

        @dataclasses.dataclass(frozen=True)
        class Config(Configuration):
            num_steps: Count = 1_000
            learning_rate: Positive = 1e-3
            priors: Distinct[Annotated[str, Name("prior")]] = ("normal",)

    `check_config` refuses what they may not, before data are loaded, anything compiles or a file is
    touched. What a single field cannot say, `check_together` does.
    """

    def __post_init__(self) -> None:
        """NumPy's numbers become Python's, which JSON knows."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _as_flag(getattr(self, field.name)))

    def check_together(self) -> None:
        """Raises ValueError for fields that do not go together."""


def _as_flag(value: Any) -> Any:
    """The value as a flag would give it: np.float32(1e-3) is 0.001, and not 0.0010000000474974513,
    which would be another configuration.
    """
    if isinstance(value, tuple):
        return tuple(map(_as_flag, value))
    short = isinstance(value, np.floating | np.ndarray | jax.Array) and np.ndim(value) == 0
    if short and is_float(value.dtype) and value.dtype.itemsize < 8:
        return float(str(np.asarray(value)[()]))
    return by_value(value)


def check_config(config: Configuration) -> None:
    """Raises ValueError or TypeError for a field that cannot be, or for some that do not go
    together.
    """
    require_kind(config, Configuration, "the configuration", "vaejax.runs.config")
    check_fields(config)
    config.check_together()


def require_seeds(first: int, count: int) -> None:
    """Raises ValueError where the last of so many seeds from the first on is none."""
    require_in(first + count - 1, f"seed = {first} with num_seeds = {count}: the last seed", SEEDS)


def require_examples(config: Configuration, dataset: Dataset) -> None:
    """Raises ValueError for a field that asks for more examples than the data set has."""
    splits = {"train": dataset.train, "test": dataset.test}
    check_sizes(config, {name: len(split.images) for name, split in splits.items()})


@dataclasses.dataclass(frozen=True)
class Name(Rule):
    """A name of one of the tables that `vaejax names` prints, with its number where it has one."""

    kind: str

    def check(self, value: str, name: str) -> None:
        require_named(name, value, self._table())

    def check_sizes(self, value: str, name: str, sizes: Mapping[str, int]) -> None:
        key, _, number = value.partition(":")
        if self._table()[key].is_of_examples and int(number) > sizes["train"]:
            raise ValueError(
                f"{name} {value} starts at {number} training examples, but there are"
                f" {sizes['train']}; choose fewer"
            )

    def _table(self) -> Mapping[str, Entry]:
        # Here, since it brings all the names of models, which `import vaejax` need not wait for.
        from vaejax.runs.registry import TABLES

        return TABLES[self.kind]


PriorName = Annotated[str, Name("prior")]
EncoderName = Annotated[str, Name("encoder")]
LikelihoodName = Annotated[str, Name("likelihood")]
EstimatorName = Annotated[str, Name("estimator")]


@dataclasses.dataclass(frozen=True)
class DataSetting(Configuration):
    """The data, and how a model sees them."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, omniglot, cifar10, or tfds:NAME; or your own:
    FILE.npz, FILE.npy, FILE.csv, FILE.tsv, or a FOLDER/ of PNG and JPEG files.
    """
    data_folder: str | None = None
    """The folder that the data lie in; else, of a named set, $VAEJAX_DATA, then TFDS."""
    label: str | None = None
    """The column of a table that has the labels: its name, or, where the first line has none, its
    number from 1 on.
    """
    validation: Share | None = None
    """What is held out of the training examples for validation, unless the data bring it; None is
    what is usual of the set, or a tenth.
    """
    test: Share | None = None
    """What is held out of them for the test set, likewise."""
    split_seed: Seed = 0
    """Of the order in which examples are held out: the same splits for every --seed."""
    maximum: Positive | None = None
    """The largest value that a stored pixel can have, where that is not what is usual of the set.
    """
    binarisation: Policy = "dynamic"
    """How grey pixels become 0 and 1: dynamic (afresh at each access), static (once), threshold, or
    none.
    """
    seed: Seed = 0
    """Of all that is random."""

    def __post_init__(self) -> None:
        """Paths lead to the same place from every working folder."""
        super().__post_init__()
        if isinstance(self.data, str):
            object.__setattr__(self, "data", absolute(self.data))
        if isinstance(self.data_folder, str):
            object.__setattr__(self, "data_folder", str(absolute_path(self.data_folder)))


@dataclasses.dataclass(frozen=True)
class Setting(DataSetting):
    """What every experiment on a VAE shares: data, likelihood, encoder and how a step is taken."""

    likelihood: LikelihoodName = "bernoulli"
    """bernoulli, continuous-bernoulli, gaussian (its scale learned), gaussian:SCALE, laplace,
    categorical:LEVELS or discretized-logistic:LEVELS.
    """
    encoder: EncoderName = "diag-normal"
    """diag-normal, full-normal, low-rank:RANK, laplace, real-nvp:LAYERS, iaf:LAYERS, or vmf (for
    the sphere).
    """
    net: Literal["mlp", "gated", "conv"] = "mlp"
    """The nets of encoder and decoder."""
    hidden: tuple[Count, ...] = (200, 200)
    """Widths of the hidden layers (mlp and gated)."""
    latent_dim: Count = 2
    """Dimensions of z."""
    precision: Precision = "float32"
    """Of what encoder and decoder compute; their parameters, densities and bounds stay in float32.
    """
    num_steps: Count = 10_000
    """Steps of the training."""
    batch_size: TrainSize = 100
    """Examples of one step."""
    learning_rate: Positive = 1e-3
    """Of the optimiser, at its start."""
    warm_up: CountOrZero = 0
    """Steps over which the weight of the KL rises from 0 to 1."""

    def check_together(self) -> None:
        require_full_weight(self.warm_up, self.num_steps)


def require_full_weight(warm_up: int, num_steps: int) -> None:
    """Raises ValueError for a warm-up that is longer than the training."""
    if warm_up > num_steps:
        raise ValueError(
            f"warm_up = {warm_up}, but num_steps = {num_steps}: the KL would never have its full"
            " weight; train longer"
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig(Setting):
    """A VAE and how it is trained. Names with a colon take a number: vamp:500."""

    prior: PriorName = "normal"
    """normal, learned-normal, mixture:COMPONENTS, vamp:COMPONENTS (pseudo-inputs start at training
    examples), flow:LAYERS, maf:LAYERS, laplace, student-t, or sphere.
    """
    estimator: str = "pathwise"
    """Of the ELBO: pathwise, antithetic, sobol, analytic-kl, stick-the-landing,
    estimated-coefficient, taylor, measure-valued, score-function. Of the importance-weighted bound,
    with --num-samples of 2 or more: iwae, stopped-iwae, dreg, rws, vimco, ovis. Of bounds between
    the two: ciwae, or miwae and piwae with a multiple of 8 samples.
    """
    num_samples: Count = 1
    """K, the samples of z in each bound."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: cosine falls to 0 at num_steps."""
    clip_norm: Positive | None = None
    """Clip the gradient's global norm to this."""
    skip_above: Positive | None = None
    """Skip and count the steps whose gradient has a larger global norm, or is not finite."""
    average: InnerFraction | None = None
    """Validate and evaluate an exponential average of the parameters, with this decay."""
    validate_every: Count = 500
    """Steps from one validation to the next."""
    patience: Count | None = None
    """Stop after this many validations without a better one, and evaluate the best."""
    max_minutes: Positive | None = None
    """Stop the training, saved, after this many minutes; --resume goes on."""
    checkpoint_every: Count = 2_000
    """Steps from one checkpoint to the next."""
    eval_samples: Count = 500
    """Importance samples per example for log p(x)."""
    devices: Count | None = None
    """Share each batch out over this many devices; None is one, with --distributed all that there
    are."""
    sharding: Literal["replicated", "fully-sharded"] = "replicated"
    """How parameters and the optimiser's state lie on the devices: whole on each, or in parts."""
    distributed: bool = False
    """Run in all processes of a job, such as of srun, mpirun or a TPU pod, on all their devices.
    """
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    """Beside metrics.jsonl: csv (log.csv), tensorboard (the folder tensorboard) or wandb."""
    out: str = "runs/train"
    """The run's folder."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; flags that are not given are the run's own."""
    overwrite: bool = False
    """Replace the run in --out, which stays in a folder there until the new one has ended."""

    def check_together(self) -> None:
        # Here, since it brings all the names of models, which `import vaejax` need not wait for.
        from vaejax.runs.named_estimators import named_estimator

        super().check_together()
        if self.warm_up and self.estimator != "pathwise":
            raise ValueError(
                f"warm_up = {self.warm_up} with estimator {self.estimator!r}: only pathwise"
                " takes a warm-up"
            )
        named_estimator(self.estimator, self.num_samples)
        if self.patience is not None and self.validate_every > self.num_steps:
            raise ValueError(
                f"patience = {self.patience} with validate_every = {self.validate_every}, but"
                f" num_steps = {self.num_steps}: nothing would be validated; validate more often"
            )


def training_config(setting: Setting, **changes: Any) -> TrainConfig:
    """The configuration of a training in another experiment's setting."""
    names = (field.name for field in dataclasses.fields(Setting))
    shared = {name: getattr(setting, name) for name in names}
    return TrainConfig(**shared | changes)
