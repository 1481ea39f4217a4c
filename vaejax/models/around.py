"""A model that is another one, in all but what it says itself."""

from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.distributions.base import Distribution
from vaejax.models.base import Model, Supports


class AroundModel(Model):
    """Everything is asked of `model`; what a subclass defines is its own."""

    model: Model

    @property
    def support(self) -> Supports:
        return self.model.support

    @property
    def latent_support(self) -> Supports:
        return self.model.latent_support

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.model.inputs

    def init(self, key: Key, x: PyTree) -> Params:
        return self.model.init(key, x)

    def own_params(self, params: Params) -> Params:
        return self.model.own_params(params)

    def p_z(self, params: Params, x: PyTree = None) -> Distribution:
        return self.model.p_z(params, x)

    def p_x_given_z(self, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
        return self.model.p_x_given_z(params, z, x)

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        return self.model.posterior(params, x)

    def observation(self, x: PyTree) -> PyTree:
        return self.model.observation(x)

    def example(self, observation: PyTree, x: PyTree = None) -> PyTree:
        return self.model.example(observation, x)

    def log_likelihood(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        return self.model.log_likelihood(params, x, z)

    def log_joint(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        return self.model.log_joint(params, x, z)

    def log_densities(self, params: Params, x: PyTree, z: PyTree) -> tuple[Scalar, Scalar | None]:
        return self.model.log_densities(params, x, z)

    def simulate(
        self, params: Params, z_key: Key, x_key: Key, x: PyTree = None
    ) -> tuple[PyTree, PyTree]:
        return self.model.simulate(params, z_key, x_key, x)
