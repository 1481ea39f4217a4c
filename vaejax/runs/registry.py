"""The names that stand for priors, encoders, likelihoods and nets, each in one table; those of
estimators are in `named_estimators`.

An entry says in a line what it is and builds it for a `Setting`. The number of a name comes last.
`vaejax names` prints the tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import numpyro.distributions as npd

from vaejax.base.checks import Integers, Reals
from vaejax.models.conditionals.flow_based import InverseAutoregressive, RealNVP
from vaejax.models.conditionals.pixels import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
)
from vaejax.models.conditionals.real import (
    DiagNormal,
    FullNormal,
    Gaussian,
    Laplace,
    LowRankNormal,
    VonMisesFisher,
)
from vaejax.models.priors import (
    FlowPrior,
    LearnedNormal,
    MixtureOfGaussians,
    NumPyroPrior,
    StandardNormal,
    UniformOnSphere,
    VampPrior,
)
from vaejax.networks.images import ConvDecoder, ConvEncoder
from vaejax.networks.precision import in_precision
from vaejax.networks.vectors import MLP, GatedMLP
from vaejax.runs.named_estimators import ESTIMATORS
from vaejax.runs.names import Entry, ModelSizes, named

# The ranges of their numbers.

COUNT, PLURAL = Integers(1), Integers(2)
ANY_SCALE = Reals(0, is_open=True)


# Nets.


@dataclass(frozen=True)
class Nets:
    """The two nets of a VAE, each of (the shape that it gives, hidden widths, number of heads)."""

    encoder: Callable[..., Any]
    decoder: Callable[..., Any]


def _relu_mlp(out: Any, hidden: tuple[int, ...], heads: int) -> MLP:
    return MLP(out, hidden, activation=nn.relu, heads=heads)


def _gated_mlp(out: Any, hidden: tuple[int, ...], heads: int) -> GatedMLP:
    return GatedMLP(out, hidden, heads=heads)


def _convolutions() -> Nets:
    return Nets(
        lambda out, hidden, heads: ConvEncoder(out, heads=heads),
        lambda out, hidden, heads: ConvDecoder(out, heads=heads),
    )


NETS = {
    "mlp": Entry("dense layers with ReLU", lambda: Nets(_relu_mlp, _relu_mlp)),
    "gated": Entry("dense layers with gates", lambda: Nets(_gated_mlp, _gated_mlp)),
    "conv": Entry("convolutions, for images", _convolutions),
}


def encoder_net(setting: ModelSizes, heads: int = 1) -> Any:
    """The net of a setting from an example to `heads` vectors of the latent's length."""
    nets = named("net", setting.net, NETS)
    return in_precision(nets.encoder(setting.latent_dim, setting.hidden, heads), setting.precision)


def decoder_net(setting: ModelSizes, shape: tuple[int, ...], heads: int = 1) -> Any:
    """The net of a setting from a latent to `heads` arrays of this shape."""
    nets = named("net", setting.net, NETS)
    return in_precision(nets.decoder(shape, setting.hidden[::-1], heads), setting.precision)


# Priors, of a setting.


def _laplace(dim: int) -> npd.Distribution:
    return npd.Laplace(0.0, 1.0).expand((dim,)).to_event(1)


def _student_t(dim: int) -> npd.Distribution:
    return npd.StudentT(5.0, 0.0, 1.0).expand((dim,)).to_event(1)


def _autoregressive_prior(setting: ModelSizes, layers: int = 4) -> FlowPrior:
    return FlowPrior(setting.latent_dim, layers, kind="autoregressive")


PRIORS = {
    "normal": Entry("N(0, I)", lambda setting: StandardNormal(setting.latent_dim)),
    "learned-normal": Entry(
        "a normal with learned mean and scales", lambda setting: LearnedNormal(setting.latent_dim)
    ),
    "mixture": Entry(
        "a mixture of this many normals",
        lambda setting, components: MixtureOfGaussians(setting.latent_dim, components),
        COUNT,
    ),
    "vamp": Entry(
        "a mixture of the posteriors of this many pseudo-inputs, which start at training examples",
        lambda setting, components: VampPrior(components),
        COUNT,
        is_of_examples=True,
    ),
    "flow": Entry(
        "a flow of this many coupling layers",
        lambda setting, layers=4: FlowPrior(setting.latent_dim, layers),
        COUNT,
    ),
    "maf": Entry("a flow of this many autoregressive layers", _autoregressive_prior, COUNT),
    "laplace": Entry(
        "independent Laplace variables",
        lambda setting: NumPyroPrior(partial(_laplace, setting.latent_dim)),
    ),
    "student-t": Entry(
        "independent Student-t variables of 5 degrees of freedom",
        lambda setting: NumPyroPrior(partial(_student_t, setting.latent_dim)),
    ),
    "sphere": Entry("uniform on the sphere", lambda setting: UniformOnSphere(setting.latent_dim)),
}


# Encoders, of a setting.

ENCODERS = {
    "diag-normal": Entry(
        "a normal with diagonal covariance", lambda setting: DiagNormal(encoder_net(setting, 2))
    ),
    "full-normal": Entry(
        "a normal with any covariance",
        lambda setting: FullNormal(encoder_net(setting, setting.latent_dim + 2)),
    ),
    "low-rank": Entry(
        "a normal whose covariance is diagonal plus one of this rank",
        lambda setting, rank: LowRankNormal(encoder_net(setting, 2 + rank)),
        COUNT,
    ),
    "laplace": Entry(
        "independent Laplace variables", lambda setting: Laplace(encoder_net(setting, 2))
    ),
    "real-nvp": Entry(
        "a flow of this many coupling layers",
        lambda setting, layers=4: RealNVP(encoder_net(setting, 3), layers),
        COUNT,
    ),
    "iaf": Entry(
        "a flow of this many inverse autoregressive layers",
        lambda setting, layers=2: InverseAutoregressive(encoder_net(setting, 3), layers),
        COUNT,
    ),
    "vmf": Entry(
        "von Mises-Fisher, for the sphere", lambda setting: VonMisesFisher(encoder_net(setting))
    ),
}


# Likelihoods, of a setting and the shape of an example.


def _gaussian(setting: ModelSizes, shape: tuple[int, ...], scale: float | None = None) -> Gaussian:
    return Gaussian(decoder_net(setting, shape), "learned" if scale is None else scale)


def _categorical(setting: ModelSizes, shape: tuple[int, ...], levels: int = 256) -> Categorical:
    return Categorical(decoder_net(setting, (*shape, levels)), levels)


def _discretized_logistic(
    setting: ModelSizes, shape: tuple[int, ...], levels: int = 256
) -> DiscretizedLogistic:
    return DiscretizedLogistic(decoder_net(setting, shape, 2), levels)


LIKELIHOODS = {
    "bernoulli": Entry(
        "pixels 0 and 1", lambda setting, shape: Bernoulli(decoder_net(setting, shape))
    ),
    "continuous-bernoulli": Entry(
        "grey pixels in [0, 1]",
        lambda setting, shape: ContinuousBernoulli(decoder_net(setting, shape)),
    ),
    "gaussian": Entry("real numbers, with this scale or a learned one", _gaussian, ANY_SCALE),
    "laplace": Entry(
        "real numbers with heavier tails",
        lambda setting, shape: Laplace(decoder_net(setting, shape, 2)),
    ),
    "categorical": Entry(
        "pixels of this many levels, each with its own weight", _categorical, PLURAL
    ),
    "discretized-logistic": Entry(
        "pixels of this many ordered levels", _discretized_logistic, PLURAL
    ),
}


TABLES: dict[str, Mapping[str, Entry]] = {
    "prior": PRIORS,
    "encoder": ENCODERS,
    "likelihood": LIKELIHOODS,
    "net": NETS,
    "estimator": ESTIMATORS,
}
