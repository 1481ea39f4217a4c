"""The contract of a net."""

import inspect
from typing import Any, Protocol, runtime_checkable

from vaejax.base.checks import require_no_class, shortened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import check_fields_of


@runtime_checkable
class Net(Protocol):
    """A function of one example with parameters: a Linen module, or any value with these two.

    It has no batch axis. `init` gives a pytree of arrays, `apply` one array, or a tuple of as many
    as what uses it has names for. A net of another library is such a value:

        @vaejax.component
        class FromNNX:  # Flax NNX: `make` builds the module from its random numbers
            make: Callable

            def init(self, key, example):
                return nnx.to_pure_dict(nnx.state(self.make(nnx.Rngs(key)), nnx.Param))

            def apply(self, params, example):
                graph, state = nnx.split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))))
                nnx.replace_by_pure_dict(state, params)
                return nnx.merge(graph, state)(example)

        @vaejax.component
        class FromEquinox:  # Equinox: `make` builds the module from a key
            make: Callable

            def init(self, key, example):
                return eqx.filter(self.make(key=key), eqx.is_inexact_array)

            def apply(self, params, example):
                module = eqx.filter_eval_shape(self.make, key=jax.random.key(0))
                return eqx.combine(params, eqx.filter(module, eqx.is_inexact_array, inverse=True))(
                    example
                )

        @vaejax.component
        class FromFunctions:  # two functions, such as those of hk.without_apply_rng in Haiku
            init: Callable
            apply: Callable
    """

    def init(self, key: Key, example: Any, /) -> PyTree: ...
    def apply(self, params: PyTree, example: Any, /) -> Any: ...


# {where the classes of another library are defined: what to write}
_REMEDIES = {
    "flax.nnx": "write FromNNX(what builds it)",
    "equinox": "write FromEquinox(what builds it)",
    "torch": "JAX has no gradient of PyTorch's modules, so write it in Flax or Equinox",
    "keras": "write FromFunctions around its stateless_call",
}


def require_net(net: Any, name: str) -> None:
    """Raises TypeError for what is no net, with what to write instead."""
    kinds = (net if isinstance(net, type) else type(net)).__mro__
    homes = [kind.__module__ for kind in kinds]
    remedies = [_REMEDIES[known] for known in _REMEDIES for home in homes if home.startswith(known)]
    if not remedies:
        require_no_class(net, name)
    if remedies or not isinstance(net, Net):
        remedy = remedies[0] if remedies else "write FromFunctions(init, apply)"
        raise TypeError(
            f"{name} is {shortened(net)}, which is no net: a value with init(key, example) and"
            f" apply(params, example); {remedy}, a recipe of vaejax.networks.base.Net"
        )
    if "rng" in inspect.signature(net.apply).parameters:
        raise TypeError(
            f"{name} is {shortened(net)}, whose apply wants a key, and a net has no noise; in Haiku"
            " write hk.without_apply_rng(hk.transform(...))"
        )


check_fields_of(Net, require_net)
