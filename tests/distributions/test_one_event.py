"""A density is of one event, whoever wrote it: a batch of densities, a value of another shape and a
log-density that is no one number are refused by their shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from vaejax.distributions import DiagNormalDensity, Mixture, NumPyroDensity
from vaejax.distributions.kl import kl_by_coordinate, kl_divergence
from vaejax.distributions.numpyro import as_distribution
from vaejax.estimators.base import require_reparameterised
from vaejax.objectives.base import terms_of

KEY = jax.random.key(0)
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@vaejax.pytree
class Broadcast(vaejax.Distribution):
    """A normal of a user who checks nothing."""

    loc: jax.Array
    reparameterised = True

    def sample(self, key):
        return self.loc + jax.random.normal(key, self.loc.shape)

    def log_prob(self, value):
        return jnp.sum(-0.5 * (value - self.loc) ** 2 - HALF_LOG_2PI)


@vaejax.pytree
class PerPixel(Broadcast):
    def log_prob(self, value):
        return -0.5 * (value - self.loc) ** 2 - HALF_LOG_2PI


@vaejax.pytree
class Rejection(Broadcast):
    """Its sampler asks for its density, whose event is the shape of a draw."""

    def sample(self, key):
        z = super().sample(key)
        return jnp.where(self.log_prob(z) > -1e3, z, self.loc)


@vaejax.pytree
class Transformed(PerPixel):
    """It sums up what its parent gives."""

    def log_prob(self, value):
        return jnp.sum(super().log_prob(value))


@vaejax.pytree
class NoSampler(vaejax.Distribution):
    loc: jax.Array
    reparameterised = False

    def log_prob(self, value):
        return jnp.sum(value * self.loc)


# Values.

WRONG = {
    "(8,) against (1,)": ((1,), (8,)),
    "(1,) against (8,)": ((8,), (1,)),
    "a number against (8,)": ((8,), ()),
    "a batch": ((8,), (3, 8)),
    "two latents": ((8,), (8, 8)),
    "one axis less": ((8, 8), (8,)),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", [Broadcast, Rejection, Transformed])
def test_a_value_is_held_against_a_draw(kind, name):
    """Also where all would broadcast into one number; by tracing alone."""
    of_event, of_value = WRONG[name]
    p = kind(jnp.zeros(of_event))
    with pytest.raises(ValueError, match=r"got a value of shape .*, but one event has shape") as e:
        jax.eval_shape(p.log_prob, jnp.zeros(of_value))
    is_batch = name in ("a batch", "two latents")
    assert "\n" not in str(e.value) and ("jax.vmap" in str(e.value)) == is_batch
    assert jax.eval_shape(p.log_prob, jnp.zeros(of_event)).shape == ()


def test_a_density_without_a_sampler_has_no_shape_to_hold_a_value_against():
    assert NoSampler(jnp.ones(3)).log_prob(jnp.ones(3)) == 3
    with pytest.raises(NotImplementedError):
        _ = NoSampler(jnp.ones(3)).event


def test_parameters_of_two_shapes_are_refused():
    for other in ((), (1,), (8, 1), (8, 8)):
        q = DiagNormalDensity(jnp.zeros(8), jnp.zeros(other))
        with pytest.raises(ValueError, match=r"DiagNormal has parameters of the shapes \(8,\) and"):
            q.log_prob(jnp.zeros(8))


def test_a_tree_is_held_against_a_draw_by_the_shapes_of_its_leaves():
    """Also where its leaves are traced; a list of numbers is one array."""
    p = Broadcast(jnp.zeros(2))
    p.require_event([0.0, 0.0])
    for make in (lambda z: {"x": z}, lambda z: (z,), lambda z: [z[0], z[1]], lambda z: None):
        with pytest.raises(ValueError, match="but one event has shape") as error:
            jax.eval_shape(lambda z, make=make: p.log_prob(make(z)), jnp.zeros(2))
        assert "\n" not in str(error.value)


# Results.


NO_NUMBERS = {
    "a flag": (lambda z: True, "is of type bool"),
    "a traced flag": (lambda z: jnp.sum(z) > 0, "is of dtype bool"),
    "a whole number": (lambda z: jnp.sum(z).astype(int), "is of dtype int"),
    "complex": (lambda z: jnp.sum(z) + 1j, "is of dtype complex"),
    "bfloat16": (lambda z: jnp.sum(z).astype(jnp.bfloat16), "is of dtype bfloat16"),
    "float16": (lambda z: jnp.sum(z).astype(jnp.float16), "is of dtype float16"),
    "a key": (lambda z: jax.random.key(0), "is of dtype key"),
    "a tuple": (lambda z: (jnp.sum(z),), "is of type tuple"),
    "a list": (lambda z: [jnp.sum(z)], "is of type list"),
    "a dict": (lambda z: {"log_prob": jnp.sum(z)}, "is of type dict"),
    "a word": (lambda z: "0", "is of type str"),
}
NUMBERS = (lambda z: 0, lambda z: -1.5, lambda z: np.float64(1), lambda z: jnp.sum(z))


@pytest.mark.parametrize("case", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_a_log_density_is_a_real_number_of_full_width(case):
    """Of an own density, and of an own function as an objective; whichever may be traced."""
    function, message = case
    p = with_log_prob(function)
    objective = vaejax.minibatch(lambda params, x, key: function(x), support=vaejax.supports.REAL)
    for ask in (
        lambda z: p.log_prob(z),
        lambda z: p.sample_and_log_prob(KEY),
        lambda z: terms_of(objective, (), z[None], KEY, 0),
    ):
        with pytest.raises(TypeError, match=message) as error:
            jax.eval_shape(ask, jnp.zeros(2))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", NUMBERS)
def test_numbers_of_python_and_numpy_are_log_densities(function):
    assert np.shape(with_log_prob(function).log_prob(jnp.zeros(2))) == ()


def with_log_prob(function):
    class Own(Broadcast):
        def log_prob(self, value):
            return function(value)

    return vaejax.pytree(Own)(jnp.zeros(2))


def test_samples_that_cannot_move_smoothly_are_refused_where_they_should():
    class Rounded(Broadcast):
        def sample(self, key):
            return jnp.round(self.loc).astype(int)

    q = vaejax.pytree(Rounded)(jnp.zeros(2))
    with pytest.raises(TypeError, match="reparameterised = True, but its samples are of dtype int"):
        require_reparameterised("Pathwise", q)
    require_reparameterised("Pathwise", Broadcast(jnp.zeros(2)))


def test_a_log_density_is_one_number():
    p = PerPixel(jnp.zeros((4, 4)))
    for ask in (lambda: p.log_prob(jnp.zeros((4, 4))), lambda: p.sample_and_log_prob(KEY)):
        with pytest.raises(ValueError, match=r"PerPixel.log_prob has shape \(4, 4\)") as error:
            jax.eval_shape(ask)
        assert "jnp.sum" in str(error.value) and "\n" not in str(error.value)

    class Nothing(Broadcast):
        def log_prob(self, value):
            jnp.sum(value)

    with pytest.raises(TypeError, match=r"Nothing.log_prob is None; it must be one number"):
        vaejax.pytree(Nothing)(jnp.zeros(2)).log_prob(jnp.zeros(2))


# Batches.


def test_a_batch_of_a_models_densities_gives_no_one_number():
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP(3, (3,))),
        vaejax.DiagNormal(vaejax.MLP(2, (3,), heads=2)),
    )
    params = jax.eval_shape(model.init, KEY, jnp.zeros(3))
    many = jax.ShapeDtypeStruct((8, 3), jnp.float32)

    def of_batch(ask):
        return jax.eval_shape(
            lambda params, xs: ask(jax.vmap(model.posterior, (None, 0))(params, xs)), params, many
        )

    for ask in (
        lambda qs: qs.log_prob(jnp.zeros((8, 2))),
        lambda qs: kl_divergence(qs, qs),
        lambda qs: kl_divergence(qs, DiagNormalDensity(jnp.zeros((8, 2)), jnp.zeros((8, 2)))),
    ):
        with pytest.raises(ValueError, match=r"batch of densities, \(8,\) of them"):
            of_batch(ask)
    assert of_batch(lambda qs: qs.loc).shape == (8, 2)
    log_probs = of_batch(lambda qs: jax.vmap(lambda q, z: q.log_prob(z))(qs, jnp.zeros((8, 2))))
    assert log_probs.shape == (8,)


NUMPYRO = {
    "Normal": lambda loc: npd.Normal(loc, 1.0).to_event(1),
    "MultivariateNormal": lambda loc: npd.MultivariateNormal(loc, jnp.eye(2)),
    "Dirichlet": lambda loc: npd.Dirichlet(jnp.exp(loc)),
    "a number": lambda loc: npd.Normal(loc[0], 1.0),
}


@pytest.mark.parametrize("name", NUMPYRO)
def test_numpyros_own_batches_of_a_vmap(name):
    """Which say that they are one: their arrays are not looked at, so what they give is."""
    make = NUMPYRO[name]
    single = jax.eval_shape(make, jnp.zeros(2))
    value = jnp.full(single.event_shape, 0.5)
    for ask in (
        lambda q: q.log_prob(value),
        lambda q: q.sample(KEY),
        lambda q: q.sample_and_log_prob(KEY),
        lambda q: kl_divergence(q, make(jnp.zeros(2))),
    ):
        with pytest.raises(ValueError):
            jax.eval_shape(
                lambda locs, ask=ask: ask(as_distribution(jax.vmap(make)(locs), "q")),
                jnp.zeros((8, 2)),
            )


def test_a_part_of_an_event_is_no_batch():
    """Nor is one of a stack that was made as one, such as a mixture's components."""
    q = DiagNormalDensity(jnp.zeros((4, 2)), jnp.zeros((4, 2)))
    row = jax.tree.map(lambda leaf: leaf[0], q)
    assert jax.eval_shape(row.log_prob, jnp.zeros(2)).shape == ()
    mixture = Mixture(jnp.zeros(4), q)
    assert jax.eval_shape(mixture.log_prob, jnp.zeros(2)).shape == ()
    assert jax.eval_shape(mixture.mean).shape == (2,)


def test_the_kl_of_each_coordinate_is_of_one_event():
    q, p = (DiagNormalDensity(jnp.zeros(d), jnp.zeros(d)) for d in (4, 1))
    with pytest.raises(ValueError, match=r"events of two shapes, \(4,\) under q and \(1,\) under"):
        kl_by_coordinate(q, p)


def test_a_numpyro_density_knows_its_event_without_a_draw():
    q = NumPyroDensity(npd.Gamma(jnp.ones(3), 1.0).to_event(1))
    assert q.event.shape == (3,) and jax.eval_shape(q.log_prob, q.event).shape == ()
