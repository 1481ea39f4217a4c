"""What training maximises: the contract of an objective, and the mean over a minibatch.

`minibatch` is the only place where a batch appears.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_kind, require_said, require_scalar, shortened
from vaejax.base.contracts import Declared
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms, numbers_of
from vaejax.base.values import component
from vaejax.data.mapping import map_batch
from vaejax.estimators.base import Estimator, as_estimator
from vaejax.models.base import Model, Supports
from vaejax.networks.stochastic import draw_nets


class Objective(Declared):
    """(params, xs, key, step) -> Terms(bound, objective): what is reported and what is maximised of
    a batch xs, at a step of training.

    `fit`, `fit_seeds`, `gradient_moments` and the checks of data read the fields below; none has a
    default that could be wrong in silence. Your own, around another one:

        @vaejax.component
        class Halved(vaejax.Objective):
            inner: vaejax.Objective

            @property
            def model(self):
                return self.inner.model

            @property
            def support(self):
                return self.inner.support

            @property
            def schedules(self):
                return self.inner.schedules

            @property
            def scale(self):
                return self.inner.scale

            def __call__(self, params, xs, key, step):
                terms = self.inner(params, xs, key, step)
                return terms._replace(objective=terms.objective / 2)

            def bound(self, params, x, key):
                return self.inner.bound(params, x, key)

    `Around` is this recipe with all but `__call__` written: derive from it where that suits.
    """

    model: Any  # a Model, or None where there is none; then it says its own `support`
    schedules: Any  # ((name, schedule), ...) of the weights that move with the step; () of none
    scale: Any  # what the mean over a batch is multiplied by: 1, or the size of a data set
    of_one_example: bool = False  # whether xs is one example, not a batch

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        require_said(cls, Objective, "model", "the vaejax.Model that it is of, or None")
        question = "((name, schedule), ...) of the weights that move with the step, () of none"
        require_said(cls, Objective, "schedules", question)
        question = "what the mean over a batch is multiplied by, 1 of most"
        require_said(cls, Objective, "scale", question)

    @property
    def support(self) -> Supports:
        """The values that the data are for: those of the model."""
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has no model, so it must say its `support`")
        return self.model.support

    @property
    def independent_example(self) -> "Objective | None":
        """The objective of one example that this is the mean of, each with noise of its own; None
        where the examples of a batch share anything.
        """
        return None

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        """The bound of one example, nats, for validation: no schedule moves it."""
        raise NotImplementedError(f"{type(self).__name__}.bound")


SUM_OVER_EXAMPLE = "sum it over the one example, and take the mean over a batch"


def terms_of(objective: Objective, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
    """What an objective gives, or a TypeError; of one example, its nets are drawn for it."""
    params, key = draw_nets(params, key) if objective.of_one_example else (params, key)
    terms = objective(params, xs, key, step)
    if not isinstance(terms, Terms):
        raise TypeError(
            f"{type(objective).__name__} gave {type(terms).__name__}; an objective gives"
            " vaejax.Terms(bound, objective), the same number twice where it is one"
        )
    for name, number in numbers_of(terms).items():
        require_scalar(number, f"the {name} of {type(objective).__name__}", SUM_OVER_EXAMPLE)
    return terms


def require_objective(objective: Any) -> None:
    """Raises TypeError for a plain function: what it is of cannot be seen from outside."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"{shortened(objective)} is not an objective: write vaejax.minibatch(estimator, model),"
            " wrap a function of one example by vaejax.minibatch(function, support=...), or derive"
            " from vaejax.Objective"
        )


# Of one example.


@component
class PerExample(Objective):
    """An estimator of a model, as the objective of one example: xs is that example."""

    estimator: Estimator
    model: Model
    scale = 1
    of_one_example = True

    def __post_init__(self):
        object.__setattr__(self, "estimator", as_estimator(self.estimator))
        require_kind(self.model, Model, "the model")

    @property
    def schedules(self) -> tuple:
        return self.estimator.schedules

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        return self.estimator.terms(self.model, params, xs, key, step)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return self(params, x, key, 0).bound


@component
class PerExampleFunction(Objective):
    """A plain function (params, x, key) -> bound of one example, for data of this support, whose
    names are pairs, since a value is hashed.
    """

    function: Callable
    named_support: Any
    model = None
    schedules = ()
    scale = 1
    of_one_example = True

    @property
    def support(self) -> Supports:
        named = self.named_support
        return dict(named) if isinstance(named, tuple) else named

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        bound = self.function(params, xs, key)
        return bound if isinstance(bound, Terms) else Terms(bound, bound)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return self(params, x, key, 0).bound


def per_example(
    estimator: Any, model: Model | None = None, *, support: Supports = None
) -> Objective:
    """The objective of one example: of an estimator and a model, or of a plain function.

    A function (params, x, key) -> bound, or Terms, is a closed box, so it is asked for the
    `support` of the data that it is for.
    """
    if model is not None:
        return PerExample(estimator, model)
    name = type(estimator).__name__
    if isinstance(estimator, Objective):
        raise TypeError(f"{name} is an objective already; give it to what takes one, as it is")
    if isinstance(estimator, Estimator):
        raise TypeError(f"{name} is an estimator, and needs a model too: ({name}(...), model)")
    if isinstance(estimator, partial) and isinstance(estimator.func, Estimator):
        name = type(estimator.func).__name__
        raise TypeError(
            f"a partial of {name} hides its model: write ({name}(...), model), not"
            f" (partial({name}(...), model))"
        )
    if support is None:
        raise ValueError(
            f"{shortened(estimator)} does not show which data it is for: write (estimator, model),"
            " or add support=..., such as vaejax.supports.BINARY, or REAL for any finite numbers"
        )
    named = tuple(support.items()) if isinstance(support, Mapping) else support
    return PerExampleFunction(estimator, named)


# Of a batch.


def minibatch(
    estimator: Any,
    model: Model | None = None,
    *,
    support: Supports = None,
    dataset_size: int | None = None,
) -> "Minibatch":
    """(1/M) sum_m bound(params, x_m, key_m): the mean bound of a batch, nats per example.

    With `dataset_size=N` it is N/M times the sum over the batch instead, an unbiased estimate of
    the sum over the data set. `vaejax.minibatch(vaejax.Pathwise(), model)`; a plain function of one
    example says its `support`, as in `per_example`.
    """
    if dataset_size is not None:
        require_count(dataset_size, "dataset_size")
    return Minibatch(per_example(estimator, model, support=support), dataset_size)


@component
class Minibatch(Objective):
    """What `minibatch` returns: a value, so two of equal parts share one compiled program."""

    example: Objective
    dataset_size: int | None = None

    @property
    def model(self) -> Model | None:
        return self.example.model

    @property
    def support(self) -> Supports:
        return self.example.support

    @property
    def schedules(self) -> tuple:
        return self.example.schedules

    @property
    def scale(self) -> int:
        return self.dataset_size or 1

    @property
    def independent_example(self) -> Objective:
        return self.example

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        terms_at = partial(terms_of, self.example, params)
        terms = map_batch(lambda x, key: terms_at(x, key, step), self.support, xs, key)
        return jax.tree.map(lambda values: jnp.mean(values) * self.scale, terms)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.example.bound(params, x, key)


class Around(Objective):
    """An objective made of another one, `inner`, with its model, support, schedules and bound."""

    inner: Objective

    @property
    def model(self) -> Model | None:
        return self.inner.model

    @property
    def support(self) -> Supports:
        return self.inner.support

    @property
    def schedules(self) -> tuple:
        return self.inner.schedules

    @property
    def scale(self) -> float:
        return self.inner.scale

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.inner.bound(params, x, key)


@component
class Maximised:
    """(params, xs, key) -> what an objective maximises at a step: the function to differentiate."""

    objective: Objective
    step: int = 0

    def __call__(self, params: Params, xs: PyTree, key: Key) -> Scalar:
        return terms_of(self.objective, params, xs, key, self.step).objective


@component
class Reported:
    """(params, x, key) -> the bound of one example, of which a validation is the mean: by value, so
    that an objective typed anew shares its compiled program.
    """

    objective: Objective

    def __call__(self, params: Params, x: PyTree, key: Key) -> Scalar:
        bound = self.objective.bound(params, x, key)
        return require_scalar(bound, f"{type(self.objective).__name__}.bound", SUM_OVER_EXAMPLE)
