"""Nets with noise of their own, such as dropout: one draw of a net is a net.

With m the noise of all the nets of a model, its masks for example, training maximises
E_m bound(params, m; x), which is drawn once for each example and each step, by
`draw_nets(params, key)`: at one m, theta and phi are those of an ordinary model, so every estimator
is for it what it is for any other, and its bound is one on log p_m(x). Everything else, such as
`vaejax.evaluate`, a validation or `model.sample`, takes the net without noise, which is a function
of the parameters alone.
"""

from typing import Any, NamedTuple

import jax

from vaejax.base.types import Key, PyTree


class Stochastic(NamedTuple):
    """The parameters of a net with noise, and the key of one draw of it; None of the net without.

    A net of your own with noise gives them by `init`, and finds the key in `apply`:

        @vaejax.component
        class NoisyLinear:
            scale: float

            def init(self, key, example):
                return vaejax.Stochastic(jax.random.normal(key, (2, example.size)))

            def apply(self, params, example):
                kernel, key = params
                if key is not None:
                    kernel = kernel + self.scale * jax.random.normal(key, kernel.shape)
                return kernel @ example
    """

    params: PyTree
    key: Key | None = None


def draw_nets(params: PyTree, key: Key) -> tuple[PyTree, Key]:
    """`params` with a key for each net among them that has noise and no key yet, and the key that
    is left: `key` itself where there is no such net.
    """
    nodes, structure = jax.tree.flatten(params, is_leaf=_is_stochastic)
    waiting = [i for i, node in enumerate(nodes) if _is_stochastic(node) and node.key is None]
    if not waiting:
        return params, key
    key, *net_keys = jax.random.split(key, 1 + len(waiting))
    for i, net_key in zip(waiting, net_keys, strict=True):
        nodes[i] = nodes[i]._replace(key=net_key)
    return structure.unflatten(nodes), key


def parted(net: Any, params: PyTree, has_noise: bool) -> tuple[PyTree, Key | None]:
    """The parameters that a net learns and the key of its noise; ValueError for those of another
    net.
    """
    if _is_stochastic(params) != has_noise:
        raise ValueError(of_another_net(net))
    return params if has_noise else (params, None)


def of_another_net(net: Any) -> str:
    return f"{type(net).__name__} got the parameters of another net; give those that its init made"


def require_no_noise(owner: str, params: PyTree) -> None:
    """Raises TypeError for parameters of a net with noise that is not drawn yet."""
    if any(map(_is_stochastic, jax.tree.leaves(params, is_leaf=_is_stochastic))):
        raise TypeError(
            f"{owner} is of a batch whose examples share something, and a net with dropout is"
            " another net for each example; use vaejax.minibatch, or nets without dropout"
        )


def _is_stochastic(node: PyTree) -> bool:
    return isinstance(node, Stochastic)
