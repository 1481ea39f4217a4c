"""The parameters of a model, or of a part of one: that they are those which its `init` makes."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.checks import shortened
from vaejax.base.types import Params, PyTree


class OtherParamsError(ValueError):
    """The parameters are not those that the `init` of this model, or of this part, makes."""


def require_params(model: Any, params: Params, names: Collection[str] = ()) -> None:
    """Raises TypeError for what is no `Params` of real numbers, and ValueError where theta lacks
    one of the names: then they are those of another model.
    """
    if not isinstance(params, Params):
        raise TypeError(
            f"the parameters of {type(model).__name__} are {shortened(params)}; give vaejax.Params,"
            " as model.init(key, x) makes them"
        )
    _require_arrays(model, params)
    _require_names(model, params, names)


def _require_names(model: Any, params: Params, names: Collection[str]) -> None:
    """Raises ValueError where theta lacks one of the names."""
    theta: Any = params.theta
    known = list(theta) if isinstance(theta, Mapping) else []
    if not set(names) <= set(known):
        raise OtherParamsError(
            f"these are the parameters of another model: theta of {type(model).__name__} has"
            f" {', '.join(names)}, and this one {', '.join(map(str, known)) or 'no names'}"
        )


def require_params_of(model: Any, params: Params, x: PyTree) -> None:
    """Raises ValueError for theta and phi of other names or shapes than `model.init` makes them for
    an example of these shapes, by shapes alone. Of another model whose parameters have these shapes
    nothing is seen, nor where `init` cannot be asked.
    """
    require_params(model, params)
    try:
        wanted = _made_by(model, *_forms((x,)))
    except TypeError:  # a model that has no hash, or an example of something else than arrays
        return
    if wanted is not None:
        _require_same(model, params, wanted, x)


def _require_same(model: Any, params: Params, wanted: Params, x: PyTree) -> None:
    """Raises ValueError that names the first part of the parameters that is not as wanted."""
    _require_names(model, params, wanted.theta if isinstance(wanted.theta, Mapping) else ())
    given = f" for an example of shape {shortened(jax.tree.map(jnp.shape, x))}"
    remedy = " model, and one example, or use jax.vmap or vaejax.minibatch"
    own = model.own_params(params)._replace(psi=())  # which belongs to an estimator
    _require_same_numbers(model, own, wanted._replace(psi=()), given, remedy)


def _require_same_numbers(
    owner: Any, params: PyTree, wanted: PyTree, given: str, remedy: str
) -> None:
    """Raises OtherParamsError that names the first array that is not as wanted."""
    made, has = _numbers(wanted), _numbers(params)

    def differs(path: str) -> bool:
        is_of_draw = path not in made and has[path][1] == "keys"  # of a net's noise: no parameter
        return has.get(path) != made.get(path) and not is_of_draw

    differing = list(filter(differs, {**made, **has}))
    if differing:
        path = differing[0]
        raise OtherParamsError(
            f"these are the parameters of another model: params{path} {_said(has.get(path))}, and"
            f" {type(owner).__name__}.init {_made(made.get(path))}{given}; give those that were"
            f" trained with this{remedy}"
        )


def require_params_of_part(part: Any, params: PyTree, *given: PyTree) -> None:
    """Raises OtherParamsError for parameters of other names or shapes than `part.init` makes for
    what it is shown, by shapes alone; a prior, of which no example is known, is asked without one.
    Nothing is seen where `init` cannot be asked.
    """
    try:
        wanted = _made_by(part, *_forms(given)) if given else _made_without_example(part)
    except TypeError:  # a part that has no hash, or is shown something else than arrays
        return
    if wanted is not None and not _is_drawing.get():
        require_as_made(part, params, wanted)


def require_as_made(part: Any, params: PyTree, wanted: PyTree) -> None:
    """Raises OtherParamsError for parameters of a part that differ from those of these shapes."""
    _require_arrays(part, params)
    _require_same_numbers(part, params, wanted, "", f" {type(part).__name__}")


def _require_arrays(owner: Any, params: PyTree) -> None:
    """Raises TypeError where a leaf is no array of real numbers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not _holds_numbers(leaf):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {shortened(leaf)}, and parameters are"
                f" arrays of real numbers; give those of {type(owner).__name__}.init(key, x)"
            )


def require_params_alone(model: Any, params: Params, x: PyTree = None) -> None:
    """`require_params_of` where no example is at hand, or its inputs alone: for one as the model
    draws it. Of parameters without phi it takes the encoder's to be right, since none is read.
    """
    require_params(model, params)
    if _is_drawing.get():
        return
    try:
        example = _drawn_by(model, _forms(params), _forms(x))
        made = None if example is None else _made_by(model, *_forms((example,)))
    except TypeError:  # as above
        return
    if made is not None:
        has_phi = bool(jax.tree.leaves(params.phi))
        wanted = made if has_phi else made._replace(phi=params.phi)
        _require_same(model, params, wanted, example)


@contextmanager
def reading_params_of(model: Any, params: Params, x: PyTree) -> Iterator[None]:
    """`require_params_of` after what is done inside, or where that misses a part. Not before: of a
    batch where one example belongs the model itself says more.
    """
    try:
        yield
    except (LookupError, OtherParamsError):
        require_params_of(model, params, x)
        raise
    require_params_of(model, params, x)


_is_drawing = ContextVar("is_drawing", default=False)  # whether an example is drawn for its shapes


@lru_cache(maxsize=64)
def _drawn_by(model: Any, forms_of_params: tuple, forms_of_x: tuple) -> PyTree | None:
    """The shapes of an example that a model draws at such parameters; None where it does not."""
    params, x = map(_of_forms, (forms_of_params, forms_of_x))
    key = jax.eval_shape(jax.random.key, 0)
    token = _is_drawing.set(True)
    try:
        return jax.eval_shape(model.sample, params, key, x)[0]
    except OtherParamsError:
        raise
    except Exception:  # whatever a model raises that draws nothing: then its own call says more
        return None
    finally:
        _is_drawing.reset(token)


@lru_cache(maxsize=256)
def _made_by(part: Any, structure: Any, forms: tuple[tuple, ...]) -> Any:
    """The shapes of what `init` makes for such arguments; None where it does not say."""
    try:
        # The shape of a key: none is drawn, so nothing compiles.
        key = jax.eval_shape(jax.random.key, 0)
        return jax.eval_shape(part.init, key, *_of_forms((structure, forms)))
    except Exception:  # whatever an `init` raises that reads values, or that there is none of
        return None


class _NoExample:
    """What stands for an example of which nothing is known: an `init` that reads it raises."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        raise LookupError("array")


@lru_cache(maxsize=64)
def _made_without_example(part: Any) -> PyTree | None:
    """The shapes of what `init` makes where it reads no example; None where it does."""
    try:
        key = jax.eval_shape(jax.random.key, 0)
        return jax.eval_shape(lambda key: part.init(key, _NoExample()), key)
    except Exception:  # as above
        return None


def _forms(tree: PyTree) -> tuple[Any, tuple[tuple, ...]]:
    """The structure of a tree, and the shape and dtype of each leaf; TypeError for no arrays."""
    leaves, structure = jax.tree.flatten(tree)
    dtypes = [jnp.result_type(leaf) for leaf in leaves]  # before shapes: a function has one too
    return structure, tuple(zip(map(jnp.shape, leaves), dtypes, strict=True))


def _of_forms(forms: tuple[Any, tuple[tuple, ...]]) -> PyTree:
    structure, leaves = forms
    return structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def _numbers(params: PyTree) -> dict[str, tuple[tuple[int, ...], str]]:
    """{path: shape and kind}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): _numbers_in(leaf) for path, leaf in leaves}


def _numbers_in(leaf: Any) -> tuple[tuple[int, ...], str]:
    """The shape of a leaf, and what it holds: whole numbers do for real ones."""
    dtype = jnp.result_type(leaf)
    kinds = {"flags": jnp.bool_, "keys": jax.dtypes.prng_key}
    kind = next((kind for kind in kinds if jnp.issubdtype(dtype, kinds[kind])), "numbers")
    return jnp.shape(leaf), kind


def _holds_numbers(leaf: Any) -> bool:
    """Whether it is an array, of anything but complex numbers, which nothing here is for."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return False
    try:
        return not jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)
    except TypeError:
        return False


def _said(numbers: tuple[tuple[int, ...], str] | None) -> str:
    return "is not there" if numbers is None else f"has {_described(*numbers)}"


def _made(numbers: tuple[tuple[int, ...], str] | None) -> str:
    return "makes no such part" if numbers is None else f"makes it with {_described(*numbers)}"


def _described(shape: tuple[int, ...], kind: str) -> str:
    return f"shape {shape}" + ("" if kind == "numbers" else f" of {kind}")
