"""The joint density of a directed graph, and what is exact where its nodes are finite."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import pytree, static
from vaejax.distributions.base import Distribution
from vaejax.models.conditioned import Conditioned
from vaejax.models.elimination import log_table, node_states, product_of_states
from vaejax.models.node import Structure, Values


@pytree
class Joint(Distribution):
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)), nats, over v = {name: value}.

    `ready` are the factors whose parents are inputs, each made once however many samples are drawn;
    the rest need the values of others. Among `inputs` are the deterministic nodes that are
    functions of inputs alone. `prior` has the factors that nodes of an encoder are shown.
    """

    ready: dict[str, Distribution]
    params: dict[str, PyTree]
    inputs: dict[str, Any]
    prior: "Joint | None"
    graph: Structure = static()

    def require_event(self, value: Values) -> None:
        """That each node has a value; its factor looks at that itself."""
        self._require(value, self.graph.order)

    def factor(self, name: str, values: Values) -> Distribution:
        """p(v_name | Pa(v_name)), the parents' values among `values`."""
        return self._factor(name, self._with_functions({**self.inputs, **values}, name))

    def factors(self, value: Values) -> dict[str, Distribution]:
        """{name: p(v_name | Pa(v_name))} at a value for each node; ValueError if one is missing."""
        self._require(value, self.graph.order)
        known = self._with_functions({**self.inputs, **value}, *self.graph.order)
        return {name: self._factor(name, known) for name in self.graph.order}

    def _factor(self, name: str, known: Values) -> Distribution:
        if name in self.ready:
            return self.ready[name]
        self.graph[name]
        prior = self.graph.shown_prior(name, known, self.prior)
        return self.graph.factor_at(name, self.params[name], known, prior)

    def _with_functions(self, known: Values, *names: str) -> dict[str, Any]:
        """These values, and those of the deterministic nodes that the factors of some nodes need,
        each computed once.
        """
        known, late = dict(known), [name for name in names if name not in self.ready]
        for name in self.graph.functions_above(*late):
            if name not in known:
                known[name] = self.graph.function_at(name, self.params[name], known)
        return known

    def log_probs(self, value: Values) -> dict[str, Scalar]:
        """{name: log p(v_name | Pa(v_name))}; their sum is `log_prob`."""
        return {name: factor.log_prob(value[name]) for name, factor in self.factors(value).items()}

    def log_prob(self, value: Values) -> Scalar:
        """Of a value for each node; ValueError if one is missing."""
        return sum(self.log_probs(value).values(), start=jnp.zeros(()))

    def coordinate_log_probs(self, value: Values) -> Float[Array, " d"]:
        """Of independent factors that are products themselves."""
        if self.params:
            return super().coordinate_log_probs(value)
        parts = [self.ready[name].coordinate_log_probs(value[name]) for name in sorted(self.ready)]
        return jnp.concatenate(parts)

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
        keys, log_probs = self.keys(key), {}

        def draw(name: str, factor: Distribution) -> PyTree:
            if name in values:
                return values[name]
            value, log_probs[name] = factor.sample_and_log_prob(keys[name])
            return value

        return self.walk(draw), log_probs

    def sample_and_factors(
        self, key: Key
    ) -> tuple[dict[str, Any], dict[str, Distribution], dict[str, Distribution]]:
        """What `sample` draws, the factor of each node there, and the prior's factors that nodes
        were shown: each made once.
        """
        keys, factors, priors = self.keys(key), {}, {}

        def draw(name: str, factor: Distribution) -> PyTree:
            factors[name] = factor
            return factor.sample(keys[name])

        return self.walk(draw, priors), factors, priors

    def walk(
        self,
        draw: Callable[[str, Distribution], PyTree],
        priors: dict[str, Distribution] | None = None,
    ) -> dict[str, Any]:
        """{node: draw(node, its factor at the values before it)}, parents first. The prior's
        factors that nodes are shown are put into `priors`.
        """
        values, known = {}, dict(self.inputs)
        for name in self.graph.order:
            known = self._with_functions(known, name)
            factor = self.ready.get(name)
            if factor is None:
                prior = self.graph.shown_prior(name, known, self.prior)
                factor = self.graph.factor_at(name, self.params[name], known, prior)
                if prior is not None and priors is not None:
                    priors[name] = prior
            values[name] = known[name] = draw(name, factor)
        return values

    def keys(self, key: Key) -> dict[str, Key]:
        """A key for each node."""
        return keys_of(key, self.graph.order)

    def from_uniform(self, u: Float[Array, " n"]) -> dict[str, Any]:
        no_key: Any = None  # which is not used
        return self.at_uniform(u).sample(no_key)

    def at_uniform(self, u: Float[Array, " n"]) -> "AtUniforms":
        """The density whose one sample has u for its uniform numbers, node by node."""
        return AtUniforms(self, u)

    @property
    def reparameterised(self) -> bool:
        """Whether the samples of all factors move smoothly with their parameters."""
        return all(factor_moves for _, factor_moves in self.outline().values())

    def outline(self) -> dict[str, tuple[str, bool]]:
        """{node: (what its factor is called, whether that is reparameterised)}: nothing is
        computed.
        """
        outline = {}

        def at_sample(key):
            values = self.sample(key)
            for name, factor in self.factors(values).items():
                outline[name] = factor.name, factor.reparameterised
            return values

        jax.eval_shape(at_sample, jax.random.key(0))
        return outline

    def mean(self) -> dict[str, Any]:
        """Of independent factors. Others are to be averaged."""
        if self.params:
            return super().mean()
        return {name: factor.mean() for name, factor in self.ready.items()}

    # What is exact where the other nodes are finite.

    def states(self) -> dict[str, Any]:
        """{name: [n, ...]}: every combination of the states of all nodes."""
        return self.combinations(self.graph.order)

    def combinations(self, names: tuple[str, ...]) -> dict[str, Any]:
        """{name: [n, ...]} of every combination of the states of some nodes; of none it is
        empty.
        """
        values = self.sample(jax.random.key(0))  # which states there are depends on shapes alone
        return product_of_states({name: node_states(self.factor, name, values) for name in names})

    def log_marginal(self, values: Values) -> Scalar:
        """log p(values | u) for values of some of the nodes, exact: all others are summed out.

        Those below the given ones sum to one; those above must have finitely many values
        (Bernoulli, one-hot, an enumerable NumPyro factor or a graph of such), or it is a
        ValueError. By variable elimination: the cost is that of the largest table, not of all
        states.
        """
        return self.log_marginals(values)[1]

    def log_marginals(
        self, values: Values, *names: str
    ) -> tuple[list[PyTree], Float[Array, "..."]]:
        """The states of these nodes, and log p(values, state, ..., state | u) for each combination,
        one axis for each name.
        """
        self._require_known(values)
        for name in names:
            self.graph[name]
            if name in values or names.count(name) > 1:
                reason = "is given" if name in values else "is named twice"
                raise ValueError(
                    f"DirectedGraph: the node {name!r} {reason}; ask for the states of each other"
                    " node, once"
                )
        return _log_table(self, values, names)

    def condition(self, values: Values) -> Conditioned:
        """p(the other nodes | values, u)."""
        self._require_known(values)
        return Conditioned(self, dict(values))

    def _require(self, values: Values, names) -> None:
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(
                f"DirectedGraph: no value for {missing[0]!r}; log_prob needs one for each of"
                f" {', '.join(names)}"
            )
        self._require_known(values)

    def _require_known(self, values: Values) -> None:
        for name in values:
            self.graph[name]


def keys_of(key: Key, names: Sequence[str]) -> dict[str, Key]:
    """A key for each; one alone has the key itself, so that a graph of one node draws what its
    factor draws.
    """
    keys = [key] if len(names) == 1 else list(jax.random.split(key, len(names)))
    return dict(zip(names, keys, strict=True))


@pytree
class AtUniforms(Distribution):
    """A joint with the one sample that has u for its uniform numbers."""

    joint: Joint
    u: Float[Array, " n"]

    @property
    def event(self) -> dict[str, Any]:
        return self.joint.event

    @property
    def reparameterised(self) -> bool:
        return self.joint.reparameterised

    def require_event(self, value: Values) -> None:
        self.joint.require_event(value)

    def sample(self, key: Any) -> dict[str, Any]:
        start, events = 0, self.event

        def draw(name: str, factor: Distribution) -> PyTree:
            nonlocal start
            event = events[name]
            size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(event))
            u = self.u[start : start + size]
            start += size
            # A graph that is a node takes them in a row.
            transported = factor.at_uniform(
                u if isinstance(event, Mapping) else u.reshape(event.shape)
            )
            return transported.sample(key)

        return self.joint.walk(draw)

    def log_prob(self, value: Values) -> Scalar:
        return self.joint.log_prob(value)


@partial(jax.jit, static_argnames="names")  # one by one, its sums are a program for each shape
def _log_table(
    joint: Joint, values: Values, names: tuple[str, ...]
) -> tuple[list[PyTree], Float[Array, "..."]]:
    """`log_table` of a joint density."""
    return log_table(joint.graph, joint.factor, values, names)
