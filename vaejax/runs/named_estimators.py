"""The names that stand for gradient estimators, each of its number of samples: `dreg:50`."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from vaejax.base.checks import Integers, Range, require_in
from vaejax.bounds import iwae_bound
from vaejax.distributions.noise import Antithetic, Sobol
from vaejax.estimators.base import Estimator
from vaejax.estimators.combined_bounds import PIWAE, CIWAEBound, MIWAEBound
from vaejax.estimators.doubly_reparameterised import DReG
from vaejax.estimators.gaussian import MeasureValued, TaylorControlVariate
from vaejax.estimators.multi_sample import OVIS, RWS, VIMCO
from vaejax.estimators.pathwise import AnalyticKL, Pathwise, StickTheLanding
from vaejax.estimators.score_function import ScoreFunction
from vaejax.runs.names import Entry, named, require_entry

COUNT, PLURAL, EVEN = Integers(1), Integers(2), Integers(2, factor=2)
GROUP, BETA = 8, 0.05  # those of Rainforth et al. 2018


@dataclass(frozen=True)
class EstimatorEntry(Entry):
    """An estimator, and the bound that it is of: of one sample the IWAE bound is the ELBO. That
    of PIWAE is two, one in theta and one in phi.
    """

    number: Range = COUNT
    bound: Literal["ELBO", "IWAE", "MIWAE", "PIWAE", "CIWAE"] = "ELBO"


_iwae = partial(EstimatorEntry, number=PLURAL, bound="IWAE")
_grouped = partial(EstimatorEntry, number=Integers(GROUP, factor=GROUP))

ESTIMATORS = {
    "pathwise": EstimatorEntry("reparameterised", lambda samples=1: Pathwise(samples)),
    "antithetic": EstimatorEntry(
        "pathwise with pairs of opposite noise",
        lambda samples=2: Pathwise(samples, noise=Antithetic()),
        EVEN,
    ),
    "sobol": EstimatorEntry(
        "pathwise with quasi-random noise",
        lambda samples=2: Pathwise(samples, noise=Sobol()),
        PLURAL,
    ),
    "analytic-kl": EstimatorEntry("the KL in closed form", lambda samples=1: AnalyticKL(samples)),
    "stick-the-landing": EstimatorEntry(
        "pathwise without the score of q", lambda samples=1: StickTheLanding(samples)
    ),
    "estimated-coefficient": EstimatorEntry(
        "pathwise with a fitted multiple of the score of q",
        lambda samples=1: StickTheLanding(samples, coefficient="estimated"),
    ),
    "taylor": EstimatorEntry(
        "pathwise with a linear control variate", lambda samples=1: TaylorControlVariate(samples)
    ),
    "measure-valued": EstimatorEntry(
        "measure-valued derivatives", lambda samples=1: MeasureValued(samples)
    ),
    "score-function": EstimatorEntry(
        "needs no reparameterisation", lambda samples=2: ScoreFunction(samples), PLURAL
    ),
    "iwae": _iwae("reparameterised", lambda samples: Pathwise(samples, iwae_bound)),
    "stopped-iwae": _iwae(
        "without the score of q: biased", lambda samples: StickTheLanding(samples, iwae_bound)
    ),
    "dreg": _iwae("doubly reparameterised", lambda samples: DReG(samples)),
    "rws": _iwae("wake-sleep: of the inclusive KL in phi", lambda samples: RWS(samples)),
    "vimco": _iwae("score function with leave-one-out baselines", lambda samples: VIMCO(samples)),
    "ovis": _iwae(
        "score function with asymptotically optimal baselines", lambda samples: OVIS(samples)
    ),
    "miwae": _grouped(
        f"reparameterised, the mean of IWAE-{GROUP} over groups of {GROUP} samples",
        lambda samples: Pathwise(samples, MIWAEBound(samples // GROUP)),
        bound="MIWAE",
    ),
    "piwae": _grouped(
        "as iwae in theta, as miwae in phi",
        lambda samples: PIWAE(samples, samples // GROUP),
        bound="PIWAE",
    ),
    "ciwae": EstimatorEntry(
        f"reparameterised, {BETA} times the ELBO and {1 - BETA} times the IWAE bound",
        lambda samples: Pathwise(samples, CIWAEBound(BETA)),
        number=PLURAL,
        bound="CIWAE",
    ),
}


def named_estimator(name: str, num_samples: int | None = None) -> Estimator:
    """The estimator of `name:K`, or of `name` with K given beside."""
    if num_samples is None:
        return named("estimator", name, ESTIMATORS)
    key, colon, argument = name.partition(":")
    entry = require_entry("estimator", name, ESTIMATORS)
    if colon:
        raise ValueError(
            f"estimator {name!r}: here the number of samples has its own field; give estimator ="
            f" {key!r} and num_samples = {argument or 'K'}"
        )
    require_in(num_samples, f"estimator {name!r}: num_samples", entry.number)
    return entry.build(num_samples)


def bound_of_estimator(name: str) -> str:
    """The bound that `name:K` is of: ELBO, or IWAE-K."""
    num_samples = named_estimator(name).num_samples  # pyright: ignore[reportAttributeAccessIssue]
    bound = ESTIMATORS[name.partition(":")[0]].bound
    return bound if bound == "ELBO" else f"{bound}-{num_samples}"
