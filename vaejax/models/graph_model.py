"""Any directed graph with some of its nodes observed, as a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from vaejax.base.supports import REAL, Support
from vaejax.base.types import Conditional, Distribution, Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.models.base import require_same_support
from vaejax.models.graph import DirectedGraph
from vaejax.models.joint import Joint


@component
class GraphModel:
    """log p_theta(x, z | u) of a graph with nodes x observed and nodes z latent, and the inference
    model q_phi(z | x, u).

    An example is {name: value} of the observed nodes and of the graph's inputs u; where that is one
    value, the bare value serves. z is {name: value} where the encoder is a `DirectedGraph` of the
    latent nodes, and the bare value of the one latent node where it is another conditional, which
    is shown the whole example. theta is {node: its parameters}, phi the encoder's.

    `GraphModel(DirectedGraph((Node("z", prior), Node("x", likelihood, "z"))), encoder)` is
    `VAE(prior, likelihood, encoder)`.
    """

    graph: DirectedGraph
    encoder: Conditional
    observed: tuple[str, ...] = ("x",)

    def __post_init__(self):
        if isinstance(self.observed, str):
            object.__setattr__(self, "observed", (self.observed,))
        for name in self.observed:
            self.graph[name]
        if isinstance(self.encoder, DirectedGraph):
            of_q = set(self.encoder.order)
            if of_q != set(self.latents):
                raise ValueError(
                    f"GraphModel: the latent nodes are {', '.join(self.latents)}, and the encoder's"
                    f" {', '.join(sorted(of_q))}"
                )
            for name in self.latents:
                require_same_support(self.graph[name].conditional, self.encoder[name].conditional)
        elif len(self.latents) != 1:
            raise ValueError(
                f"GraphModel: the latent nodes are {', '.join(self.latents) or 'none'}; an encoder"
                " of several is a DirectedGraph of them"
            )
        else:
            require_same_support(self.graph[self.latents[0]].conditional, self.encoder)

    @property
    def latents(self) -> tuple[str, ...]:
        return tuple(name for name in self.graph.order if name not in self.observed)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.graph.inputs

    @property
    def supports(self) -> dict[str, Support]:
        """{observed node: the values that it is for}."""
        return {
            name: getattr(self.graph[name].conditional, "support", REAL) for name in self.observed
        }

    def named(self, x: PyTree) -> dict[str, Any]:
        """The observed values and the inputs of an example, as {name: value}; ValueError if one is
        missing.
        """
        names = (*self.inputs, *self.observed)
        if not isinstance(x, Mapping):
            if len(names) > 1:
                raise ValueError(
                    f"GraphModel: an example is a mapping with {', '.join(names)}, not"
                    f" {type(x).__name__}"
                )
            return dict.fromkeys(names, x)
        missing = [name for name in names if name not in x]
        if missing:
            raise ValueError(
                f"GraphModel: the example has no {missing[0]!r}; give {', '.join(names)}"
            )
        return {name: x[name] for name in names}

    def assignment(self, x: PyTree, z: PyTree) -> dict[str, Any]:
        """The values of all nodes, as {name: value}."""
        known = self.named(x)
        latents = z if isinstance(self.encoder, DirectedGraph) else {self.latents[0]: z}
        return {**{name: known[name] for name in self.observed}, **latents}

    def init(self, key: Key, x: PyTree) -> Params:
        """Parameters for examples like x. Each factor is shown the example, and a sample of q for
        the latent values.
        """
        graph_key, encoder_key, z_key = jax.random.split(key, 3)
        phi = self.encoder.init(encoder_key, x)
        z = self.encoder(phi, x).sample(z_key)
        return Params(self.graph.init(graph_key, x, self.assignment(x, z)), phi)

    def joint(self, params: Params, given: PyTree = None) -> Joint:
        """p_theta(x, z | u), `given` the inputs u or an example; None where there are none."""
        return self.graph(params.theta, self._given(params, given))

    def log_joint(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        """log p_theta(x, z | u), nats."""
        return self.joint(params, x).log_prob(self.assignment(x, z))

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        """The approximate posterior q_phi(z | x, u)."""
        return self.encoder(params.phi, x)

    def sample(self, params: Params, key: Key, given: PyTree = None) -> dict[str, Any]:
        """{node: value} ~ p_theta(x, z | u), ancestrally, at the inputs `given`."""
        return self.joint(params, given).sample(key)

    def p_z(self, params: Params, given: PyTree = None) -> Distribution:
        """The prior p_theta(z | u). TypeError where a latent node hangs on an observed one."""
        above = self.graph.ancestors(self.latents) & set(self.observed)
        if above:
            raise TypeError(
                f"GraphModel: latent nodes hang on the observed {', '.join(sorted(above))}, so"
                " there is no prior of them alone"
            )
        nodes = tuple(node for node in self.graph.nodes if node.name in self.latents)
        prior = replace(self.graph, nodes=nodes)(params.theta, self._given(params, given))
        return prior if isinstance(self.encoder, DirectedGraph) else prior.ready[self.latents[0]]

    def p_x_given_z(self, params: Params, z: PyTree, given: PyTree = None) -> Distribution:
        """The likelihood p_theta(x | z, u): of a bare value where one node is observed, else of
        {name: value}.
        """
        latents = z if isinstance(self.encoder, DirectedGraph) else {self.latents[0]: z}
        inputs = {
            name: given[name] if isinstance(given, Mapping) else given for name in self.inputs
        }
        likelihood = self.graph.clamp(*self.latents)(params.theta, {**inputs, **latents})
        return likelihood.ready[self.observed[0]] if len(self.observed) == 1 else likelihood

    def observation(self, x: PyTree) -> PyTree:
        """What `p_x_given_z` is a density of, in an example."""
        known = self.named(x)
        return (
            known[self.observed[0]]
            if len(self.observed) == 1
            else {name: known[name] for name in self.observed}
        )

    def _given(self, params: Params, given: PyTree) -> PyTree:
        """What the graph is shown: its inputs, or, where it has none, what a prior is shown, q."""
        return given if self.inputs else lambda x: self.posterior(params, x)

    def observe(self, *names: str) -> "GraphModel":
        """The same with these latent nodes observed too: q without their factors, and shown their
        values.
        """
        if not isinstance(self.encoder, DirectedGraph):
            raise TypeError(
                "GraphModel.observe takes nodes out of the encoder, so that must be a DirectedGraph"
            )
        return replace(self, encoder=self.encoder.clamp(*names), observed=(*self.observed, *names))
