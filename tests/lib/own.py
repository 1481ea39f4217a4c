"""What a user writes to the base classes' letter."""

import vaejax


@vaejax.component
class Halved(vaejax.Objective):
    """The recipe of `Objective`: half of what another one maximises."""

    inner: vaejax.Objective

    @property
    def model(self):
        return self.inner.model

    @property
    def support(self):
        return self.inner.support

    @property
    def schedules(self):
        return self.inner.schedules

    @property
    def scale(self):
        return self.inner.scale

    def __call__(self, params, xs, key, step):
        bound, objective = self.inner(params, xs, key, step)
        return vaejax.Terms(bound, objective / 2)

    def bound(self, params, x, key):
        return self.inner.bound(params, x, key)
