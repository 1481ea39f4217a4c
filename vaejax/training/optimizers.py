"""Optax optimisers: what each may ask for, what it starts from, and which equal each other."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import attrgetter
from types import CodeType, FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax.base.checks import is_key, require_no_class, shortened
from vaejax.base.functions import closed_over
from vaejax.base.types import Params, PyTree, Scalar
from vaejax.training.run import copied, is_real
from vaejax.training.skipping import SkippedState


class ByStructure:
    """An Optax optimiser that equals any other made by the same calls, so that both share one
    compiled program. Raises TypeError for what is none.

    Optax builds closures, which compare by identity: `optax.adam(1e-3)` typed twice would compile
    twice. Compared here are the code of Optax's own functions and what they close over; a function
    from elsewhere, such as a user's schedule, is compared by identity, since it may read variables
    that change.
    """

    def __init__(self, optimizer: Any):
        require_no_class(optimizer, "optimizer")
        try:
            self.init, self._update = optimizer.init, optimizer.update
        except AttributeError:
            raise TypeError(
                f"optimizer = {shortened(optimizer)} has no init and update; give one of Optax's,"
                " such as optax.adam(1e-3)"
            ) from None
        self._asks = _keywords(self._update)
        self._structure = _structure(optimizer, frozenset())

    def update(
        self,
        gradient: Params,
        state: PyTree,
        params: Params,
        value: Scalar,
        value_fn: Callable[[Params], Scalar],
    ) -> tuple[Params, PyTree]:
        """The updates of the parameters and the new state, to make `value` = value_fn(params)
        smaller, of which `gradient` is the gradient.

        An optimiser gets what it asks for: `reduce_on_plateau` the value, a line search the
        function. What none asks for costs nothing.
        """

        # A line search passes its function what it does not know itself.
        def minimised(params, *, obj_fn=None, grad_fn=None):
            return value_fn(params)

        offered = {
            "value": value,
            "grad": gradient,
            "value_fn": minimised,
            "obj_fn": value_fn,  # Sophia's name
            "grad_fn": lambda params, i: jax.grad(value_fn)(params),  # SAM's, at its i-th ascent
        }
        asked = {name: offered[name] for name in offered if self._asks(name)}
        return self._update(gradient, state, params, **asked)

    @property
    def name(self) -> str:
        """The functions of Optax that made it and its parts, as far as they are seen."""
        return ", ".join(dict.fromkeys(_makers(self._structure))) or "of your own"

    def __eq__(self, other):
        return isinstance(other, ByStructure) and self._structure == other._structure

    def __hash__(self):
        return hash(self._structure)


def started(optimizer: ByStructure, params: Params) -> PyTree:
    """The state before the first step, in arrays whose shapes and dtypes every step keeps.

    Raises ValueError, in one line that names the optimiser, where it cannot train these parameters:
    where it wants the gradient of each example, or parameters of a form of its own.
    """
    try:
        state = _first_state(optimizer, params)
        updates, following = _form_of_step.eval_shape(optimizer, params, state)
        _require_same("gives updates", updates, params, _form_of_update)
        _require_same("makes a state", following, state, attrgetter("shape"))
        if jax.tree.map(attrgetter("dtype"), following) != jax.tree.map(attrgetter("dtype"), state):
            # A Python number is whole until a step makes a fraction of it.
            state = jax.tree.map(
                lambda leaf, after: leaf if leaf.dtype == after.dtype else leaf.astype(after.dtype),
                state,
                following,
            )
            _, following = _form_of_step.eval_shape(optimizer, params, state)
            _require_same("makes a state", following, state, attrgetter("shape", "dtype"))
    except Exception as error:  # whatever code of others raises
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"the optimizer ({optimizer.name}) cannot train these parameters: {cause}"
        ) from error
    return state


def watched(state: PyTree) -> tuple[bool, ...]:
    """Of each leaf of a starting state, whether a NaN or infinity in it would be a fault: what
    starts infinite, as the best value of `reduce_on_plateau` does, may be so.
    """
    leaves = jax.tree.leaves(state)
    return tuple(is_real(leaf) and bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)


def skipped_steps(state: PyTree) -> jax.Array | None:
    """The number of steps that `SkipSteps` or `optax.apply_if_finite` skipped; None where the
    optimiser has neither.
    """
    counts = [node.total_notfinite for node in nodes_of(state, optax.ApplyIfFiniteState)]
    counts += [node.total_skipped for node in nodes_of(state, SkippedState)]
    return reduce(jnp.maximum, counts) if counts else None


def learning_rate(state: PyTree) -> jax.Array | None:
    """That of the last step, where the state says it, as that of `optax.inject_hyperparams` does;
    None where it has none, or several.
    """
    kinds = optax.InjectStatefulHyperparamsState, optax.InjectHyperparamsState
    injected = [node.hyperparams for node in nodes_of(state, kinds)]
    rates = [rates["learning_rate"] for rates in injected if "learning_rate" in rates]
    return rates[0] if len(rates) == 1 and jnp.shape(rates[0]) == () else None


def nodes_of(state: PyTree, kinds: type | tuple[type, ...]) -> list[Any]:
    """The parts of a state that are of some kinds."""

    def is_one(node):
        return isinstance(node, kinds)

    return [node for node in jax.tree.leaves(state, is_leaf=is_one) if is_one(node)]


def _first_state(optimizer: ByStructure, params: Params) -> PyTree:
    """In one program, for array by array each shape would be another; but so where `init` reads the
    values of the parameters.
    """
    try:
        return _compiled_state(optimizer, params)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return copied(optimizer.init(params))


@partial(jax.jit, static_argnames="optimizer")
def _compiled_state(optimizer: ByStructure, params: Params) -> PyTree:
    return copied(optimizer.init(params))


@partial(jax.jit, static_argnames="optimizer")
def _form_of_step(optimizer: ByStructure, params: Params, state: PyTree) -> tuple[Params, PyTree]:
    """A step for its shapes and dtypes alone: the gradient is any tree of the right form."""

    def value_fn(params):
        return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(params)), jnp.zeros(()))

    return optimizer.update(params, state, params, jnp.zeros(()), value_fn)


def _require_same(what: str, tree: PyTree, expected: PyTree, form: Callable) -> None:
    """Raises ValueError where two trees differ in structure, or a leaf in its form."""
    structure = jax.tree.structure(expected)
    if jax.tree.structure(tree) != structure:
        raise ValueError(f"it {what} of another structure than {shortened(structure)}")
    for (path, leaf), like in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True
    ):
        if form(leaf) != form(like):
            name = jax.tree_util.keystr(path).lstrip(".")
            raise ValueError(f"it {what} of {form(leaf)} at {name}, in place of {form(like)}")


def _form_of_update(leaf: jax.Array) -> tuple:
    """Its shape, and which numbers it can hold: of an update that is complex or whole, a parameter
    would take a part.
    """
    known = (jnp.complexfloating, jnp.floating)
    kind = next((kind for kind in known if jnp.issubdtype(leaf.dtype, kind)), jnp.integer)
    return leaf.shape, kind.__name__


def _keywords(update: Callable) -> Callable[[str], bool]:
    """Whether an update takes the keyword of a name."""
    parameters = inspect.signature(update).parameters.values()
    names = {parameter.name for parameter in parameters}
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    return lambda name: takes_any or name in names


def _makers(structure: Any) -> Iterator[str]:
    """The names of the functions in which those of a structure were defined."""
    if isinstance(structure, CodeType) and "<locals>" in structure.co_qualname:
        yield structure.co_qualname.split(".")[0]
    elif isinstance(structure, tuple):
        for part in structure:
            yield from _makers(part)


def _structure(obj: Any, parents: frozenset[int]) -> Any:
    if id(obj) in parents:
        return "cycle"
    inside = partial(_structure, parents=parents | {id(obj)})
    if isinstance(obj, FunctionType) and obj.__module__.startswith("optax"):
        return (
            obj.__code__,
            inside(closed_over(obj)),
            inside(obj.__defaults__),
            inside(obj.__kwdefaults__),
        )
    if isinstance(obj, MethodType):
        return inside(obj.__func__), inside(obj.__self__)
    if isinstance(obj, partial):
        return inside(obj.func), inside(obj.args), inside(obj.keywords)
    if isinstance(obj, optax.MultiSteps):
        return type(obj), inside(vars(obj))
    if isinstance(obj, tuple | list):
        return type(obj), tuple(inside(item) for item in obj)
    if isinstance(obj, dict):
        return type(obj), tuple((key, inside(item)) for key, item in obj.items())
    if isinstance(obj, jax.Array) and is_key(obj):
        return str(obj.dtype), inside(jax.random.key_data(obj))
    if isinstance(obj, np.ndarray | jax.Array):
        return obj.shape, str(obj.dtype), np.asarray(obj).tobytes()
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        fields = tuple(inside(vars(obj)[field.name]) for field in dataclasses.fields(obj))
        # One that can change is compared by identity, as any other object.
        is_frozen = obj.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
        return (type(obj), fields) if is_frozen else Identity(obj)
    if obj is None or isinstance(
        obj, bool | int | float | str | bytes | np.generic | np.dtype | type
    ):
        return type(obj), obj
    return Identity(obj)


class Identity:
    """`obj`, compared by identity. It holds on to obj, so that the identity is not given to
    another.
    """

    def __init__(self, obj: Any):
        self.obj = obj

    def __eq__(self, other):
        return isinstance(other, Identity) and self.obj is other.obj

    def __hash__(self):
        return id(self.obj)
