"""Any directed graph with some of its nodes observed, as a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.checks import require_kind
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.models.base import (
    Conditional,
    Model,
    Supports,
    check_example,
    density_of,
    require_factor,
)
from vaejax.models.graph import DirectedGraph
from vaejax.models.joint import Joint
from vaejax.models.latents import refuse_shown_prior, require_same_support
from vaejax.models.learned import require_params
from vaejax.models.node import Node


@component
class GraphModel(Model):
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
    observed: tuple[str, ...] = ("x",)  # or one name

    def __post_init__(self):
        if isinstance(self.observed, str):
            object.__setattr__(self, "observed", (self.observed,))
        require_kind(self.graph, DirectedGraph, "GraphModel.graph")
        require_factor(self.encoder, Conditional, "GraphModel.encoder")
        for name in self.observed:
            self.graph[name]
        if self.named_latents is not None:
            encoded = set(self.named_latents.order)
            if encoded != set(self.latents):
                raise ValueError(
                    f"GraphModel: the latent nodes are {', '.join(self.latents)}, and the encoder's"
                    f" {', '.join(sorted(encoded))}"
                )
            for name in self.latents:
                prior, encoder = self.graph[name], self.named_latents[name]
                require_same_support(prior.conditional, encoder.conditional)
        elif len(self.latents) != 1:
            raise ValueError(
                f"GraphModel: the latent nodes are {', '.join(self.latents) or 'none'}; an encoder"
                " of several is a DirectedGraph of them"
            )
        else:
            require_same_support(self.graph[self.latents[0]].conditional, self.encoder)

        for name in self.latents:
            refuse_shown_prior(self.graph[name].conditional, f"the node {name!r} of the graph")
        if self.named_latents is None:
            refuse_shown_prior(self.encoder, "GraphModel.encoder")

        unknown = tuple(
            self.named_latents[name] if self.named_latents is not None else Node(name, self.encoder)
            for name in self.latents
            if self.graph[name].conditional.support is None
        )
        if unknown:  # they are wherever the encoder puts them, and shown accordingly
            clamped = (*self.graph.clamped, *unknown)
            object.__setattr__(self, "graph", replace(self.graph, clamped=clamped))
        if self.named_latents is not None:
            self._show_prior(self.named_latents)

    def _show_prior(self, encoder: DirectedGraph) -> None:
        """The encoder has the graph of the factors that its nodes are shown."""
        is_shown = {name for name in self.latents if encoder[name].conditional.is_shown_prior}
        for name in is_shown:
            if self.graph[name].conditional.support is None:
                raise TypeError(
                    f"GraphModel: the node {name!r} of the encoder is shown the prior's factor, and"
                    f" that, a {type(self.graph[name].conditional).__name__}, is a function of q"
                )
        if is_shown:
            others = [name for name in self.graph.order if name not in is_shown]
            encoder = replace(encoder, prior=self.graph.clamp(*others))
            object.__setattr__(self, "encoder", encoder)

    @property
    def named_latents(self) -> DirectedGraph | None:
        """The encoder, where it is a graph of the latent nodes, so that z is {name: value}."""
        return self.encoder if isinstance(self.encoder, DirectedGraph) else None

    @property
    def latents(self) -> tuple[str, ...]:
        return tuple(name for name in self.graph.order if name not in self.observed)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.graph.inputs

    @property
    def support(self) -> Supports:
        """{observed node: the values that it is for}."""
        return {name: self.graph[name].conditional.support for name in self.observed}

    @property
    def latent_support(self) -> Supports:
        """{latent node: the values that it is for}, or those of the one that has no name in z."""
        encoded = self.encoder.support
        if self.named_latents is None:
            prior = self.graph[self.latents[0]].conditional.support
            return encoded if prior is None else prior
        priors = {name: self.graph[name].conditional.support for name in self.latents}
        return {name: encoded[name] if priors[name] is None else priors[name] for name in priors}

    def named(self, x: PyTree) -> dict[str, Any]:
        """The observed values and the inputs of an example, as {name: value}; ValueError if one is
        missing.
        """
        names = (*self.inputs, *self.observed)
        if not isinstance(x, Mapping):
            if len(names) > 1:
                raise ValueError(
                    f"GraphModel: an example is a mapping with {', '.join(names)}, and this is of"
                    f" shape {jax.tree.map(jnp.shape, x)}"
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
        latents = z if self.named_latents is not None else {self.latents[0]: z}
        return {**{name: known[name] for name in self.observed}, **latents}

    def init(self, key: Key, x: PyTree) -> Params:
        """Parameters for examples like x. Each factor is shown the example, and a sample of q for
        the latent values.
        """
        graph_key, encoder_key, z_key = jax.random.split(key, 3)
        phi = self.encoder.init(encoder_key, x)
        if self.named_latents is not None and self.named_latents.prior is not None:
            z = {}  # q depends on theta, so theta's nets are shown samples of the prior
        else:
            z = density_of(self.encoder, phi, x).sample(z_key)
        return Params(self.graph.init(graph_key, x, self.assignment(x, z)), phi)

    def own_params(self, params: Params) -> Params:
        """Without the factors of q that `observe` took out."""
        if self.named_latents is None or not isinstance(params.phi, Mapping):
            return params
        out = self.graph.by_name.keys() - self.named_latents.by_name.keys()
        return params._replace(phi={k: part for k, part in params.phi.items() if k not in out})

    def joint(self, params: Params, given: PyTree = None) -> Joint:
        """p_theta(x, z | u), `given` the inputs u or an example; None where there are none."""
        require_params(self, params, self.graph.by_name)
        return self.graph(params.theta, self._given(params, given))

    def log_densities(self, params: Params, x: PyTree, z: PyTree) -> tuple[Scalar, Scalar | None]:
        """(log p_theta(x, z | u), the sum of the factors of the observed nodes), nats."""
        check_example(self, x)
        log_p = self.joint(params, x).log_probs(self.assignment(x, z))
        nothing = jnp.zeros(())
        return sum(log_p.values(), nothing), sum((log_p[name] for name in self.observed), nothing)

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        """The approximate posterior q_phi(z | x, u); of nodes that are shown the prior's factors, q
        depends on theta too.
        """
        encoder, known = self.named_latents, self.named(x)
        if encoder is None or encoder.prior is None:
            return density_of(self.encoder, params.phi, x)
        require_params(self, params, self.graph.by_name)
        return encoder(params.phi, x, encoder.prior.not_ready(params.theta, known))

    def example(self, observation: PyTree, x: PyTree = None) -> PyTree:
        """The example of this observation that has the inputs of x.

        {node: value} of all nodes is `model.joint(params, x).sample(key)`.
        """
        if not self.inputs:
            return observation
        name, *others = self.observed
        return {**self._inputs(x), **(observation if others else {name: observation})}

    def p_z(self, params: Params, x: PyTree = None) -> Distribution:
        """The prior p_theta(z | u); NotKnownError where a latent depends on an observed node."""
        above = self.graph.ancestors(self.latents) & set(self.observed)
        if above:
            raise NotKnownError(
                f"GraphModel: latent nodes depend on the observed {', '.join(sorted(above))},"
                " so they have no prior by themselves"
            )
        require_params(self, params, self.graph.by_name)
        prior = self.graph.without(*self.observed)(params.theta, self._given(params, x))
        return prior if self.named_latents is not None else prior.ready[self.latents[0]]

    def p_x_given_z(self, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
        """The likelihood p_theta(x | z, u): of a bare value where one node is observed, else of
        {name: value}.
        """
        latents = z if self.named_latents is not None else {self.latents[0]: z}
        require_params(self, params, self.graph.by_name)
        inputs = self._inputs(x)
        likelihood = self.graph.clamp(*self.latents)(params.theta, {**inputs, **latents})
        return likelihood.ready[self.observed[0]] if len(self.observed) == 1 else likelihood

    def observation(self, x: PyTree) -> PyTree:
        """What `p_x_given_z` is a density of, in an example."""
        known = self.named(x)
        if len(self.observed) == 1:
            return known[self.observed[0]]
        return {name: known[name] for name in self.observed}

    def _inputs(self, x: PyTree) -> dict[str, Any]:
        """{input: value}, of an example, of a mapping of them, or of the bare value of one."""
        return {name: x[name] if isinstance(x, Mapping) else x for name in self.inputs}

    def _given(self, params: Params, given: PyTree) -> PyTree:
        """What the graph is shown: its inputs, or, where it has none, what a prior is shown, q."""
        return given if self.inputs else lambda x: self.posterior(params, x)

    def observe(self, *names: str) -> "GraphModel":
        """The same with these latent nodes observed too: q without their factors, and shown their
        values.
        """
        encoder = self.named_latents
        if encoder is None:
            raise TypeError(
                "GraphModel.observe takes nodes out of the encoder, so that must be a DirectedGraph"
            )
        return replace(self, encoder=encoder.clamp(*names), observed=(*self.observed, *names))
