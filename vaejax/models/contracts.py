"""What each model is held to, whoever wrote it and whoever asks."""

from collections.abc import Callable
from typing import Any

from vaejax.base.checks import require_key, require_scalar
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.distributions.base import Distribution
from vaejax.models.learned import reading_params_of, require_params, require_params_alone

SUM_OVER_VARIABLES = "sum it over the one example and its latent"


def joint_alone(self: Any, params: Params, x: PyTree, z: PyTree) -> tuple[Scalar, Scalar | None]:
    """`Model.log_densities` of a class with a `log_joint` of its own, from which it follows."""
    return self.log_joint(params, x, z), None


def _name(model: Any, method: Callable) -> str:
    return f"{type(model).__name__}.{method.__name__}"


def _log_density(model: Any, method: Callable, params: Params, x: PyTree, z: PyTree) -> Scalar:
    with reading_params_of(model, params, x):
        number = method(params, x, z)
    return require_scalar(number, _name(model, method), SUM_OVER_VARIABLES)


def _log_densities(
    model: Any, method: Callable, params: Params, x: PyTree, z: PyTree
) -> tuple[Scalar, Scalar | None]:
    with reading_params_of(model, params, x):
        log_joint, log_p_x = method(params, x, z)
    for number in (log_joint, log_p_x):
        if number is not None:
            require_scalar(number, _name(model, method), SUM_OVER_VARIABLES)
    return log_joint, log_p_x


def _posterior(
    model: Any, method: Callable, params: Params, *arguments: Any, **keywords: Any
) -> Distribution:
    x = arguments[0] if arguments else keywords.get("x")
    require_params(model, params)
    with reading_params_of(model, params, x):
        return method(params, *arguments, **keywords)


def _prior(model: Any, method: Callable, params: Params, x: PyTree = None) -> Distribution:
    return _without_example(model, method, params, x=x)


def _likelihood(
    model: Any, method: Callable, params: Params, z: PyTree, x: PyTree = None
) -> Distribution:
    return _without_example(model, method, params, z, x=x)


def _without_example(
    model: Any, method: Callable, params: Params, *arguments: Any, x: PyTree = None
) -> Any:
    """What a method gives that reads no more of an example than its inputs."""
    result = method(params, *arguments, x)
    if x is None:  # else it was looked at with the example
        require_params_alone(model, params)
    return result


def _simulate(
    model: Any, method: Callable, params: Params, z_key: Key, x_key: Key, x: PyTree = None
) -> tuple[PyTree, PyTree]:
    drawn = method(params, z_key, x_key, x)
    require_params_alone(model, params, x)
    return drawn


def _density(
    factor: Any, method: Callable, params: PyTree, given: Any = None, *others: Any, **keywords: Any
) -> Distribution:
    """Its parameters are looked at afterwards: of a batch where one example belongs, and of a net
    that does not fit, the factor itself says more.
    """
    try:
        density = method(params, given, *others, **keywords)
    except (LookupError, TypeError, AttributeError):
        factor.check_params(params, given)
        raise
    factor.check_params(params, given)
    return density


def _init(model: Any, method: Callable, key: Key, *arguments: Any, **keywords: Any) -> Params:
    if key is not None:  # as of a model that draws none of its parameters
        require_key(key)
    return method(key, *arguments, **keywords)


CONTRACTS = {
    "init": _init,
    "log_joint": _log_density,
    "log_densities": _log_densities,
    "log_likelihood": _log_density,
    "p_z": _prior,
    "p_x_given_z": _likelihood,
    "posterior": _posterior,
    "simulate": _simulate,
}
CONTRACTS_OF_FACTORS = {"__call__": _density}
