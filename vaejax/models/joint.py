"""The joint density of a directed graph, and what is exact where its nodes are finite."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.types import Distribution, Key, PyTree, Scalar
from vaejax.base.values import pytree, static
from vaejax.distributions.base import is_reparameterised, sample_and_log_prob
from vaejax.distributions.noise import at_uniform
from vaejax.models.elimination import eliminate, require_table

if TYPE_CHECKING:
    from vaejax.models.graph import DirectedGraph
from vaejax.models.node import Values, shown_to


@pytree
class Joint:
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)), nats, over v = {name: value}.

    `ready` are the factors whose parents are inputs, each made once however many samples are drawn;
    the rest need the values of others.
    """

    ready: dict[str, Distribution]
    params: dict[str, PyTree]
    inputs: dict[str, Any]
    graph: "DirectedGraph" = static()

    def factor(self, name: str, values: Values) -> Distribution:
        """p(v_name | Pa(v_name)), the parents' values among `values`."""
        if name in self.ready:
            return self.ready[name]
        node = self.graph[name]
        return node.conditional(self.params[name], shown_to(node, {**self.inputs, **values}, None))

    def factors(self, value: Values) -> dict[str, Distribution]:
        """{name: p(v_name | Pa(v_name))} at a value for each node; ValueError if one is missing."""
        self._require(value, self.graph.order)
        return {name: self.factor(name, value) for name in self.graph.order}

    def log_probs(self, value: Values) -> dict[str, Scalar]:
        """{name: log p(v_name | Pa(v_name))}; their sum is `log_prob`."""
        return {name: factor.log_prob(value[name]) for name, factor in self.factors(value).items()}

    def log_prob(self, value: Values) -> Scalar:
        """Of a value for each node; ValueError if one is missing."""
        return sum(self.log_probs(value).values(), start=jnp.zeros(()))

    def sample(self, key: Key) -> dict[str, Any]:
        """Ancestrally: every node after its parents."""
        return self.complete({}, key)

    def complete(self, values: Values, key: Key) -> dict[str, Any]:
        """These values, and ancestral samples of the other nodes given those before them (nothing
        is inferred backwards).
        """
        return self._walk(values, key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[dict[str, Any], Scalar]:
        """(v, log p(v | u)); a factor that only knows the density of its own samples serves."""
        values, log_probs = self._walk({}, key)
        return values, sum(log_probs.values(), start=jnp.zeros(()))

    def _walk(self, values: Values, key: Key) -> tuple[dict[str, Any], dict[str, Scalar]]:
        values, log_probs = dict(values), {}
        for name, key_of in zip(self.graph.order, keys_of(key, len(self.graph.nodes)), strict=True):
            if name not in values:
                values[name], log_probs[name] = sample_and_log_prob(
                    self.factor(name, values), key_of
                )
        return values, log_probs

    def at_uniform(self, u: Float[Array, " n"]) -> "AtUniforms":
        """The distribution whose one sample has u for its uniform numbers, node by node."""
        return AtUniforms(self, u)

    @property
    def reparameterised(self) -> bool:
        """Whether the samples of all factors move smoothly with their parameters."""
        return all(is_reparameterised(factor) for factor in self.shapes[1].values())

    @property
    def shapes(self) -> tuple[dict[str, Any], dict[str, Distribution]]:
        """A sample and the factors at it, in shapes and dtypes alone."""

        def at_sample(key):
            values = self.sample(key)
            return values, self.factors(values)

        return jax.eval_shape(at_sample, jax.random.key(0))

    @property
    def mean(self) -> dict[str, Any]:
        """Of independent factors. Others are to be averaged."""
        if self.params:
            raise AttributeError("a graph has no closed form for its mean; average samples")
        return {name: factor.mean for name, factor in self.ready.items()}

    # What is exact where the other nodes are finite.

    def log_marginal(self, values: Values) -> Scalar:
        """log p(values | u) for values of some of the nodes, exact: all others are summed out.

        Those below the given ones sum to one; those above must have finitely many values
        (Bernoulli, one-hot or an enumerable NumPyro factor), or it is a ValueError. By variable
        elimination: the cost is that of the largest table, not of all states.
        """
        return self._log_table(values, ())[1]

    def log_marginals(
        self, values: Values, *names: str
    ) -> tuple[list[jax.Array], Float[Array, "..."]]:
        """The states of these nodes, and log p(values, state, ..., state | u) for each combination,
        one axis for each name.
        """
        return self._log_table(values, names)

    def condition(self, values: Values) -> "Conditioned":
        """p(the other nodes | values, u)."""
        self._require_known(values)
        return Conditioned(self, dict(values))

    def _log_table(
        self, values: Values, names: tuple[str, ...]
    ) -> tuple[list[jax.Array], jax.Array]:
        self._require_known(values)
        relevant = [
            name for name in self.graph.order if name in self.graph.ancestors((*values, *names))
        ]
        hidden = [name for name in relevant if name not in values]
        states: dict[str, jax.Array] = {}
        for name in (
            hidden
        ):  # parents first: which values there are may hang on their shapes, never on their values
            states[name] = self.states(
                name, {**values, **{other: of[0] for other, of in states.items()}}
            )
        factors = [self._table(name, values, states) for name in relevant]
        scope, table = eliminate(factors, [name for name in hidden if name not in names])
        order = [scope.index(name) for name in names]
        return [states[name] for name in names], jnp.transpose(table, order)

    def states(self, name: str, values: Values) -> jax.Array:
        """All values of a finite node, its parents' among `values`; ValueError for a node that is
        not finite.
        """
        factor = self.factor(name, values)
        states = getattr(factor, "states", None)
        if states is None:
            raise ValueError(
                f"{name!r} is no finite node ({type(factor).__name__}), so it cannot be summed out;"
                " give its value, or infer it: a bound (vaejax.GraphModel) or MCMC on log_prob"
            )
        return states

    def _table(
        self, name: str, values: Values, states: Mapping[str, jax.Array]
    ) -> tuple[tuple[str, ...], jax.Array]:
        """(scope, log p(v_name | parents) at every combination of the hidden nodes that take
        part).
        """
        scope = tuple(other for other in (*self.graph[name].parents, name) if other in states)
        require_table(scope, [len(states[other]) for other in scope])

        def at(*some):
            all_values = {**values, **dict(zip(scope, some, strict=True))}
            return self.factor(name, all_values).log_prob(all_values[name])

        for i in reversed(range(len(scope))):
            at = jax.vmap(at, [0 if j == i else None for j in range(len(scope))])
        return scope, at(*(states[other] for other in scope))

    def _require(self, values: Values, names) -> None:
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(
                f"DirectedGraph: no value for {missing[0]!r}; log_prob wants one for each of"
                f" {', '.join(names)}"
            )
        self._require_known(values)

    def _require_known(self, values: Values) -> None:
        for name in values:
            self.graph[name]


def keys_of(key: Key, count: int) -> list[Key]:
    """A key for each; one alone has the key itself, so that a graph of one node draws what its
    factor draws.
    """
    return [key] if count == 1 else list(jax.random.split(key, count))


@pytree
class AtUniforms:
    """A joint with the one sample that has u for its uniform numbers."""

    joint: Joint
    u: Float[Array, " n"]

    def sample(self, key: Any) -> dict[str, Any]:
        values, start = {}, 0
        events, _ = self.joint.shapes
        for name in self.joint.graph.order:
            u = self.u[start : start + math.prod(events[name].shape)].reshape(events[name].shape)
            values[name] = at_uniform(self.joint.factor(name, values), u).sample(
                key
            )  # the key is not used
            start += u.size
        return values

    def log_prob(self, value: Values) -> Scalar:
        return self.joint.log_prob(value)


@pytree
class Conditioned:
    """p(rest | values, u) = p(rest, values | u) / p(values | u): normalised where the nodes above
    the given ones are finite.

    `log_joint` is the numerator, which is always there, for MCMC and bounds.
    """

    joint: Joint
    values: dict[str, Any]

    def log_joint(self, rest: Values) -> Scalar:
        """log p(rest, values | u)."""
        return self.joint.log_prob({**rest, **self.values})

    @property
    def log_evidence(self) -> Scalar:
        """log p(values | u), exact."""
        return self.joint.log_marginal(self.values)

    def log_prob(self, rest: Values) -> Scalar:
        return self.log_joint(rest) - self.log_evidence

    def marginal(self, name: str) -> tuple[jax.Array, Float[Array, " n"]]:
        """The states of a finite node, and p(state | values, u) of each."""
        (states,), table = self.joint.log_marginals(self.values, name)
        return states, jax.nn.softmax(table)

    def sample(self, key: Key) -> dict[str, Any]:
        """Exact: each hidden node above the given ones from its conditional given all before it,
        then the others ancestrally.
        """
        values, graph = dict(self.values), self.joint.graph
        above = [
            name
            for name in graph.order
            if name in graph.ancestors(tuple(values)) and name not in values
        ]
        *keys, last = jax.random.split(key, len(above) + 1)
        for name, key_of in zip(above, keys, strict=True):
            (states,), table = self.joint.log_marginals(values, name)
            values[name] = states[jax.random.categorical(key_of, table)]
        values = self.joint.complete(values, last)
        return {name: values[name] for name in graph.order if name not in self.values}
