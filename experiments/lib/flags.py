"""The flags that experiments share: a name has one type and one meaning in all of them, which is
that of `vaejax.runs.config` where it is there too.

    @dataclasses.dataclass(frozen=True)
    class Config(ModelSetting):            # of a VAE; ImageSetting for another model of images
        latent_dim: Count = 8              # another default; the meaning stays
        eval_size: EvalSize = None

    num_...         how many of a thing
    NAME_steps      how many steps, and in the same way _rate, _draws, _examples, _latent_dim
    NAMEs           a list: priors, encoders, betas
    NAME_counts     a list of how many
    parts           which parts of an experiment run
"""

import dataclasses
from typing import Annotated, Any

from tyro.conf import arg

import vaejax
from vaejax.base.fields import (
    AtMost,
    Count,
    CountOrZero,
    Distinct,
    Entries,
    Fraction,
    Plural,
    Positive,
    PositiveOrZero,
    Seed,
)
from vaejax.data.pixels import Policy
from vaejax.runs.config import (
    Configuration,
    DataSetting,
    EncoderName,
    PriorName,
    Setting,
    TestSize,
    TrainSize,
)


@dataclasses.dataclass(frozen=True)
class Script(Configuration):
    """What every experiment has: a folder for what it finds."""

    out: str = "runs/experiment"
    """The folder of result.json and of the pictures."""
    overwrite: bool = False
    """Replace the result in --out, which stays in a folder there until the new one is written."""
    seed: Seed = 0
    """Of all that is random."""

    def resumes(self) -> bool:
        """Whether it goes on with what is in --out."""
        return False

    def own_files(self) -> tuple[str, ...]:
        """Patterns of what it leaves in --out beside result.json and the pictures."""
        return ()


@dataclasses.dataclass(frozen=True)
class Trained(Script):
    """What is trained: for how long, on what batches, at what rate."""

    num_steps: Count = 2_000
    """Steps of the training."""
    batch_size: TrainSize = 100
    """Examples of one step."""
    learning_rate: Positive = 1e-3
    """Of the optimiser, at its start."""


@dataclasses.dataclass(frozen=True)
class ImageSetting(DataSetting, Trained):
    """Images, and how a model of them is trained, where `Setting` has more than is asked for."""

    binarisation: Policy = "threshold"
    hidden: tuple[Count, ...] = (100,)
    """Widths of the hidden layers (mlp and gated)."""

    @property
    def pixels(self) -> Any:
        """The family of the pixels that a model sees."""
        grey = self.binarisation == "none"
        return vaejax.ContinuousBernoulli if grey else vaejax.Bernoulli


@dataclasses.dataclass(frozen=True)
class ModelSetting(Setting, Script):
    """A VAE, and how it is trained."""


@dataclasses.dataclass(frozen=True)
class PlainSetting(ModelSetting):
    """A VAE whose objective has no warm-up: one is refused."""

    def check_together(self) -> None:
        if self.warm_up:
            raise ValueError(
                f"warm_up = {self.warm_up}; here the objective has none, so leave it 0"
            )


# What is measured, and on what.

EvalSize = Annotated[
    TestSize | None, arg(help="So many test examples, drawn at random; None takes all.")
]
EvalSamples = Annotated[Count, arg(help="Importance samples per example for log p(x).")]
BoundSamples = Annotated[Count, arg(help="Draws of q that each bound is the mean of.")]
NumDraws = Annotated[Plural, arg(help="Gradients for each measured variance.")]
NumSeeds = Annotated[Count, arg(help="So many seeds, from --seed on.")]
MeasuredAt = Annotated[
    Distinct[Fraction], arg(help="The fractions of the run after which to measure.")
]
MeasuredExamples = Annotated[TrainSize, arg(help="The size of the fixed minibatch.")]
LatentDim = Annotated[Count, arg(help="Dimensions of z.")]
NumExamples = Annotated[Count, arg(help="Examples of the synthetic data.")]

Temperatures = Annotated[Count, arg(help="Temperatures of AIS.")]
ValidateEvery = Annotated[Count, arg(help="Steps from one validation to the next.")]

# What is compared.

Parts = Annotated[Distinct[Entries], arg(help="Which parts to run.")]
Priors = Annotated[Distinct[PriorName], arg(help="As --prior of train.py.")]
Encoders = Annotated[Distinct[EncoderName], arg(help="As --encoder of train.py.")]
Betas = Annotated[Distinct[Positive], arg(help="Weights of the KL.")]
LabelCounts = Annotated[
    Distinct[Annotated[CountOrZero, AtMost("train")]],
    arg(help="Numbers of labelled images; 0 takes all."),
]

# How it is trained, refined and sampled.

EncoderSteps = Annotated[Count, arg(help="Steps of each encoder's own training, with theta fixed.")]
RefiningSteps = Annotated[
    CountOrZero, arg(help="Steps to the best q of a family for each example.")
]
RefiningRate = Annotated[Positive, arg(help="Of Adam on q's parameters, at its start.")]
NumChains = Annotated[Count, arg(help="Chains of MCMC or of AIS for each example.")]
Decay = Annotated[PositiveOrZero, arg(help="The precision of the prior on every weight.")]
