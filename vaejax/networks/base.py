"""The contract of a net, and the two doors through which the library asks one."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import (
    ApplyScopeInvalidVariablesTypeError,
    InvalidRngError,
    ScopeCollectionNotFound,
    ScopeParamNotFoundError,
    ScopeParamShapeError,
)

from vaejax.base.checks import require_no_class, shortened
from vaejax.base.floats import widened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import check_fields_of
from vaejax.networks.stochastic import of_another_net


@runtime_checkable
class Net(Protocol):
    """A function of one example with parameters: a Linen module, or any value with these two.

    It has no batch axis. `init` gives a pytree of arrays, `apply` one array, or a tuple of as many
    as what uses it has names for. `vaejax.from_nnx`, `vaejax.from_equinox` and `vaejax.from_haiku`
    make one of a module of these libraries, `vaejax.from_linen` of a Linen module with dropout.
    Where the parameters are a `vaejax.Stochastic`, the net has noise. Of two functions:

        @vaejax.component
        class FromFunctions:
            init: Callable
            apply: Callable
    """

    def init(self, key: Key, example: Any, /) -> PyTree: ...
    def apply(self, params: PyTree, example: Any, /) -> Any: ...


# {where the classes of another library are defined: what to write}
_REMEDIES = {
    "flax.nnx": "write vaejax.from_nnx(what builds it, its arguments)",
    "equinox": "write vaejax.from_equinox(what builds it, its arguments)",
    "haiku": "write vaejax.from_haiku(a function of the example, or the class and its arguments)",
    "torch": "JAX has no gradient of PyTorch's modules, so write it in Flax or Equinox",
    "keras": "write FromFunctions, a recipe of vaejax.networks.base.Net, around its stateless_call",
}
_RECIPE = "write FromFunctions(init, apply), a recipe of vaejax.networks.base.Net"


def require_net(net: Any, name: str) -> None:
    """Raises TypeError for what is no net, with what to write instead."""
    is_net = isinstance(net, Net)
    remedies = [] if is_net else _remedies_for(net)
    if not remedies:
        require_no_class(net, name)
    if not is_net:
        raise TypeError(
            f"{name} is {shortened(net)}, which is not a net: a value with init(key, example) and"
            f" apply(params, example); {[*remedies, _RECIPE][0]}"
        )
    if "rng" in inspect.signature(net.apply).parameters:
        raise TypeError(
            f"{name} is {shortened(net)}, whose apply takes a key, as of hk.transform(f); write"
            " vaejax.from_haiku(f)"
        )
    if isinstance(net, nn.Module) and "deterministic" in _asked(net):
        raise TypeError(
            f"{name} is {shortened(net)}, which asks whether it is `deterministic`; write"
            " vaejax.from_linen(module), which says so"
        )


def _remedies_for(thing: Any) -> list[str]:
    kinds = (thing if isinstance(thing, type) else type(thing)).__mro__
    homes = [f"{kind.__module__}." for kind in kinds]
    houses = [house for house in _REMEDIES for home in homes if home.startswith(f"{house}.")]
    return [_REMEDIES[house] for house in houses]


def _asked(module: nn.Module) -> Mapping[str, Any]:
    """The parameters of its call, which a module need not have."""
    return inspect.signature(module.__call__).parameters if callable(module) else {}


check_fields_of(Net, require_net)


def init_net(net: Net, key: Key, example: Any, **keywords: Any) -> PyTree:
    """`net.init(key, example)`; ValueError for a Linen module with more than parameters."""
    params = net.init(key, example, **keywords)
    if isinstance(net, nn.Module):
        require_stateless(type(net).__name__, [kind for kind in params if kind != "params"])
    return params


def require_stateless(name: str, kinds: list[str]) -> None:
    """Raises ValueError for a module that keeps a state of these kinds, with the reason."""
    if not kinds:
        return
    raise ValueError(
        f"{name} keeps a state beside its parameters ({', '.join(kinds)}), and a net is a function"
        " of its parameters and one example: statistics of a batch, such as those of BatchNorm,"
        " would make the bound of one example depend on the others, and a sum over examples no"
        ' bound; normalise each example by itself, as vaejax.MLP(..., norm="layer") and'
        ' vaejax.ConvEncoder(..., norm="group") do, or LayerNorm'
    )


def apply_net(net: Net, params: PyTree, example: Any) -> Any:
    """`net.apply(params, example)` as floats of 32 bits or more, whatever the net computes in, or a
    ValueError that says what to type where `example` is not one example.
    """
    name = type(net).__name__
    try:
        return jax.tree.map(widened, net.apply(params, example))
    except ScopeParamShapeError:
        shapes = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(example))
        raise ValueError(
            f"{name} got an input of shape {shapes}, which its parameters do not fit;"
            " these functions take one example: use jax.vmap or vaejax.minibatch, and the"
            " parameters that init made for this net"
        ) from None
    except (
        ApplyScopeInvalidVariablesTypeError,
        ScopeCollectionNotFound,
        ScopeParamNotFoundError,
    ):
        raise ValueError(of_another_net(net)) from None
    except InvalidRngError:
        raise ValueError(
            f"{name} draws random numbers, and has no key: let its __call__ take `deterministic`,"
            " hand that to its nn.Dropout, and write vaejax.from_linen(module)"
        ) from None


def require_same_params(net: Net, params: PyTree, shapes: PyTree) -> None:
    """Raises ValueError for parameters of another structure or of other shapes than `shapes`."""
    same = jax.tree.structure(params) == jax.tree.structure(shapes)
    if not same or jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, shapes):
        raise ValueError(of_another_net(net))
