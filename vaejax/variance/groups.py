"""Groups of parameters: {name: a function of params that selects a tree of them}, for reports by
part of a model.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.types import Params, PyTree
from vaejax.base.values import component
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.models.base import Model, posterior_of

Groups = Mapping[str, Callable[[Params], PyTree]]


@component
class Part:
    """The parameters at a path: `Part(("theta", "prior"))(params)`."""

    names: tuple[str, ...]

    def __call__(self, params: Params) -> PyTree:
        tree: Any = params
        for name in self.names:
            tree = getattr(tree, name) if isinstance(tree, tuple) else tree[name]
        return tree


def parts(params: Params) -> Groups:
    """The parameters of the prior, the likelihood, the encoder and the estimator, those that there
    are.
    """
    groups = {"phi": Part(("phi",)), "psi": Part(("psi",))}
    if isinstance(params.theta, dict):
        groups = {f"theta {name}": Part(("theta", name)) for name in params.theta} | groups
    else:
        groups = {"theta": Part(("theta",))} | groups
    return {name: part for name, part in groups.items() if jax.tree.leaves(part(params))}


# The encoder's last layer, cut into what gives q's location and what gives its scale.


class _Columns(NamedTuple):
    """A leaf of the last layer: its name, its place among the leaves of phi, and the axis that the
    outputs are along.
    """

    name: str
    position: int
    axis: int


@component
class _Head:
    """Half of the last layer of phi, {name: its half}, or with None the rest of phi."""

    layer: tuple[_Columns, ...]
    half: int | None

    def __call__(self, params: Params) -> PyTree:
        leaves = jax.tree.leaves(params.phi)
        if self.half is None:
            last = {columns.position for columns in self.layer}
            return [leaf for position, leaf in enumerate(leaves) if position not in last]
        return {
            columns.name: jnp.split(leaves[columns.position], 2, columns.axis)[self.half]
            for columns in self.layer
        }


def heads(model: Model, params: Params, x: PyTree) -> Groups:
    """`parts`, with the encoder's last layer cut in two where q is a diagonal normal: what gives
    its location, and what its scale.

    The last layer is found by what it does, at the example x, whatever it is called: the dense
    layer of 2d outputs of which each moves one coordinate of q alone, and whose bias moves the
    location one to one. ValueError for a net that does not end in one.
    """
    layer = _last_layer(model, params, x)
    groups = dict(parts(params))
    groups.pop("phi")
    return {
        **groups,
        "phi body": _Head(layer, None),
        "phi location": _Head(layer, 0),
        "phi scale": _Head(layer, 1),
    }


def _last_layer(model: Model, params: Params, x: PyTree) -> tuple[_Columns, ...]:
    """A kernel and a bias; ValueError unless there is one of each."""
    by_loc, by_scale, v = _pulls(model, params, x)
    scales = jax.tree.leaves(by_scale)
    layer, ranks = [], []
    for position, (path, loc) in enumerate(jax.tree_util.tree_leaves_with_path(by_loc)):
        axis = _output_axis(np.asarray(loc), np.asarray(scales[position]), v)
        if axis is not None:
            name = jax.tree_util.keystr(path[-1:], simple=True)
            layer.append(_Columns(name, position, axis))
            ranks.append(loc.ndim)
    if sorted(ranks) != [1, 2]:
        raise ValueError(_no_heads("this net ends in none, or in more than one"))
    return tuple(layer)


def _pulls(model: Model, params: Params, x: PyTree) -> tuple[PyTree, PyTree, np.ndarray]:
    """How phi moves as v pulls at the location, and as v pulls at the log-scale; and v."""

    def posterior(phi: PyTree) -> Any:
        return posterior_of(model, params._replace(phi=phi), x)

    q = jax.eval_shape(posterior, params.phi)
    if not isinstance(q, DiagNormalDensity):
        raise ValueError(_no_heads(f"q is {q.name}"))
    q, pull_back = jax.vjp(posterior, params.phi)
    v = jnp.linspace(1, 2, q.loc.size).astype(q.loc.dtype)
    along, nothing = v.reshape(q.loc.shape), jnp.zeros_like(q.loc)
    (by_loc,) = pull_back(DiagNormalDensity(along, nothing))
    (by_scale,) = pull_back(DiagNormalDensity(nothing, along))
    return by_loc, by_scale, np.asarray(v)


def _output_axis(by_loc: np.ndarray, by_scale: np.ndarray, v: np.ndarray) -> int | None:
    """The axis of a kernel or a bias along which entry j moves loc_j alone and entry d + j
    log_scale_j alone, or None: where v pulls at the location, the kernel gets h v^T, and the bias
    v.
    """
    d = len(v)
    axes = [axis for axis in range(by_loc.ndim) if by_loc.shape[axis] == 2 * d]
    if by_loc.ndim > 2:
        return None
    for axis in reversed(axes):
        moved = np.moveaxis(by_loc, axis, -1)
        loc, others = moved[..., :d] / v, moved[..., d:]
        apart = not others.any() and not np.moveaxis(by_scale, axis, -1)[..., :d].any()
        h = 1.0 if by_loc.ndim == 1 else loc[:, :1]
        if apart and np.any(h) and np.allclose(loc, h, rtol=1e-4, atol=1e-6 * np.abs(h).max()):
            return axis
    return None


def _no_heads(reason: str) -> str:
    return (
        "heads needs an encoder DiagNormal of a net that ends in one dense layer, such as"
        f" vaejax.MLP, and {reason}; use parts(params)"
    )
