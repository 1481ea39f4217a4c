"""Every prior x encoder x likelihood x estimator: the valid ones train, the others are refused with
a reason and a remedy.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compatibility import (
    ENCODERS,
    ESTIMATORS,
    LIKELIHOODS,
    PIXELS,
    PRIORS,
    document,
    model_and_shapes,
    refusal,
    shapes_with_psi,
)

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import ROOT
from vaejax import supports
from vaejax.objectives.base import Maximised

DISCRETE = ("Bernoulli", "OneHotCategorical")
NORMAL_PRIORS = ("StandardNormal", "LearnedNormal")
# Those whose KL to a diagonal normal asks only for their mean, variance and entropy.
KNOWN_KL = (
    "DiagNormal",
    "FullNormal",
    "LowRankNormal",
    "Laplace",
    "NumPyroConditional of Student-t",
)
# Those that move the probability of a sample, those that move the sample, those of discrete
# latents, and of Bernoulli ones alone.
BY_SCORE = (
    "RWS",
    "ScoreFunction",
    "ScoreFunction, learned baseline",
    "OptimalConstant",
    "VIMCO",
    "OVIS",
)
BY_OWN_SAMPLES = (
    "Pathwise",
    "Pathwise of IWAE",
    "Pathwise of MIWAE",
    "Pathwise of CIWAE",
    "PIWAE",
)
BY_PATH = (*BY_OWN_SAMPLES, "StickTheLanding", "DReG", "RWS, doubly reparameterised")
OF_DISCRETE = ("Enumerate", "Relaxed", "StraightThrough")
OF_BINARY = ("DisARM", "DoubleControlVariate", "REBAR", "RELAX")


def is_valid(prior: str, encoder: str, estimator: str) -> bool:
    """What mathematics says: one support, a gradient through samples only where they move, a closed
    form only where there is one.
    """
    if prior != "VampPrior" and PRIORS[prior]().support != ENCODERS[encoder]().support:
        return False
    if encoder == "InverseAutoregressive":  # its density is known at its own samples alone
        return prior != "VampPrior" and estimator in BY_OWN_SAMPLES
    if estimator in BY_SCORE:
        return True
    if encoder in DISCRETE:
        return estimator in OF_DISCRETE or (encoder == "Bernoulli" and estimator in OF_BINARY)
    match estimator:
        case "AnalyticKL":
            return (prior in NORMAL_PRIORS and encoder in KNOWN_KL) or (prior, encoder) == (
                "UniformOnSphere",
                "VonMisesFisher",
            )
        case "GeneralisedDReG":
            return prior in NORMAL_PRIORS
        case "TaylorControlVariate" | "MeasureValued":
            return encoder == "DiagNormal"
    return estimator in BY_PATH


# One of each kind, since what a likelihood must give an estimator is a value, a slope along z, or a
# value at a relaxed z.
WITH_EVERY_LIKELIHOOD = ("Pathwise", "DReG", "ScoreFunction", "Relaxed")
VALID = [(p, q, e) for p in PRIORS for q in ENCODERS for e in ESTIMATORS if is_valid(p, q, e)]


QUICK = ("StandardNormal", "UniformOnSphere", "FactorialBernoulli")


@pytest.mark.parametrize("prior", cases(list(PRIORS), slow=set(PRIORS) - set(QUICK)))
def test_what_is_refused(prior):
    """Exactly what mathematics rules out, and each in one sentence with a remedy."""
    for encoder in ENCODERS:
        for estimator in ESTIMATORS:
            reason = refusal(prior, encoder, estimator)
            assert (reason is None) == is_valid(prior, encoder, estimator), (
                f"{prior} x {encoder} x {estimator}: {reason}"
            )
            if reason is not None:
                assert "\n" not in reason and (" use " in reason or "needs" in reason)


def test_the_document_is_what_the_code_does():
    valid = {(p, q): [e for e in ESTIMATORS if is_valid(p, q, e)] for p in PRIORS for q in ENCODERS}
    assert (ROOT / "docs" / "compatibility.md").read_text() == document(valid), (
        "make it anew by scripts/compatibility.py"
    )


def data_for(support) -> np.ndarray:
    """Sixteen examples with structure to learn: a first half that differs from the second."""
    generator = np.random.default_rng(0)
    share = np.where(np.arange(PIXELS) < 2, 0.8, 0.2) * np.ones((16, 1))
    match support.name:
        case "binary":
            return (generator.random((16, PIXELS)) < share).astype(np.float32)
        case "counts":
            return generator.poisson(10 * share).astype(np.float32)
        case "sphere":
            x = share + 0.1 * generator.normal(size=share.shape)
            return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        case "real":
            return (2 * share + 0.3 * generator.normal(size=share.shape)).astype(np.float32)
    return (
        np.round(16 * np.clip(share + 0.1 * generator.normal(size=share.shape), 0, 1)) / 16
    ).astype(np.float32)


def check_trains(prior: str, encoder: str, estimator: str, likelihood: str) -> None:
    """Five steps along the signs of the gradient raise the bound, taken over the same examples and
    noise, and all stays finite.

    Made to compile fast, since hundreds are: parameters are drawn by NumPy, and keys are of the
    cheapest kind.
    """
    model = vaejax.VAE(PRIORS[prior](), LIKELIHOODS[likelihood](), ENCODERS[encoder]())
    xs = jnp.asarray(data_for(model.likelihood.support))
    maximised = Maximised(vaejax.minibatch(ESTIMATORS[estimator](), model))
    keys = jax.random.split(jax.random.key(1, impl="unsafe_rbg"), 5)
    generator = np.random.default_rng(0)
    shapes = shapes_with_psi(estimator, model, model_and_shapes(prior, encoder, likelihood)[1])
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), leaf.dtype), shapes
    )

    @partial(
        jax.jit,
        compiler_options={
            "xla_backend_optimization_level": 0,
            "xla_llvm_disable_expensive_passes": True,
        },
    )
    def step(params, xs, key):
        value, gradient = jax.value_and_grad(maximised)(params, xs, key)
        return (
            jax.tree.map(lambda leaf, slope: leaf + 0.02 * jnp.sign(slope), params, gradient),
            value,
        )

    values = []
    for _ in range(5):
        params, value = step(params, xs, keys[0])
        values.append(float(value))
    values.append(float(step(params, xs, keys[0])[1]))
    assert np.isfinite(values).all() and all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)
    )
    assert values[-1] > values[0], f"the bound fell from {values[0]} to {values[-1]}"


def cover() -> list[tuple[str, str, str, str]]:
    """Of the valid combinations enough for every pair of an encoder and an estimator; priors and
    likelihoods take turns.
    """
    chosen = {}
    for prior, encoder, estimator in VALID:
        chosen.setdefault((encoder, estimator), []).append(prior)
    turns = list(LIKELIHOODS)
    return [
        (priors[number % len(priors)], encoder, estimator, turns[number % len(turns)])
        for number, ((encoder, estimator), priors) in enumerate(chosen.items())
    ]


def in_haste() -> list:
    """The cover, of which `make test` trains every ninth, less the priors that compile longest."""
    quick = [row for row in cover() if not row[0].startswith(("FlowPrior", "VampPrior"))][::9]
    return [pytest.param(*row, marks=[pytest.mark.slow] * (row not in quick)) for row in cover()]


@pytest.mark.parametrize("prior, encoder, estimator, likelihood", in_haste())
def test_a_cover_of_the_product_trains(prior, encoder, estimator, likelihood):
    check_trains(prior, encoder, estimator, likelihood)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(
    "prior, encoder, estimator", [row for row in VALID if row[2] in WITH_EVERY_LIKELIHOOD]
)
def test_the_product_trains(prior, encoder, estimator, likelihood):
    check_trains(prior, encoder, estimator, likelihood)


def test_supports_are_told_apart():
    names = [name for name in dir(supports) if name.isupper()]
    assert len({getattr(supports, name) for name in names}) == len(names)
