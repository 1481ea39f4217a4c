"""The tables of priors and of gaps: their parts, and what they say of given records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from experiments.reproduce import gaps, importance_weights, vamp
from experiments.reproduce.vamp import Clipped
from vaejax.base.mapping import Estimate


def test_log_variances_are_clipped_without_a_gradient_beyond():
    net = Clipped(vaejax.Free(3))
    raw = jnp.asarray([-4.0, 0.2, 1.5])  # log-scales; the log-variances are twice as much
    params = {"loc": jnp.zeros(3), "log_scale": raw}
    _, log_scale = net.apply(params, jnp.zeros(1))
    np.testing.assert_allclose(2 * log_scale, [-6.0, 0.4, 2.0], rtol=1e-6)
    slope = jax.grad(lambda params: net.apply(params, jnp.zeros(1))[1].sum())(params)["log_scale"]
    np.testing.assert_array_equal(slope, [0, 1, 0])


def test_pseudo_inputs_start_at_training_images():
    row = vamp.Vamp(name="vamp-2", published=vamp.NONE, prior=vaejax.VampPrior(20))
    images = np.random.default_rng(0).integers(0, 2, (50, *vamp.SHAPE)).astype(np.uint8)
    model = vaejax.VAE(
        row.prior,
        vaejax.Bernoulli(vaejax.MLP(vamp.SHAPE, (4,))),
        vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2)),
    )
    pseudo_inputs = np.asarray(row.start(model, images, jax.random.key(0)).theta["prior"])
    rows = [int(np.flatnonzero((images == image).all(axis=(1, 2)))[0]) for image in pseudo_inputs]
    assert len(set(rows)) == 20


def test_every_bound_has_64_samples():
    for row in importance_weights.TABLE.rows:
        assert row.estimator.num_samples == 64
    assert importance_weights.TABLE["miwae"].estimator == vaejax.Pathwise(64, vaejax.MIWAEBound(8))
    assert importance_weights.TABLE["piwae"].estimator == vaejax.PIWAE(64, 8)


@pytest.mark.parametrize(
    ("gain", "error", "said"), [(2.8, 0.1, "holds"), (2.1, 0.1, "does not hold")]
)
def test_the_claim_on_the_vamp_prior(gain, error, said):
    records = {"vamp-500": {"versus": {"standard": {"mean": -gain, "standard_error": error}}}}
    (sentence,) = vamp.TABLE.claims(records)
    assert sentence.endswith(f"at least 2 nats {said}.") and f"{gain:.2f} ± {error:.2f}" in sentence
    assert vamp.TABLE.claims({}) == []


def record(**numbers):
    means = {name: mean for name, (mean, _) in numbers.items()}
    errors = {f"{name}_error": error for name, (_, error) in numbers.items()}
    return {"ours": {name: {"mean": value} for name, value in {**means, **errors}.items()}}


def test_the_claims_on_the_gaps():
    records = {
        "diagonal": record(amortisation=(2.0, 0.3), approximation=(1.0, 0.4), excess=(1.0, 0.2)),
        "flow": record(amortisation=(2.5, 0.4), approximation=(0.2, 0.3), excess=(2.3, 0.2)),
    }
    of_encoder, of_flow = gaps.TABLE.claims(records)
    assert of_encoder.endswith("by their difference 1.00 ± 0.20 over the images, that holds.")
    assert "approximation gap by 0.80 ± 0.50, which is not decided" in of_flow
    assert of_flow.endswith("amortisation gap by -0.50 ± 0.50, which is not decided.")
    assert gaps.TABLE.claims({"flow": records["flow"]}) == []


def test_a_verdict_is_by_two_standard_errors():
    verdicts = [gaps.verdict(Estimate(mean, 1.0)) for mean in (2.5, 1.5, -1.5, -2.5)]
    assert verdicts == ["holds", "is not decided", "is not decided", "does not hold"]
