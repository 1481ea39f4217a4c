"""Directed graphs: a joint density is a product of conditionals, p(v | u) = prod_j p(v_j |
Pa(v_j)), nats, over an acyclic graph.

Each factor is any conditional of the library, so a net gives its parameters. `DirectedGraph` is a
conditional itself: shown its inputs u it gives a `Joint`, a distribution over {name: value}. So a
graph can be a model, a prior, an encoder, or a factor of another graph.

Nodes with finitely many values are summed out exactly, by variable elimination: on a hidden Markov
model that is the forward pass.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.models.base import Conditional, Supports, density_of
from vaejax.models.joint import Joint
from vaejax.models.latents import no_prior_to_show
from vaejax.models.learned import OtherParamsError
from vaejax.models.node import BesidePrior, Node, Structure, Values
from vaejax.networks.base import apply_net, init_net


@component
class DirectedGraph(Structure, Conditional):
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)): nodes v, and `inputs` u that nothing here
    explains.

    `graph(params, given)` is the `Joint` at given = {input: value}, or the bare value of the one
    input; without inputs, `given` is what the roots are shown. params is {node: its parameters}, of
    the `deterministic` nodes too. The order of the nodes is free; of their ancestral order the
    first one serves that keeps to it. ValueError for a cycle, an unknown parent, a name that is
    twice there.
    """

    @property
    def support(self) -> Supports:
        """{node: the values that it is for}."""
        return {node.name: node.conditional.support for node in self.nodes}

    def clamp(self, *names: str) -> "DirectedGraph":
        """The product of the other factors, with these nodes for inputs: prod_(j not clamped) p(v_j
        | Pa(v_j)).
        """
        clamped = tuple(self[name] for name in names)
        return self.without(*names, inputs=names, clamped=clamped)

    def without(
        self, *names: str, inputs: tuple[str, ...] = (), clamped: tuple[Node, ...] = ()
    ) -> "DirectedGraph":
        """The factors of the other nodes, and the deterministic nodes that they need."""
        others = [name for name in self.by_name if name not in names]
        needed = self.functions_above(*others)
        return replace(
            self,
            nodes=tuple(self.by_name[name] for name in others),
            inputs=(*self.inputs, *inputs),
            deterministic=tuple(node for node in self.deterministic if node.name in needed),
            clamped=(*self.clamped, *clamped),
        )

    def init(
        self, key: Key, given: PyTree = None, values: Values | None = None
    ) -> dict[str, PyTree]:
        """{node: its parameters}. Each conditional is shown its parents' values, from `values`, or
        drawn ancestrally where they lack.
        """
        known, params = {**self._inputs(given), **(values or {})}, {}
        parents = {parent for name in self.order_of_all for parent in self.above(name)}
        keys = jax.random.split(key, len(self.order_of_all))
        for name, node_key in zip(self.order_of_all, keys, strict=True):
            params_key, sample_key = jax.random.split(node_key)
            shown = self.shown_to(name, known, given)
            if name in self.functions:
                net = self.functions[name].net
                params[name] = init_net(net, params_key, shown)
                known[name] = apply_net(net, params[name], shown)
                continue
            conditional = self[name].conditional
            if conditional.is_shown_prior:
                prior_key, params_key = jax.random.split(params_key)
                shown = BesidePrior(shown, self._prior_at_start(prior_key, name, known))
            params[name] = conditional.init(params_key, shown)
            if name in parents and name not in known:
                known[name] = density_of(conditional, params[name], shown).sample(sample_key)
        return params

    def _prior_at_start(self, key: Key, name: str, known: Values) -> Distribution:
        """The prior's factor that a node is shown, at parameters that it could start from."""
        if self.prior is None:
            raise no_prior_to_show(self[name].conditional, f"the node {name!r}")
        others = [other for other in self.prior.order if other != name]
        alone = self.prior.clamp(*others)
        inputs = {other: known.get(other) for other in alone.inputs}
        return alone(alone.init(key, inputs), inputs).ready[name]

    def __call__(
        self, params: Mapping[str, PyTree], given: PyTree = None, prior: Joint | None = None
    ) -> "Joint":
        inputs = self._inputs(given)
        known, ready = dict(inputs), {}
        for name in self.order_of_all:
            if set(self.above(name)) <= set(known):
                if name in self.functions:
                    known[name] = self.function_at(name, params[name], known)
                else:
                    shown = self.shown_prior(name, known, prior)
                    ready[name] = self.factor_at(name, params[name], known, shown, given)
        late = [name for name in self.order if name not in ready]
        late += [name for name in self.functions_above(*late) if name not in known]
        needed = {parent for name in late for parent in self.above(name)}
        return Joint(
            ready,
            {name: params[name] for name in late},
            {name: known[name] for name in known if name in needed},
            prior if late else None,
            self,
        )

    def check_params(self, params: Mapping[str, PyTree], given: Any) -> None:
        """That each node has parameters, which its factor looks at: others may have some too."""
        known = list(params) if isinstance(params, Mapping) else []
        missing = [name for name in self.order_of_all if name not in known]
        if missing:
            raise OtherParamsError(
                f"these are the parameters of another model: there are none of the node"
                f" {missing[0]!r}, and DirectedGraph.init makes {{node: its parameters}} of"
                f" {', '.join(self.order_of_all)}"
            )

    def not_ready(self, params: Mapping[str, PyTree], inputs: Values) -> "Joint":
        """The `Joint` of which no factor is made before it is asked for."""
        names = (*self.by_name, *self.functions)
        needed = {parent for name in self.order for parent in self.drawn_parents(name)}
        known = {name: inputs[name] for name in inputs if name in needed}
        return Joint({}, {name: params[name] for name in names}, known, None, self)

    def _inputs(self, given: PyTree) -> dict[str, Any]:
        """{input: value}, of a mapping that has them all, or of the bare value of one."""
        if not self.inputs:
            return {}
        if isinstance(given, Mapping):
            missing = [name for name in self.inputs if name not in given]
            if missing:
                raise ValueError(
                    f"DirectedGraph: no value for the input {missing[0]!r}; give one for each of"
                    f" {', '.join(self.inputs)}"
                )
            return {name: given[name] for name in self.inputs}
        if len(self.inputs) > 1:
            raise ValueError(
                f"DirectedGraph has the inputs {', '.join(self.inputs)}; give a mapping of them,"
                f" and not one value of shape {jax.tree.map(jnp.shape, given)}"
            )
        return dict.fromkeys(self.inputs, given)
