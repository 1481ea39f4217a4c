"""Directed graphs: a joint density is a product of conditionals, p(v | u) = prod_j p(v_j | Pa(v_j)), nats, over an acyclic graph.

Each factor is any conditional of the library, so a net gives its parameters. `DirectedGraph` is a conditional itself: shown its inputs u it
gives a `Joint`, a distribution over {name: value}. So a graph can be a model, a prior, an encoder, or a factor of another graph.

Nodes with finitely many values are summed out exactly, by variable elimination: on a hidden Markov model that is the forward pass.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from vaejax._values import pytree, static, value
from vaejax.data import unknown
from vaejax.distributions import is_reparameterised, sample_and_log_prob
from vaejax.noise import at_uniform
from vaejax.types import Distribution, Key, PyTree, Scalar

Values = Mapping[str, Any]
MAX_TABLE = 2**22  # entries of one table of a variable elimination


@value
class Node:
    """v_name ~ conditional( . | parents): shown the value of its one parent, or a tuple of several, in this order.

    A node without parents is shown what the graph is shown: a prior serves, and so does any conditional on `vaejax.Free`.
    """

    name: str
    conditional: Any  # a Conditional; of a root, a Prior too
    parents: tuple[str, ...] | str = ()

    def __post_init__(self):
        if isinstance(self.parents, str):
            object.__setattr__(self, "parents", (self.parents,))


@value
class DirectedGraph:
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)): nodes v, and `inputs` u that nothing here explains.

    `graph(params, given)` is the `Joint` at given = {input: value}, or the bare value of the one input; without inputs, `given` is what the
    roots are shown. params is {node: its parameters}. The order of the nodes is free; of their ancestral order the first one serves that
    keeps to it. ValueError for a cycle, an unknown parent, a name that is twice there.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...] = ()

    def __post_init__(self):
        names = [*self.inputs, *(node.name for node in self.nodes)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"DirectedGraph: {twice[0]!r} stands for more than one node or input; give each its own name")
        for node in self.nodes:
            for parent in node.parents:
                if parent not in names:
                    raise ValueError(f"DirectedGraph: node {node.name!r}: {unknown('parent', parent, names)}")
        try:
            TopologicalSorter({node.name: node.parents for node in self.nodes}).prepare()
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise ValueError(f"DirectedGraph: {path} is a cycle; a graph of conditionals has none, so take one arrow out") from None

    def __getitem__(self, name: str) -> Node:
        if name not in self.by_name:
            raise ValueError(unknown("node", name, list(self.by_name)))
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes, parents before children."""
        sorter = TopologicalSorter({node.name: [of for of in node.parents if of not in self.inputs] for node in self.nodes})
        return tuple(sorter.static_order())

    def ancestors(self, names: tuple[str, ...]) -> set[str]:
        """These nodes, their parents, and so on."""
        found: set[str] = set()
        for name in reversed(self.order):
            if name in names or any(name in self[child].parents for child in found):
                found.add(name)
        return found

    def clamp(self, *names: str) -> "DirectedGraph":
        """The product of the other factors, with these nodes for inputs: prod_(j not clamped) p(v_j | Pa(v_j))."""
        for name in names:
            self[name]
        return replace(self, nodes=tuple(node for node in self.nodes if node.name not in names), inputs=(*self.inputs, *names))

    def init(self, key: Key, given: PyTree = None, values: Values | None = None) -> dict[str, PyTree]:
        """{node: its parameters}. Each conditional is shown its parents' values, from `values`, or drawn ancestrally where they lack."""
        known, params = {**self._inputs(given), **(values or {})}, {}
        for name, key_of in zip(self.order, jax.random.split(key, len(self.nodes)), strict=True):
            node, (params_key, sample_key) = self[name], jax.random.split(key_of)
            shown = _shown(node, known, given)
            params[name] = node.conditional.init(params_key, shown)
            if name not in known and any(name in other.parents for other in self.nodes):
                known[name] = node.conditional(params[name], shown).sample(sample_key)
        return params

    def __call__(self, params: Mapping[str, PyTree], given: PyTree = None) -> "Joint":
        inputs = self._inputs(given)
        ready = {node.name for node in self.nodes if set(node.parents) <= set(self.inputs)}
        at_once = {name: self[name].conditional(params[name], _shown(self[name], inputs, given)) for name in self.order if name in ready}
        late = {name: params[name] for name in self.order if name not in ready}
        needed = {parent for name in late for parent in self[name].parents}
        return Joint(at_once, late, {name: inputs[name] for name in self.inputs if name in needed}, self)

    def _inputs(self, given: PyTree) -> dict[str, Any]:
        """{input: value}, of a mapping that has them all, or of the bare value of one."""
        if not self.inputs:
            return {}
        if isinstance(given, Mapping):
            missing = [name for name in self.inputs if name not in given]
            if missing:
                raise ValueError(f"DirectedGraph: no value for the input {missing[0]!r}; give one for each of {', '.join(self.inputs)}")
            return {name: given[name] for name in self.inputs}
        if len(self.inputs) > 1:
            raise ValueError(f"DirectedGraph has the inputs {', '.join(self.inputs)}; give a mapping of them, not {type(given).__name__}")
        return dict.fromkeys(self.inputs, given)

    def dot(self, observed: tuple[str, ...] = ()) -> str:
        """The graph in Graphviz's language: observed nodes filled, inputs without a border."""
        lines = [f'  "{name}" [shape=plaintext];' for name in self.inputs]
        lines += [f'  "{name}" [shape=circle{", style=filled, fillcolor=lightgrey" * (name in observed)}];' for name in self.order]
        lines += [f'  "{parent}" -> "{name}";' for name in self.order for parent in self[name].parents]
        return "\n".join(["digraph {", *lines, "}"])


def _shown(node: Node, values: Values, given: PyTree) -> PyTree:
    """What a conditional is shown: the value of its one parent, a tuple of several, or, a root, what the graph is shown."""
    shown = tuple(values[parent] for parent in node.parents)
    if len(shown) > 1:
        return shown
    return shown[0] if shown else given


@pytree
class Joint:
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)), nats, over v = {name: value}.

    `ready` are the factors whose parents are inputs, each made once however many samples are drawn; the rest need the values of others.
    """

    ready: dict[str, Distribution]
    params: dict[str, PyTree]
    inputs: dict[str, Any]
    graph: DirectedGraph = static()

    def factor(self, name: str, values: Values) -> Distribution:
        """p(v_name | Pa(v_name)), the parents' values among `values`."""
        if name in self.ready:
            return self.ready[name]
        node = self.graph[name]
        return node.conditional(self.params[name], _shown(node, {**self.inputs, **values}, None))

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
        """These values, and ancestral samples of the other nodes given those before them (nothing is inferred backwards)."""
        return self._walk(values, key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[dict[str, Any], Scalar]:
        """(v, log p(v | u)); a factor that only knows the density of its own samples serves."""
        values, log_probs = self._walk({}, key)
        return values, sum(log_probs.values(), start=jnp.zeros(()))

    def _walk(self, values: Values, key: Key) -> tuple[dict[str, Any], dict[str, Scalar]]:
        values, log_probs = dict(values), {}
        for name, key_of in zip(self.graph.order, keys_of(key, len(self.graph.nodes)), strict=True):
            if name not in values:
                values[name], log_probs[name] = sample_and_log_prob(self.factor(name, values), key_of)
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

        Those below the given ones sum to one; those above must have finitely many values (Bernoulli, one-hot or an enumerable NumPyro
        factor), or it is a ValueError. By variable elimination: the cost is that of the largest table, not of all states.
        """
        return self._log_table(values, ())[1]

    def log_marginals(self, values: Values, *names: str) -> tuple[list[jax.Array], Float[Array, "..."]]:
        """The states of these nodes, and log p(values, state, ..., state | u) for each combination, one axis for each name."""
        return self._log_table(values, names)

    def condition(self, values: Values) -> "Conditioned":
        """p(the other nodes | values, u)."""
        self._require_known(values)
        return Conditioned(self, dict(values))

    def _log_table(self, values: Values, names: tuple[str, ...]) -> tuple[list[jax.Array], jax.Array]:
        self._require_known(values)
        relevant = [name for name in self.graph.order if name in self.graph.ancestors((*values, *names))]
        hidden = [name for name in relevant if name not in values]
        states: dict[str, jax.Array] = {}
        for name in hidden:  # parents first: which values there are may hang on their shapes, never on their values
            states[name] = self.states(name, {**values, **{other: of[0] for other, of in states.items()}})
        factors = [self._table(name, values, states) for name in relevant]
        scope, table = eliminate(factors, [name for name in hidden if name not in names])
        order = [scope.index(name) for name in names]
        return [states[name] for name in names], jnp.transpose(table, order)

    def states(self, name: str, values: Values) -> jax.Array:
        """All values of a finite node, its parents' among `values`; ValueError for a node that is not finite."""
        factor = self.factor(name, values)
        states = getattr(factor, "states", None)
        if states is None:
            raise ValueError(
                f"{name!r} is no finite node ({type(factor).__name__}), so it cannot be summed out; give its value, or infer it: a bound "
                "(vaejax.GraphModel) or MCMC on log_prob"
            )
        return states

    def _table(self, name: str, values: Values, states: Mapping[str, jax.Array]) -> tuple[tuple[str, ...], jax.Array]:
        """(scope, log p(v_name | parents) at every combination of the hidden nodes that take part)."""
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
            raise ValueError(f"DirectedGraph: no value for {missing[0]!r}; log_prob wants one for each of {', '.join(names)}")
        self._require_known(values)

    def _require_known(self, values: Values) -> None:
        for name in values:
            self.graph[name]


def keys_of(key: Key, count: int) -> list[Key]:
    """A key for each; one alone has the key itself, so that a graph of one node draws what its factor draws."""
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
            values[name] = at_uniform(self.joint.factor(name, values), u).sample(key)  # the key is not used
            start += u.size
        return values

    def log_prob(self, value: Values) -> Scalar:
        return self.joint.log_prob(value)


@pytree
class Conditioned:
    """p(rest | values, u) = p(rest, values | u) / p(values | u): normalised where the nodes above the given ones are finite.

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
        """Exact: each hidden node above the given ones from its conditional given all before it, then the others ancestrally."""
        values, graph = dict(self.values), self.joint.graph
        above = [name for name in graph.order if name in graph.ancestors(tuple(values)) and name not in values]
        *keys, last = jax.random.split(key, len(above) + 1)
        for name, key_of in zip(above, keys, strict=True):
            (states,), table = self.joint.log_marginals(values, name)
            values[name] = states[jax.random.categorical(key_of, table)]
        values = self.joint.complete(values, last)
        return {name: values[name] for name in graph.order if name not in self.values}


def eliminate(factors: list[tuple[tuple[str, ...], jax.Array]], names: list[str]) -> tuple[tuple[str, ...], jax.Array]:
    """(scope, log sum over `names` of exp(sum of the factors)), a factor being (scope, table with one axis for each name of it).

    Greedily: next comes the name whose elimination makes the smallest table. Reference: Koller & Friedman 2009, chapter 9.
    """
    factors, names = list(factors), list(names)
    sizes = {name: size for scope, table in factors for name, size in zip(scope, table.shape, strict=True)}

    def merged_scope(some) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for scope, _ in some for name in scope))

    def cost(name):
        return math.prod(sizes[other] for other in merged_scope([factor for factor in factors if name in factor[0]]))

    while names:
        name = min(names, key=cost)
        names.remove(name)
        touched = [factor for factor in factors if name in factor[0]]
        factors = [factor for factor in factors if name not in factor[0]]
        scope = merged_scope(touched)
        table = logsumexp(_product(touched, scope, sizes), axis=scope.index(name))
        factors.append((tuple(other for other in scope if other != name), table))
    scope = merged_scope(factors)
    return scope, _product(factors, scope, sizes)


def _product(factors, scope: tuple[str, ...], sizes: Mapping[str, int]) -> jax.Array:
    """The sum of log-factors over the union of their scopes."""
    require_table(scope, [sizes[name] for name in scope])
    total = jnp.zeros([sizes[name] for name in scope])
    for of, table in factors:
        aligned = jnp.transpose(table, sorted(range(len(of)), key=lambda i, of=of: scope.index(of[i])))
        total += aligned.reshape([sizes[name] if name in of else 1 for name in scope])
    return total


def require_table(scope: tuple[str, ...], sizes: list[int]) -> None:
    """Raises ValueError for a table that is too large to hold."""
    if math.prod(sizes) > MAX_TABLE:
        raise ValueError(
            f"{', '.join(scope)} have {math.prod(sizes)} states together, more than {MAX_TABLE}; give values for some of them, or sample"
        )
