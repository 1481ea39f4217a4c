"""The gradient estimator of antithetic pairs for binary latents.

In the formulas f = log w, b are latents, l their logits, p = sigmoid(l), and a product of vectors
is by coordinates. In theta it takes grad log p_theta(x, b) at its own samples.
"""

import jax
import jax.numpy as jnp

from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import elbo_bound, stopped
from vaejax.estimators.base import (
    ELBOInParts,
    mean_reconstruction,
    require_samples,
    with_gradient_of,
)
from vaejax.estimators.binary_layers import (
    Latents,
    Layers,
    LayerSample,
    above_zero,
    layers_of,
    logit,
)
from vaejax.models.base import Model, posterior_of


@component
class DisARM(ELBOInParts):
    """Value: mean_k log w_k, the K samples in antithetic pairs. Gradient in l: that of each pair
    (b, b'), averaged.

    (f(b) - f(b'))/2 (-1)^b' 1[b != b'] sigmoid(|l|), with b = 1[u > 1 - p], b' = 1[1 - u > 1 - p].
    In a graph of T layers b has a partner for each, which differs from that layer on: K/2 times
    T + 1 evaluations of f. Unbiased for the gradient of the ELBO. For one latent never of more
    variance than `ScoreFunction` of two samples; for several it can be. Needs Bernoulli latents.
    References: Dong, Mnih & Tucker 2020; Yin, Ho, Yan, Qian & Zhou 2020.
    """

    num_samples: int = 2

    def __post_init__(self):
        require_samples(self, 2, "")
        if self.num_samples % 2:
            raise ValueError(
                f"DisARM.num_samples = {self.num_samples}, but its samples come in pairs; give an"
                " even number"
            )

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_of(model, params, x)
        layers, fixed = layers_of(q, self), layers_of(stopped(q), self)

        def of_pair(key):
            """f and log p(x | b) of the samples, and a term with the gradient."""
            draw = fixed.draw(key)
            zs = with_partners(fixed, draw)
            log_joint, log_p_x = jax.vmap(lambda z: model.log_densities(params, x, z))(zs)
            f = stopped(log_joint) - jax.vmap(stopped(q).log_prob)(zs)
            gradients = {
                name: disarm_gradient(f[0] - f[t], draw.logits[name], draw.u[name])
                for t, name in enumerate(fixed.names, start=1)
            }
            return f, log_p_x, jnp.mean(log_joint) + layers.surrogate(draw.b, gradients)

        f, log_p_x, surrogate = map_samples(of_pair, jax.random.split(key, self.num_samples // 2))
        bound = with_gradient_of(jnp.mean(f), jnp.mean(surrogate))
        return bound, mean_reconstruction(elbo_bound, log_p_x)


def with_partners(layers: Layers, draw: LayerSample) -> PyTree:
    """b, and for each layer the sample that has those before it from b, itself from 1 - u, and
    those after it from the same u as b, [T + 1, ...].
    """
    samples = [layers.latents(draw.b)]
    for name in layers.names:
        opposite = above_zero(draw.logits[name] - logit(draw.u[name]))
        changed = {**layers.before(name, draw.b), name: opposite}
        samples.append(layers.completed(changed, draw.u, above_zero))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *samples)


def disarm_gradient(difference: Scalar, logits: Latents, u: Latents) -> Latents:
    """The estimate of dE f / dl from f(b) - f(b'), b and b' those of u and of 1 - u."""
    b, opposite = above_zero(logits + logit(u)), above_zero(logits - logit(u))
    # (f(b) - f(b'))/2 (-1)^b' 1[b != b'] sigmoid(|l|)
    sign, differ = 1 - 2 * opposite, b != opposite
    return 0.5 * difference * sign * differ * jax.nn.sigmoid(jnp.abs(logits))
