"""Densities of one event: normalised, in nats, summed over the event."""

from vaejax.distributions.base import as_event as as_event
from vaejax.distributions.base import one_event as one_event
from vaejax.distributions.bernoulli import BernoulliDensity as BernoulliDensity
from vaejax.distributions.bernoulli import ContinuousBernoulliDensity as ContinuousBernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity as OneHotCategoricalDensity
from vaejax.distributions.flows import Flow as Flow
from vaejax.distributions.mixture import Mixture as Mixture
from vaejax.distributions.normal import DiagNormalDensity as DiagNormalDensity
from vaejax.distributions.normal import standard_normal as standard_normal
from vaejax.distributions.numpyro import NumPyroDensity as NumPyroDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity as DiscretizedLogisticDensity
from vaejax.distributions.pixels import Levels as Levels
from vaejax.distributions.relaxed import RelaxedBernoulliDensity as RelaxedBernoulliDensity
from vaejax.distributions.relaxed import RelaxedCategoricalDensity as RelaxedCategoricalDensity
from vaejax.distributions.sphere import UniformOnSphereDensity as UniformOnSphereDensity
from vaejax.distributions.sphere import VonMisesFisherDensity as VonMisesFisherDensity
