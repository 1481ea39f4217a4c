"""A strict run: ranks are never promoted, and the devices are eight, so that sharding is tested everywhere."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_mnist = pytest.mark.skipif(not (SHARED / "mnist.npz").exists(), reason="mnist.npz is absent")

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


# Marked slow here and not where they stand, so that the time of `make test` can be kept by one list.
LONG = (
    "test_product.py::test_a_cover_of_the_product_trains[FlowPrior",
    "test_product.py::test_a_cover_of_the_product_trains[VampPrior",
    "test_product.py::test_what_is_refused[FlowPrior",
    "test_product.py::test_what_is_refused[NumPyroPrior",
    "test_product.py::test_what_is_refused[LearnedNormal",
    "test_product.py::test_what_is_refused[MixtureOfGaussians",
    "test_product.py::test_what_is_refused[FactorialCategorical",
    "test_objectives.py::test_validation_is_of_the_bound",
    "test_objectives.py::test_fit_at_the_optimal_scale_follows_it",
    "test_objectives.py::test_rows_stay_aligned_when_the_objective_changes",
    "test_objectives.py::test_history_has_both_and_the_gradient_is_of_the_objective",
    "test_conditionals.py::test_posterior_families_nest",
    "test_conditionals.py::test_densities_integrate_to_one",
    "test_conditionals.py::test_extreme_outputs_are_finite[VonMisesFisher",
    "test_conditionals.py::test_extreme_outputs_are_finite[FullNormal",
    "test_conditionals.py::test_extreme_outputs_are_finite[LowRankNormal",
    "test_conditionals.py::test_full_normal_in_many_dimensions_is_finite_where_it_samples",
    "test_distributions.py::test_finite_at_extreme_parameters[DiscretizedLogistic",
    "test_sphere.py::test_float32_samples_at_extreme_concentrations",
    "test_sphere.py::test_samples_follow_the_density[5",
    "test_flows.py::test_every_parameter_has_a_gradient",
    "test_networks.py::test_a_residual_pair_learns_what_it_is_shown",
    "test_checkpoints.py::test_killed_in_the_middle_of_a_save[0.05",
    "test_checkpoints.py::test_killed_in_the_middle_of_a_save[0.23",
    "test_train_script.py::test_interrupted_it_saves_and_resumes_to_the_same_bits[SIGTERM",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if any(name in item.nodeid for name in LONG):
            item.add_marker(pytest.mark.slow)
