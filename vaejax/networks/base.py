"""The contract of a net."""

from typing import Any, Protocol

from vaejax.base.types import Key, PyTree


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
    """

    def init(self, key: Key, example: Any, /) -> PyTree: ...
    def apply(self, params: PyTree, example: Any, /) -> Any: ...
