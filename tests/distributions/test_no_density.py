"""What has no density, or one of another mass than 1, is refused at every door for NumPyro's
distributions; everything else is let through, and has the mass 1.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as npd
import pytest
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

import vaejax
from tests.lib.numpyro_members import MEMBERS, NO_DENSITY, PAIR, WITH_ATOM, member
from vaejax.distributions.numpyro import as_distribution, from_numpyro

KEY, X = jax.random.key(0), jnp.ones(3)
MLP = vaejax.MLP
LIKELIHOOD = vaejax.Bernoulli(MLP(3, (3,)))
ENCODER = vaejax.DiagNormal(MLP(2, (3,), heads=2))
REAL = vaejax.supports.REAL


def drawn(p):
    """A NumPyro model of one site."""
    return vaejax.NumPyroPrior(lambda: numpyro.sample("z", p))


def conditional(p):
    return vaejax.NumPyroConditional(MLP(2, (3,)), lambda loc: p, support=REAL)


def posterior(p, role):
    """A user's own model, with p as one of its densities."""

    @vaejax.component
    class Own(vaejax.Model):
        support = latent_support = REAL

        def init(self, key, x):
            return vaejax.Params(theta=(), phi=())

        def density(self, name):
            return p if name == role else vaejax.distributions.standard_normal(jnp.zeros(2))

        def p_z(self, params, x=None):
            return self.density("prior")

        def p_x_given_z(self, params, z, x=None):
            return self.density("likelihood")

        def posterior(self, params, x):
            return self.density("posterior")

    model = Own()
    return vaejax.elbo(model, model.init(KEY, X), jnp.ones(2), KEY)


DOORS = {
    "the adapter": from_numpyro,
    "a density": lambda p: as_distribution(p.to_event(1), "a function"),
    "a prior": lambda p: vaejax.NumPyroPrior(lambda: p.to_event(1)),
    "a site": drawn,
    "a likelihood": lambda p: (
        vaejax.VAE(vaejax.StandardNormal(2), conditional(p), ENCODER).init(KEY, X)
        and conditional(p)(conditional(p).init(KEY, jnp.ones(2)), jnp.ones(2))
    ),
    "an encoder": lambda p: vaejax.VAE(vaejax.StandardNormal(2), LIKELIHOOD, conditional(p)).init(
        KEY, X
    ),
    "a posterior of one's own": lambda p: posterior(p.to_event(1), "posterior"),
    "a prior of one's own": lambda p: posterior(p.to_event(1), "prior"),
    "a likelihood of one's own": lambda p: posterior(p.to_event(1), "likelihood"),
}


@pytest.mark.parametrize("name", NO_DENSITY)
@pytest.mark.parametrize("door", DOORS)
def test_what_has_no_density_is_refused_in_a_line(door, name):
    with pytest.raises(TypeError, match=f"{name} has no density, since") as error:
        DOORS[door](NO_DENSITY[name]())
    assert "\n" not in str(error.value)


HOLDERS = {
    "expanded": lambda p: p.expand((3, 2)),
    "an event": lambda p: p.to_event(1),
    "transformed": lambda p: npd.TransformedDistribution(p, transforms.AffineTransform(1.0, 2.0)),
    "masked by True": lambda p: p.mask(True),
    "of a mixture": lambda p: npd.MixtureGeneral(
        npd.Categorical(jnp.ones((2, 2)) / 2), [p, p], support=p.support
    ),
}


@pytest.mark.parametrize("name", sorted(NO_DENSITY.keys() - {"ImproperUniform", "Unit"}))
@pytest.mark.parametrize("holder", HOLDERS)
def test_as_a_part_too(holder, name):
    with pytest.raises(TypeError, match=f"{name} has no density, since"):
        from_numpyro(HOLDERS[holder](NO_DENSITY[name]()))


def test_the_mask_of_a_program():
    """Whether a traced mask leaves something out is not known."""
    with pytest.raises(TypeError, match="MaskedDistribution has no density"):
        jax.jit(lambda mask: from_numpyro(npd.Normal(PAIR, 1.0).mask(mask)))(jnp.ones(2, bool))


@pytest.mark.parametrize("mask", [True, np.True_, jnp.ones(2, bool)])
def test_a_mask_that_leaves_nothing_out_is_let_through(mask):
    p = npd.Normal(PAIR, 0.7)
    assert from_numpyro(p.mask(mask)).log_prob(PAIR) == from_numpyro(p).log_prob(PAIR)


@pytest.mark.parametrize("name", [*MEMBERS, *WITH_ATOM])
def test_every_other_family_is_let_through(name):
    from_numpyro(member(name) if name in MEMBERS else WITH_ATOM[name]())


def test_an_atom_beside_a_density_is_on_a_set_of_its_own():
    """Of a z that is 0, log q - log p would be a mass against a density."""
    for make in WITH_ATOM.values():
        encoder = vaejax.NumPyroConditional(MLP(1, (3,)), lambda loc, make=make: make())
        assert encoder.support.name == "non-negative with an atom at 0"
        with pytest.raises(ValueError, match="with an atom at 0"):
            vaejax.VAE(vaejax.NumPyroPrior(lambda: npd.Exponential(1.0)), LIKELIHOOD, encoder)
        vaejax.VAE(vaejax.NumPyroPrior(make), LIKELIHOOD, encoder)


# Transforms of numbers.

BASES = {
    "normal": npd.Normal(0.3, 0.7),
    "exponential": npd.Exponential(1.3),
    "uniform": npd.Uniform(0.2, 0.9),
    "uniform about 0": npd.Uniform(-1.0, 2.0),
    "beta": npd.Beta(2.0, 1.5),
}
CHAINS = {
    "affine": [transforms.AffineTransform(1.0, -2.0)],
    "exp": [transforms.ExpTransform()],
    "log": [transforms.ExpTransform().inv],
    "square": [transforms.PowerTransform(2.0)],
    "inverse root": [transforms.PowerTransform(-0.5)],
    "sigmoid": [transforms.SigmoidTransform()],
    "logit": [transforms.SigmoidTransform().inv],
    "softplus": [transforms.SoftplusTransform()],
    "shifted root": [transforms.AffineTransform(1.0, 2.0), transforms.PowerTransform(0.5)],
    "shifted square": [
        transforms.ComposeTransform(
            [transforms.AffineTransform(-1.0, 2.0), transforms.PowerTransform(2.0)]
        )
    ],
}
# x = sinh(pi/2 sinh t): the whole line, finely about 0
T = np.linspace(-3.6, 3.6, 20_000)
LINE = np.sinh(np.pi / 2 * np.sinh(T))
WEIGHTS = np.cosh(np.pi / 2 * np.sinh(T)) * np.pi / 2 * np.cosh(T) * (T[1] - T[0])


@pytest.mark.parametrize("base, chain", list(itertools.product(BASES, CHAINS)))
def test_a_transformed_density_has_the_mass_1_or_is_refused(base, chain):
    """A square of a normal had 1/2. What is refused takes draws to what does not lead back."""
    p = npd.TransformedDistribution(BASES[base], CHAINS[chain])
    if not leads_back(BASES[base], CHAINS[chain]):
        with pytest.raises(TypeError, match="is one to one on") as error:
            from_numpyro(p)
        assert "\n" not in str(error.value)
        return
    line = jnp.asarray(LINE, jnp.float32)
    densities = np.exp(np.asarray(jax.vmap(from_numpyro(p).log_prob)(line), float))
    np.testing.assert_allclose(densities @ WEIGHTS, 1, atol=0.012)


def leads_back(base, chain):
    """Whether the inverse of each transform of draws is what was transformed."""
    step = transforms.ComposeTransform(chain)
    x = base.sample(KEY, (1_000,))
    return bool(np.allclose(step.inv(step(x)), x, atol=1e-3))


def test_no_rounding_and_no_unknown_number_is_refused():
    logit = transforms.SigmoidTransform().inv
    rounded = [transforms.AffineTransform(0.0, 1 / 0.9), logit]
    from_numpyro(npd.TransformedDistribution(npd.Uniform(0.0, 0.9), rounded))
    scaled = [transforms.AffineTransform(0.0, jnp.asarray([0.5, 1.0])), logit]
    from_numpyro(npd.TransformedDistribution(npd.Beta(jnp.ones(2), 1.0), scaled))
    moved = transforms.PowerTransform
    jax.jit(
        lambda e: from_numpyro(
            npd.TransformedDistribution(npd.Exponential(1.0), [moved(e), moved(2.0)])
        ).log_prob(1.0)
    )(0.5)


# The sites of a NumPyro model.


def standard():
    numpyro.sample("z", npd.Normal(jnp.zeros(2), 1.0).to_event(1))


def two_sites():
    z = numpyro.sample("z", npd.Normal(0.0, 1.0))
    numpyro.sample("w", npd.Normal(z, 1.0))


def twice():
    standard()
    standard()


WRONG_SITES = {
    "masked": (handlers.mask(standard, mask=False), "MaskedDistribution has no density"),
    "scaled": (handlers.scale(standard, scale=2.0), "the site 'z' .* is scaled"),
    "conditioned": (handlers.condition(two_sites, {"z": 0.0}), "the site 'z' .* is observed"),
    "substituted": (handlers.substitute(two_sites, {"z": 0.0}), "'z' .* is given its value"),
    "hidden": (handlers.block(two_sites, hide=["z"]), "a site that no handler sees"),
    "of one name": (twice, "two sites of the name 'z'"),
}


@pytest.mark.parametrize("name", WRONG_SITES)
def test_handlers_that_take_the_density_away_are_refused(name):
    model, message = WRONG_SITES[name]
    with pytest.raises(TypeError, match=message) as error:
        vaejax.NumPyroPrior(model)
    assert "\n" not in str(error.value)


def scaled_and_shifted():
    affine = transforms.AffineTransform(1.0, 2.0)
    base = npd.Normal(jnp.zeros(2), 1.0)
    numpyro.sample("z", npd.TransformedDistribution(base, affine).to_event(1))


RIGHT_SITES = {
    "plain": standard,
    "masked by True": handlers.mask(standard, mask=True),
    "a shape at the site": lambda: numpyro.sample("z", npd.Normal(0.0, 1.0), sample_shape=(2,)),
    "a transform taken out": handlers.reparam(scaled_and_shifted, config={"z": TransformReparam()}),
    "decentred": handlers.reparam(
        lambda: numpyro.sample("z", npd.Normal(jnp.ones(2), 2.0).to_event(1)),
        config={"z": LocScaleReparam(0)},
    ),
}


@pytest.mark.parametrize("name", RIGHT_SITES)
def test_two_standard_normal_numbers_however_they_are_drawn(name):
    """What is taken out of a site is drawn at another, and the density is that one's."""
    p = vaejax.NumPyroPrior(RIGHT_SITES[name])((), lambda x: None)
    (value,) = p.sample(KEY).values()
    assert value.shape == (2,)
    expected = -0.5 * float(value @ value) - np.log(2 * np.pi)
    np.testing.assert_allclose(p.log_prob(p.sample(KEY)), expected, rtol=1e-5)
