"""Groups of parameters: {name: a function of params that selects a tree of them}, for reports by
part of a model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.types import Params, PyTree
from vaejax.base.values import component
from vaejax.distributions.normal import DiagNormalDensity

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


def heads(model: Any, params: Params, x: PyTree) -> Groups:
    """`parts`, with the encoder's last layer cut in two where q is a diagonal normal: what gives
    its location, and what its scale.

    For nets that end in one dense layer of all heads, as `vaejax.MLP` does; ValueError for others.
    """
    last = _last_layer(model, params, x)
    groups = dict(parts(params))
    groups.pop("phi")
    return {
        **groups,
        "phi body": Head(last, None),
        "phi location": Head(last, 0),
        "phi scale": Head(last, 1),
    }


@component
class Head:
    """Half of the last layer of phi, or with None all the rest of phi."""

    last: str
    half: int | None

    def __call__(self, params: Params) -> PyTree:
        layers = params.phi["params"]
        if self.half is None:
            return {name: layer for name, layer in layers.items() if name != self.last}
        half = self.half
        return jax.tree.map(lambda leaf: jnp.split(leaf, 2, axis=-1)[half], layers[self.last])


def _last_layer(model: Any, params: Params, x: PyTree) -> str:
    q = jax.eval_shape(model.posterior, params, x)
    layers = params.phi.get("params", {}) if isinstance(params.phi, dict) else {}
    width = 2 * q.loc.size if isinstance(q, DiagNormalDensity) else None
    wide = sorted(
        name
        for name, layer in layers.items()
        if "bias" in layer and layer["bias"].shape == (width,)
    )
    if not wide:
        raise ValueError(
            "heads wants an encoder DiagNormal of a net that ends in one dense layer, such as"
            " vaejax.MLP; use parts(params)"
        )
    return wide[-1]
