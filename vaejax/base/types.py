"""The words that every signature uses."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, PRNGKeyArray

Key = PRNGKeyArray
Scalar = Float[Array, ""]
PyTree = Any
Bound = Callable[[Float[Array, " k"]], Scalar]


class Params(NamedTuple):
    """All that is learned: theta (generative), phi (inference) and psi (the estimator's own, such
    as a learned baseline).
    """

    theta: PyTree
    phi: PyTree
    psi: PyTree = ()


class Terms(NamedTuple):
    """What an objective gives, nats: the bound on log p(x) that is reported, and what is maximised.

    They are one number where training maximises the bound itself. An objective whose bound is E_q
    log p(x | z) less a rate, such as KL(q || p), and that knows the two apart, says the first; and
    one that knows what each latent node takes of the rate says {node: its rate}.
    """

    bound: Scalar
    objective: Scalar
    reconstruction: Scalar | None = None
    rates: dict[str, Scalar] | None = None


def numbers_of(terms: Any) -> dict[str, Any]:
    """{name: number} of a NamedTuple like `Terms`, without those that are not known; the rate of a
    node is `rate_NODE`.
    """
    named = terms._asdict()
    rates = named.pop("rates") or {}
    known = {name: number for name, number in named.items() if number is not None}
    return known | {f"rate_{node}": rate for node, rate in rates.items()}
