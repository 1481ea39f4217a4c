"""The parameters of a model: that they are those which its `init` makes."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.checks import shortened
from vaejax.base.types import Params, PyTree
from vaejax.networks.stochastic import undrawn


def require_params(model: Any, params: Params, names: Collection[str] = ()) -> None:
    """Raises TypeError for what is no `Params`, and ValueError where theta lacks one of the names:
    then they are those of another model.
    """
    if not isinstance(params, Params):
        raise TypeError(
            f"the parameters of {type(model).__name__} are {shortened(params)}; give vaejax.Params,"
            " as model.init(key, x) makes them"
        )
    theta: Any = params.theta
    known = list(theta) if isinstance(theta, Mapping) else []
    if not set(names) <= set(known):
        raise ValueError(
            f"these are the parameters of another model: theta of {type(model).__name__} has"
            f" {', '.join(names)}, and this one {', '.join(map(str, known)) or 'no names'}"
        )


def require_params_of(model: Any, params: Params, x: PyTree) -> None:
    """Raises ValueError for theta and phi of other names or shapes than `model.init` makes them for
    an example of these shapes, by shapes alone. Of another model whose parameters have these shapes
    nothing is seen, nor where `init` cannot be asked.
    """
    require_params(model, params)
    leaves, structure = jax.tree.flatten(x)
    try:
        forms = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        wanted = _made_by(model, structure, forms)
    except TypeError:  # a model that has no hash, or an example of something else than arrays
        return
    if wanted is None:
        return
    own = undrawn(model.own_params(params))
    if _form(own) == _form(wanted):
        return
    require_params(model, params, wanted.theta if isinstance(wanted.theta, Mapping) else ())
    has, made = _shapes(own), _shapes(wanted)
    differing = [path for path in {**made, **has} if has.get(path) != made.get(path)]
    if differing:
        path = differing[0]
        raise ValueError(
            f"these are the parameters of another model: params{path} {_said(has.get(path))}, and"
            f" {type(model).__name__}.init {_made(made.get(path))} for an example of shape"
            f" {shortened(jax.tree.map(jnp.shape, x))}; give those that were trained with this"
            " model, and one example, or use jax.vmap or vaejax.minibatch"
        )


@contextmanager
def reading_params_of(model: Any, params: Params, x: PyTree) -> Iterator[None]:
    """`require_params_of` after what is done inside, or where that misses a part. Not before: of a
    batch where one example belongs the model itself says more.
    """
    try:
        yield
    except LookupError:
        require_params_of(model, params, x)
        raise
    require_params_of(model, params, x)


@lru_cache(maxsize=64)
def _made_by(model: Any, structure: Any, forms: tuple[tuple, ...]) -> Params | None:
    """The shapes of what `init` makes for such an example; None where it does not say."""
    example = structure.unflatten([jax.ShapeDtypeStruct(*form) for form in forms])
    try:
        # The shape of a key: none is drawn, so nothing compiles.
        return jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), example)
    except Exception:  # whatever an `init` raises that reads values, or that there is none of
        return None


def _form(params: Params) -> tuple:
    """The structure and the shapes of theta and phi; psi belongs to an estimator."""
    leaves, structure = jax.tree.flatten((params.theta, params.phi))
    return structure, [jnp.shape(leaf) for leaf in leaves]


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """{path: shape}, likewise."""
    leaves: Any = jax.tree_util.tree_leaves_with_path(params._replace(psi=()))
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _said(shape: tuple[int, ...] | None) -> str:
    return "is not there" if shape is None else f"has shape {shape}"


def _made(shape: tuple[int, ...] | None) -> str:
    return "makes no such part" if shape is None else f"makes it with shape {shape}"
