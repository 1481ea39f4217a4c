"""Models made of graphs: a VAE is the one of two nodes; others are their formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.graph_models import as_graph, semi_supervised
from tests.lib.oracles import LinearGaussian
from vaejax import DirectedGraph, Node

POINT = LinearGaussian()


def binary_vae():
    net = partial(vaejax.MLP, hidden=(5,))
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(3), vaejax.Bernoulli(net(4)), vaejax.Bernoulli(net(3))
    )
    x = jnp.asarray([1.0, 0.0, 1.0, 1.0])
    return model, model.init(jax.random.key(0), x), x


CONTINUOUS = [
    vaejax.Pathwise(2),
    vaejax.Pathwise(3, vaejax.iwae_bound),
    vaejax.Pathwise(2, noise=vaejax.Antithetic()),
    vaejax.AnalyticKL(2),
    vaejax.StickTheLanding(2),
    vaejax.StickTheLanding(2, coefficient="estimated"),
    vaejax.DReG(3),
    vaejax.GeneralisedDReG(3),
    vaejax.RWS(3),
    vaejax.RWS(3, doubly_reparameterised=True),
    vaejax.PIWAE(4, 2),
    vaejax.MeasureValued(2),
    vaejax.TaylorControlVariate(2),
    vaejax.Beta(0.5, 2),
]


ANY = [vaejax.ScoreFunction(3), vaejax.OptimalConstant(2), vaejax.VIMCO(3), vaejax.OVIS(3)]


DISCRETE = [
    vaejax.Enumerate(),
    vaejax.DisARM(4),
    vaejax.REBAR(),
    vaejax.DoubleControlVariate(3),
    vaejax.Relaxed(),
    vaejax.StraightThrough(),
]


@pytest.mark.parametrize(
    "estimator", [*CONTINUOUS, *ANY, *DISCRETE], ids=lambda e: type(e).__name__
)
def test_the_two_node_graph_is_the_vae(estimator):
    """Value and gradient, at the same key."""
    model, params, x = (
        binary_vae() if estimator in DISCRETE else (POINT.model, POINT.params, POINT.datum)
    )
    params = params._replace(psi=estimator.init(model, params, x, jax.random.key(1)))
    graph_model, graph_params = as_graph(model, params)
    key = jax.random.key(2)

    @partial(jax.jit, static_argnums=0)
    def terms_and_gradient(model, params):
        def objective(params):
            terms = estimator.terms(model, params, x, key, 0)
            return terms.objective, terms

        return jax.value_and_grad(objective, has_aux=True)(params)

    (_, terms), gradient = terms_and_gradient(model, params)
    (_, graph_terms), graph_gradient = terms_and_gradient(graph_model, graph_params)
    np.testing.assert_allclose(graph_terms[:2], terms[:2], rtol=1e-5)
    for graph_part, vae_part in (
        (graph_gradient.theta["x"], gradient.theta["likelihood"]),
        (graph_gradient.phi, gradient.phi),
    ):
        np.testing.assert_allclose(
            ravel_pytree(graph_part)[0], ravel_pytree(vae_part)[0], rtol=1e-4, atol=1e-5
        )


def test_the_two_node_graph_samples_as_the_vae():
    graph_model, params = as_graph(POINT.model, POINT.params)
    for sample, expected in zip(
        graph_model.sample(params, jax.random.key(3)),
        POINT.model.sample(POINT.params, jax.random.key(3)),
        strict=True,
    ):
        np.testing.assert_allclose(sample, expected, rtol=1e-6)
    by_name = graph_model.joint(params).sample(jax.random.key(3))
    assert set(by_name) == {"x", "z"} and by_name["x"].shape == by_name["z"].shape == (1,)


def test_a_vamp_prior_at_the_root_sees_the_encoder():
    encoder = vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2))
    vae = vaejax.VAE(vaejax.VampPrior(3), vaejax.Bernoulli(vaejax.MLP(4, (4,))), encoder)
    x, key = jnp.ones(4), jax.random.key(1)
    params = vae.init(jax.random.key(0), x)
    model, graph_params = as_graph(vae, params)
    assert jax.tree.structure(model.init(jax.random.key(0), x).theta["z"]) == jax.tree.structure(
        params.theta["prior"]
    )
    elbo = jax.jit(vaejax.elbo, static_argnums=0)
    np.testing.assert_allclose(
        elbo(model, graph_params, x, key), elbo(vae, params, x, key), rtol=1e-6
    )


# Conditional: p(x, z | y) with a learned conditional prior.


def conditional_vae():
    net = partial(vaejax.MLP, hidden=(6,))
    prior, likelihood = vaejax.DiagNormal(net(2, heads=2)), vaejax.Bernoulli(net(4))
    graph = DirectedGraph((Node("z", prior, "y"), Node("x", likelihood, ("z", "y"))), inputs=("y",))
    model = vaejax.GraphModel(graph, vaejax.DiagNormal(net(2, heads=2)))
    x = {"x": jnp.asarray([1.0, 0.0, 0.0, 1.0]), "y": jnp.asarray([0.0, 1.0, 0.0])}
    return model, model.init(jax.random.key(0), x), x


def test_a_conditional_vae_is_its_formula():
    model, params, x = conditional_vae()
    z = jnp.asarray([0.3, -0.7])
    prior = model.graph["z"].conditional(params.theta["z"], x["y"])
    likelihood = model.graph["x"].conditional(params.theta["x"], (z, x["y"]))
    np.testing.assert_allclose(
        model.log_joint(params, x, z), prior.log_prob(z) + likelihood.log_prob(x["x"]), rtol=1e-6
    )
    np.testing.assert_allclose(model.p_z(params, x).log_prob(z), prior.log_prob(z), rtol=1e-6)
    np.testing.assert_allclose(model.p_x_given_z(params, z, x).mean(), likelihood.mean(), rtol=1e-6)
    sample, latent = model.sample(params, jax.random.key(1), x)
    assert sample["x"].shape == (4,) and latent.shape == (2,)
    np.testing.assert_array_equal(sample["y"], x["y"])
    by_name = model.joint(params, x["y"]).sample(jax.random.key(1))
    assert by_name["x"].shape == (4,) and by_name["z"].shape == (2,)


def test_latents_below_an_observed_node_have_no_prior_of_their_own():
    """x -> y -> z, x observed: p(z) would sum y out, or take the x of an example for given."""
    nodes = (
        Node("x", vaejax.StandardNormal(1)),
        Node("y", vaejax.Gaussian(vaejax.MLP(1, ()), 1.0), "x"),
        Node("z", vaejax.Gaussian(vaejax.MLP(1, ()), 1.0), "y"),
    )
    free = vaejax.DiagNormal(vaejax.MLP(1, (), heads=2))
    encoder = DirectedGraph((Node("y", free, "x"), Node("z", free, "x")), inputs=("x",))
    model = vaejax.GraphModel(DirectedGraph(nodes), encoder)
    params = model.init(jax.random.key(0), jnp.zeros(1))
    with pytest.raises(vaejax.NotKnownError, match="latent nodes depend on the observed x"):
        model.p_z(params, jnp.zeros(1))


def test_the_analytic_kl_is_to_the_conditional_prior():
    model, params, x = conditional_vae()
    key = jax.random.key(1)
    q, p = model.posterior(params, x), model.p_z(params, x)
    z = q.sample(jax.random.split(key, 1)[0])
    expected = model.p_x_given_z(params, z, x).log_prob(x["x"]) - vaejax.kl_divergence(q, p)
    np.testing.assert_allclose(vaejax.AnalyticKL()(model, params, x, key), expected, rtol=1e-5)


def test_it_trains_on_a_mapping():
    model, params, _ = conditional_vae()
    generator = np.random.default_rng(0)
    y = np.eye(3)[generator.integers(3, size=120)].astype(np.float32)
    data = {
        "x": (generator.random((120, 4)) < 0.2 + 0.6 * y[:, [0, 1, 2, 0]]).astype(np.float32),
        "y": y,
    }
    objective = vaejax.minibatch(vaejax.AnalyticKL(), model)
    import optax

    run = vaejax.fit(
        objective,
        params,
        optax.adam(1e-2),
        data,
        jax.random.key(1),
        num_steps=200,
        batch_size=40,
        progress=False,
    )
    assert run.history["bound"][-20:].mean() > run.history["bound"][:20].mean() + 0.2
    with pytest.raises(ValueError, match=r"data\['x'\] has values in \[0, 2\]"):
        bad = data | {"x": 2 * data["x"]}
        vaejax.fit(
            objective,
            params,
            optax.adam(1e-2),
            bad,
            jax.random.key(1),
            num_steps=1,
            batch_size=40,
            progress=False,
        )


def test_the_bound_with_the_class_summed_out_is_its_formula():
    """U(x) = sum_y q(y|x) [L(x, y) - log q(y|x)], L of the model in which y is observed."""
    model, params, x = semi_supervised()
    key = jax.random.key(1)
    labelled = model.observe("y")
    log_q = jax.nn.log_softmax(model.encoder["y"].conditional(params.phi["y"], x).logits)
    expected = 0.0
    for y, log_q_y in zip(jnp.eye(3), log_q, strict=True):
        z_key = jax.random.split(jax.random.split(key, 1)[0])[
            1
        ]  # that of the node z of the one sample
        z = model.encoder["z"].conditional(params.phi["z"], (x, y)).sample(z_key)
        example = {"x": x, "y": y}
        bound = labelled.log_joint(params, example, {"z": z}) - labelled.posterior(
            params, example
        ).log_prob({"z": z})
        expected += jnp.exp(log_q_y) * (bound - log_q_y)
    bound = jax.jit(vaejax.ByNode(enumerate=("y",)), static_argnums=0)
    np.testing.assert_allclose(bound(model, params, x, key), expected, rtol=1e-5)


def test_observing_a_node_takes_its_factor_out_of_q():
    model, params, x = semi_supervised()
    labelled = model.observe("y")
    assert labelled.latents == ("z",) and labelled.encoder.inputs == ("x", "y")
    example = {"x": x, "y": jnp.asarray([0.0, 0.0, 1.0])}
    whole = model.posterior(params, x).log_probs({"y": example["y"], "z": jnp.zeros(2)})
    np.testing.assert_allclose(
        labelled.posterior(params, example).log_prob({"z": jnp.zeros(2)}), whole["z"], rtol=1e-6
    )


def test_mistakes_are_named():
    model, params, x = semi_supervised()
    key = jax.random.key(0)
    with pytest.raises(
        TypeError,
        match=(
            "samples of the node 'y' .OneHotCategorical. do not move smoothly .* `enumerate` or"
            " `score`"
        ),
    ):
        vaejax.ByNode()(model, params, x, key)
    with pytest.raises(ValueError, match="unknown node 'w'"):
        vaejax.ByNode(enumerate=("w",))(model, params, x, key)
    with pytest.raises(ValueError, match="'z' is not a finite node"):
        vaejax.ByNode(enumerate=("z", "y"))(model, params, x, key)
    with pytest.raises(ValueError, match="'y' is both enumerated and by the score function"):
        vaejax.ByNode(enumerate=("y",), score=("y",))
    with pytest.raises(TypeError, match="for a graph, ByNode"):
        vaejax.Pathwise()(model, params, x, key)
    with pytest.raises(
        TypeError, match="ByNode is for a q that is .*, and this one is DiagNormal; use"
    ):
        vaejax.ByNode()(POINT.model, POINT.params, POINT.datum, key)
    with pytest.raises(ValueError, match="the latent nodes are y, z; an encoder of several"):
        vaejax.GraphModel(model.graph, vaejax.DiagNormal(vaejax.MLP(2, heads=2)))
    with pytest.raises(ValueError, match="the latent nodes are y, z, and the encoder's y"):
        vaejax.GraphModel(model.graph, DirectedGraph((model.encoder["y"],), ("x",)))
    with pytest.raises(ValueError, match="an encoder of one-hot ones|is a prior on"):
        wrong = DirectedGraph(
            (model.encoder["y"], Node("z", vaejax.Bernoulli(vaejax.MLP(2)), "x")), ("x",)
        )
        vaejax.GraphModel(model.graph, wrong)
    with pytest.raises(ValueError, match=r"a mapping with x, y, and this is of shape \(3,\)"):
        model.observe("y").posterior(params, jnp.zeros(3))
    with pytest.raises(ValueError, match="the example has no 'y'"):
        model.observe("y").log_joint(params, {"x": x}, {"z": jnp.zeros(2)})
