"""The nouns of the library, as protocols: what a component must offer to be used in another's
place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

Key = PRNGKeyArray


Scalar = Float[Array, ""]


PyTree = Any


class Params(NamedTuple):
    """All that is learned: theta (generative), phi (inference) and psi (the estimator's own, such
    as a learned baseline).
    """

    theta: PyTree
    phi: PyTree
    psi: PyTree = ()


class Distribution(Protocol):
    """One event, without a batch shape: a pytree, so `jax.vmap` makes batches and `stop_gradient`
    stops its parameters.

    NumPyro's distributions with an empty batch shape satisfy it as they are.
    """

    def sample(self, key: Key) -> Any: ...
    def log_prob(self, value: Any, /) -> Scalar: ...

    @property
    def mean(self) -> Any: ...  # where it is known: pictures and summaries use it, bounds do not


class Net(Protocol):
    """A function of one example with parameters: a Linen module, or any value with these two
    methods.
    """

    def init(self, key: Key, example: Any, /) -> PyTree: ...
    def apply(self, params: PyTree, example: Any, /) -> Any: ...


class Prior(Protocol):
    """p_theta(z) as a functional of q: `prior(theta_prior, q)`, where q is the function x ->
    q_phi(z|x).
    """

    def init(self, key: Key, x: ArrayLike) -> PyTree: ...
    def __call__(self, params: PyTree, q: Callable[[ArrayLike], Distribution]) -> Distribution: ...


class Conditional(Protocol):
    """p(. | given): the likelihood p(x|z), the encoder q(z|x) or any other factor whose parameters
    a net gives.
    """

    def init(self, key: Key, given: Any) -> PyTree: ...
    def __call__(self, params: PyTree, given: Any) -> Distribution: ...


class Model(Protocol):
    """Three pure functions of one example."""

    def init(self, key: Key, x: ArrayLike) -> Params: ...
    def log_joint(self, params: Params, x: ArrayLike, z: Any) -> Scalar: ...
    def posterior(self, params: Params, x: ArrayLike) -> Distribution: ...


class LatentVariableModel(Model, Protocol):
    """A model that also shows its two factors: what an analytic KL and ancestral sampling need."""

    def p_z(self, params: Params) -> Distribution: ...
    def p_x_given_z(self, params: Params, z: Any) -> Distribution: ...


Bound = Callable[[Float[Array, " k"]], Scalar]


Estimator = Callable[[Any, Params, Any, Key], Scalar]


class Terms(NamedTuple):
    """What an objective gives that maximises something else than it reports: the bound on log p(x),
    in nats, and that something.

    A plain scalar stands for both.
    """

    bound: Scalar
    objective: Scalar
