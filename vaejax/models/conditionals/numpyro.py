"""Conditionals of any NumPyro family."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpyro.distributions as npd

from vaejax.base.checks import shortened
from vaejax.base.supports import Support
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.numpyro import from_numpyro, support_of_numpyro
from vaejax.models.conditionals.base import OfNet
from vaejax.networks.base import Net, apply_net

Family = Callable[..., npd.Distribution]


@component
class NumPyroConditional(OfNet):
    """family(net(given)), any NumPyro distribution of the net's output: `NumPyroConditional(net,
    lambda loc: npd.StudentT(3, loc, 1))`.

    Counts: `Poisson`, `GammaPoisson`, `NegativeBinomial2`, `Binomial`, `BetaBinomial`,
    `BetaNegativeBinomial`, `Multinomial` and `DirichletMultinomial` are right to 1e-6 in float32 up
    to three million, where their parameters are rates or probabilities; by logits the rounding of
    the probability stays, some 1e-5 at a million. So does, in NumPyro's negative binomials, that of
    what they keep, concentration / mean or 1 / probability - 1, where that is almost certain or
    all but Poisson; `vaejax.NegativeBinomial` keeps its mean.

    All its batch axes are made one event. The support is the family's own; `support` names it where
    that cannot be read without the net.
    """

    net: Net
    family: Family
    support: Support | None = None

    def __post_init__(self):
        if self.support is None:
            object.__setattr__(self, "support", support_of_family(self.family))

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply_net(self.net, params, given)
        heads = output if isinstance(output, tuple) else (output,)
        try:
            p, reason = self.family(*heads), None
        except AssertionError as error:  # NumPyro's word for a draw without a key
            p, reason = None, error
        if not isinstance(p, npd.Distribution):
            raise TypeError(
                f"NumPyroConditional.family gave {shortened(p)}, no distribution: a NumPyro model"
                " draws, and a family is the distribution of its draw; of several sites write a"
                " vaejax.Node with a NumPyroConditional for each"
            ) from reason
        return from_numpyro(p)


def support_of_family(family: Family) -> Support:
    """The values that a family is for, tried at small parameters; an end that moves with their
    values or their number, as of a Categorical, is left open. TypeError for a family that cannot be
    tried.
    """
    first = _support_at(family, 0.5, 2)
    others = [_support_at(family, 0.75, 2), _support_at(family, 0.5, 3)]
    known = [support for support in (first, *others) if support is not None]
    if first is None or others[0] is None:
        raise TypeError(
            f"the support of {family} cannot be read off it; say NumPyroConditional(net, family,"
            " support=...), such as vaejax.supports.REAL"
        )
    if all(support == first for support in known):
        return first
    return Support(
        first.name,
        f"NumPyro's {first.name} with ends that the net moves",
        first.low if len({support.low for support in known}) == 1 else -math.inf,
        first.high if len({support.high for support in known}) == 1 else math.inf,
        first.steps,
        moving=True,
    )


def _support_at(family: Family, fill: float, size: int) -> Support | None:
    """The support at parameters that are all one number: of scalars, of vectors, of a matrix."""
    for shapes in _parameter_shapes(family, size):
        parameters = [np.full(shape, fill, np.float32) for shape in shapes]
        try:
            return support_of_numpyro(family(*parameters))
        except Exception:  # noqa: S112  a family may refuse these shapes in any way
            continue
    return None


def _parameter_shapes(family: Family, size: int) -> list[tuple[tuple[int, ...], ...]]:
    """Shapes to try for as many parameters as the family needs."""
    parameters: list[Any] = list(inspect.signature(family).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    counts = [len(needed)] if needed else [1, 2, 3]
    tries = [(shape,) * count for count in counts for shape in ((), (size,), (size, size))]
    return [*tries, ((size,), (size, size)), ((size,), (size, 1), (size,))]
