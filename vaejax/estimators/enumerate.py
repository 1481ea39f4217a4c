"""The ELBO of finitely many latents, exactly."""

import jax

from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.distributions.base import NotKnownError
from vaejax.estimators.base import ELBOInParts, mean_under
from vaejax.models.base import Model, posterior_of


@component
class Enumerate(ELBOInParts):
    """Value: sum_z q(z|x) [log p(x, z) - log q(z|x)], the ELBO itself. Gradient: its own, exact.

    Of a q that knows its `states`: a Bernoulli or an OneHotCategorical with at most 65,536 of them,
    an enumerable NumPyro distribution, or a graph of such. The key is not used.
    """

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_of(model, params, x)
        try:
            zs = q.states()
        except NotKnownError:
            raise TypeError(
                f"Enumerate is for a q of finitely many values, and this one is {q.name}; use"
                " vaejax.ScoreFunction, which takes any, or vaejax.Pathwise where samples move"
                " smoothly"
            ) from None
        log_q = jax.vmap(q.log_prob)(zs)
        log_joint, log_p_x = jax.vmap(lambda z: model.log_densities(params, x, z))(zs)
        reconstruction = None if log_p_x is None else mean_under(log_q, log_p_x)
        return mean_under(log_q, log_joint - log_q), reconstruction
