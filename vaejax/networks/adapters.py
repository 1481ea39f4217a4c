"""Nets of other libraries: of Flax NNX, Equinox and Haiku, and Linen modules with dropout.

Each is given what builds the module, never the module: a net is a value, and `init` makes its
parameters, those that the library itself makes of the same key. The value is equal for equal
builders and arguments, so nothing is traced twice and a checkpoint knows it; name a function once,
for each new lambda is another value.

A module with dropout has `vaejax.Stochastic` parameters: training draws its masks for each example
and step, everything else takes the module without dropout. A module that keeps a state, such as
BatchNorm's, is refused. The libraries are loaded when they are asked for.
"""

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import flax.linen as nn

from vaejax.base.checks import shortened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import by_value, component
from vaejax.networks.base import Net, init_net
from vaejax.networks.stochastic import Stochastic, parted


def from_nnx(build: Callable, *args: Any, **keywords: Any) -> Net:
    """The net build(*args, **keywords, rngs=rngs) of Flax NNX, a class or a function:
    `vaejax.from_nnx(Encoder, 784, 20)`.

    Each `nnx.Param` is learned; other arrays are constants, those of seed 0. Where it keeps a
    stream of random numbers, as `nnx.Dropout(0.5, rngs=rngs)` does, it has noise.
    """
    house = _house("flax_nnx", "flax")
    _require_builder("from_nnx", build, house.KIND)
    _require_arguments("from_nnx", build, args, keywords, "rngs")
    return house.NNXNet(by_value(partial(build, *args, **keywords)))


def from_equinox(build: Callable, *args: Any, **keywords: Any) -> Net:
    """The net build(*args, **keywords, key=key) of Equinox, a class or a function:
    `vaejax.from_equinox(eqx.nn.MLP, 784, 20, 100, 2)`.

    Each array of floats is learned; others are constants, those of seed 0. Where
    `eqx.nn.inference_mode` changes it, as it does an `eqx.nn.Dropout(0.5)`, it has noise, and is
    called as module(x, key=key).
    """
    house = _house("equinox_modules", "equinox")
    _require_builder("from_equinox", build, house.KIND)
    _require_arguments("from_equinox", build, args, keywords, "key")
    return house.EquinoxNet(by_value(partial(build, *args, **keywords)))


def from_haiku(build: Callable, *args: Any, **keywords: Any) -> Net:
    """The net of a Haiku function of the example, which is what `hk.transform` takes, or of the
    class of a module with its arguments: `vaejax.from_haiku(hk.nets.MLP, (100, 20))`.

    It has noise where the function, or the module's call, takes `is_training`: True beside a key
    for `hk.next_rng_key()`, False without.
    """
    house = _house("haiku_functions", "haiku")
    _require_builder("from_haiku", build, house.KIND)
    if isinstance(build, type):
        _require_arguments("from_haiku", build, args, keywords)
    return house.HaikuNet(by_value(partial(build, *args, **keywords)))


def from_linen(module: nn.Module) -> Net:
    """The net of a Linen module whose call takes `deterministic`: False beside a key for all its
    random numbers, True without. A module that takes no `deterministic` is a net as it stands.
    """
    return LinenNet(module)


@component
class LinenNet:
    """What `from_linen` returns."""

    module: nn.Module

    def __post_init__(self):
        if not isinstance(self.module, nn.Module) or not callable(self.module):
            raise TypeError(
                f"from_linen takes a Linen module, not {shortened(self.module)}; a class is called"
                " first"
            )
        if "deterministic" not in inspect.signature(self.module.__call__).parameters:
            raise TypeError(
                f"the call of {type(self.module).__name__} takes no `deterministic`, so it is a net"
                " as it stands; a module with dropout takes it, and hands it to its nn.Dropout"
            )

    def init(self, key: Key, example: Any) -> PyTree:
        return Stochastic(init_net(self.module, key, example, deterministic=True))

    def apply(self, params: PyTree, example: Any) -> Any:
        variables, key = parted(self, params, has_noise=True)
        rngs = {} if key is None else {"params": key}  # of which all streams are made
        return self.module.apply(variables, example, deterministic=key is None, rngs=rngs)


def _house(module: str, package: str) -> ModuleType:
    """The module of this folder that knows another library."""
    try:
        return import_module(f"vaejax.networks.{module}")
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install vaejax[{package}]", name=package
        ) from None


def _require_builder(owner: str, build: Any, kind: type | tuple[type, ...]) -> None:
    """Raises TypeError for a module, or what cannot be called, in place of what builds one."""
    if isinstance(build, kind) or not callable(build):
        raise TypeError(
            f"{owner} takes what builds a module, a class with its arguments or a function, not"
            f" {shortened(build)}: write vaejax.{owner}(Module, its arguments)"
        )


def _require_arguments(
    owner: str, build: Callable, args: tuple, keywords: dict[str, Any], random: str | None = None
) -> None:
    """Raises TypeError where the builder does not take the arguments, and random numbers by this
    name.
    """
    is_class = isinstance(build, type)
    signature = inspect.signature(build.__init__ if is_class else build)
    positional = (None, *args) if is_class else args
    name, given = build.__name__ if is_class else shortened(build), "its arguments"
    if random is not None:
        given, keywords = f"{given} and {random}={random}", {**keywords, random: None}
    try:
        signature.bind(*positional, **keywords)
    except TypeError as error:
        raise TypeError(f"{owner} calls {name} with {given}: {error}") from None
