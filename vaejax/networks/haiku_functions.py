"""Functions and modules of Haiku as nets."""

import inspect
from typing import Any

import haiku as hk
import jax

from vaejax.base.checks import shortened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import Partial, component
from vaejax.networks.base import require_same_params, require_stateless
from vaejax.networks.stochastic import Stochastic, parted

KIND = hk.Module, hk.Transformed, hk.TransformedWithState


@component
class HaikuNet:
    """What `vaejax.from_haiku` returns."""

    build: Partial  # of a function of the example, or of the class of a module

    @property
    def has_noise(self) -> bool:
        call = self.build.func
        call = call.__call__ if isinstance(call, type) else call
        return "is_training" in inspect.signature(call).parameters

    def _transformed(self, is_training: bool) -> hk.TransformedWithState:
        mode = {"is_training": is_training} if self.has_noise else {}

        def function(example):
            if isinstance(self.build.func, type):
                return self.build()(example, **mode)
            return self.build(example, **mode)

        return hk.transform_with_state(function)

    def init(self, key: Key, example: Any) -> PyTree:
        params, state = self._transformed(is_training=True).init(key, example)
        require_stateless(_name(self.build), sorted(state))
        return Stochastic(params) if self.has_noise else params

    def apply(self, params: PyTree, example: Any) -> Any:
        learned, key = parted(self, params, self.has_noise)
        transformed = self._transformed(is_training=key is not None)
        try:
            return transformed.apply(learned, {}, key, example)[0]
        except (TypeError, ValueError) as error:
            shapes = jax.eval_shape(transformed.init, jax.random.key(0), example)[0]
            require_same_params(self, learned, shapes)
            if key is None and "PRNGKey" in str(error):  # Haiku's word for a key that is missing
                raise ValueError(
                    f"{_name(self.build)} draws random numbers, and has no key: let it take"
                    " `is_training`, and draw where that is True"
                ) from None
            raise


def _name(build: Partial) -> str:
    return build.func.__name__ if isinstance(build.func, type) else shortened(build.func)
