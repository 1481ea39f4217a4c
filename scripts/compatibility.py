"""Which priors, encoders and estimators go together: tried, not asserted. Prints docs/compatibility.md.

    python scripts/compatibility.py > docs/compatibility.md

The components here are also those of tests/test_product.py, which trains every valid combination and holds this table against the
rules that mathematics gives.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

import vaejax

DIM, PIXELS = 3, 5
net = partial(vaejax.MLP, hidden=(8,))


def laplace() -> npd.Distribution:
    return npd.Laplace(0.0, 1.0).expand((DIM,)).to_event(1)


def student_t(loc) -> npd.Distribution:
    return npd.StudentT(5.0, loc, 1.0)


PRIORS: dict[str, Callable] = {
    "StandardNormal": lambda: vaejax.StandardNormal(DIM),
    "LearnedNormal": lambda: vaejax.LearnedNormal(DIM),
    "MixtureOfGaussians": lambda: vaejax.MixtureOfGaussians(DIM, 3),
    "VampPrior": lambda: vaejax.VampPrior(3),
    "FlowPrior, coupling": lambda: vaejax.FlowPrior(DIM, 2, (8,)),
    "FlowPrior, autoregressive": lambda: vaejax.FlowPrior(DIM, 2, (8,), "autoregressive"),
    "NumPyroPrior of Laplace": lambda: vaejax.NumPyroPrior(laplace),
    "UniformOnSphere": lambda: vaejax.UniformOnSphere(DIM),
    "FactorialBernoulli": lambda: vaejax.FactorialBernoulli(DIM),
    "FactorialBernoulli, relaxed": lambda: vaejax.FactorialBernoulli(DIM, temperature=0.5),
    "FactorialCategorical": lambda: vaejax.FactorialCategorical(2, 3),
    "FactorialCategorical, relaxed": lambda: vaejax.FactorialCategorical(2, 3, temperature=0.5),
}

ENCODERS: dict[str, Callable] = {
    "DiagNormal": lambda: vaejax.DiagNormal(net(DIM, heads=2)),
    "FullNormal": lambda: vaejax.FullNormal(net(DIM, heads=DIM + 2)),
    "LowRankNormal": lambda: vaejax.LowRankNormal(net(DIM, heads=3)),
    "Laplace": lambda: vaejax.Laplace(net(DIM, heads=2)),
    "RealNVP": lambda: vaejax.RealNVP(net(DIM, heads=3), 2, (8,)),
    "InverseAutoregressive": lambda: vaejax.InverseAutoregressive(net(DIM, heads=3), 2, (8,)),
    "NumPyroConditional of Student-t": lambda: vaejax.NumPyroConditional(net(DIM), student_t),
    "VonMisesFisher": lambda: vaejax.VonMisesFisher(net(DIM)),
    "Bernoulli": lambda: vaejax.Bernoulli(net(DIM)),
    "RelaxedBernoulli": lambda: vaejax.RelaxedBernoulli(net(DIM)),
    "OneHotCategorical": lambda: vaejax.OneHotCategorical(net((2, 3))),
    "RelaxedCategorical": lambda: vaejax.RelaxedCategorical(net((2, 3))),
}

LIKELIHOODS: dict[str, Callable] = {
    "Bernoulli": lambda: vaejax.Bernoulli(net(PIXELS)),
    "ContinuousBernoulli": lambda: vaejax.ContinuousBernoulli(net(PIXELS)),
    "Categorical": lambda: vaejax.Categorical(net((PIXELS, 17)), 17),
    "DiscretizedLogistic": lambda: vaejax.DiscretizedLogistic(net(PIXELS, heads=2), 17),
    "DiscretizedLogistic, 2 components": lambda: vaejax.DiscretizedLogistic(net(PIXELS, heads=6), 17),
    "Gaussian, fixed": lambda: vaejax.Gaussian(net(PIXELS), scale=0.5),
    "Gaussian, learned": lambda: vaejax.Gaussian(net(PIXELS), scale="learned"),
    "Gaussian, per dimension": lambda: vaejax.Gaussian(net(PIXELS), scale="per-dimension"),
    "DiagNormal": lambda: vaejax.DiagNormal(net(PIXELS, heads=2)),
    "FullNormal": lambda: vaejax.FullNormal(net(PIXELS, heads=PIXELS + 2)),
    "LowRankNormal": lambda: vaejax.LowRankNormal(net(PIXELS, heads=3)),
    "Laplace": lambda: vaejax.Laplace(net(PIXELS, heads=2)),
    "RealNVP": lambda: vaejax.RealNVP(net(PIXELS, heads=2), 2, (8,)),
    "VonMisesFisher": lambda: vaejax.VonMisesFisher(net(PIXELS)),
    "Poisson": lambda: vaejax.Poisson(net(PIXELS)),
    "NegativeBinomial": lambda: vaejax.NegativeBinomial(net(PIXELS, heads=2)),
    "NumPyroConditional of Student-t": lambda: vaejax.NumPyroConditional(net(PIXELS), student_t),
}

ESTIMATORS: dict[str, Callable] = {
    "Pathwise": lambda: vaejax.Pathwise(),
    "Pathwise of IWAE": lambda: vaejax.Pathwise(2, vaejax.iwae_bound),
    "AnalyticKL": lambda: vaejax.AnalyticKL(),
    "StickTheLanding": lambda: vaejax.StickTheLanding(),
    "ScoreFunction": lambda: vaejax.ScoreFunction(2),
}


@cache
def model_and_shapes(prior: str, encoder: str, likelihood: str) -> tuple[vaejax.VAE, vaejax.Params]:
    """A model, and the shapes of its parameters."""
    model = vaejax.VAE(PRIORS[prior](), LIKELIHOODS[likelihood](), ENCODERS[encoder]())
    return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(PIXELS))


def refusal(prior: str, encoder: str, estimator: str, likelihood: str = "Bernoulli") -> str | None:
    """The sentence with which a combination is refused, found by tracing it; None if it is not."""
    try:
        model, params = model_and_shapes(prior, encoder, likelihood)
        jax.eval_shape(partial(ESTIMATORS[estimator](), model), params, jnp.zeros(PIXELS), jax.random.key(0))
    except (TypeError, ValueError) as error:
        return str(error)
    return None


# One of each kind, for the document.
REFUSED = (
    ("StandardNormal", "Bernoulli", "Pathwise"),
    ("UniformOnSphere", "DiagNormal", "Pathwise"),
    ("FactorialBernoulli", "Bernoulli", "Pathwise"),
    ("MixtureOfGaussians", "DiagNormal", "AnalyticKL"),
    ("StandardNormal", "InverseAutoregressive", "StickTheLanding"),
    ("VampPrior", "InverseAutoregressive", "Pathwise"),
)


def accepted() -> dict[tuple[str, str], list[str]]:
    """For each prior and encoder, the estimators that are not refused."""
    pairs = [(prior, encoder) for prior in PRIORS for encoder in ENCODERS]
    return {(prior, encoder): [name for name in ESTIMATORS if refusal(prior, encoder, name) is None] for prior, encoder in pairs}


def document(accepted: dict[tuple[str, str], list[str]]) -> str:
    """The page: a table of the numbers of the estimators that take each pair, and what refusals say."""
    numbers = {name: str(i + 1) for i, name in enumerate(ESTIMATORS)}
    cells = {pair: " ".join(numbers[name] for name in names) or "-" for pair, names in accepted.items()}
    lines = [
        "# Which prior, encoder and estimator go together",
        "",
        "Made by `python scripts/compatibility.py`, which tries every combination. `tests/test_product.py` trains the valid ones and",
        "holds this page against the rules of mathematics.",
        "",
        "A number is an estimator that takes the pair, a dash a pair that is refused:",
        f"{', '.join(f'{i} `{name}`' for name, i in numbers.items())}.",
        "",
        f"| encoder | {' | '.join(PRIORS)} |",
        "|---" * (len(PRIORS) + 1) + "|",
        *(f"| {encoder} | {' | '.join(cells[prior, encoder] for prior in PRIORS)} |" for encoder in ENCODERS),
        "",
        "Any likelihood goes with any of them:",
        "",
        *(f"- {likelihood}" for likelihood in LIKELIHOODS),
        "",
        "A refusal comes before anything compiles, and says why and what to use:",
        "",
        *(f"- {prior} x {encoder} x {estimator}: {refusal(prior, encoder, estimator)}" for prior, encoder, estimator in REFUSED),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(accepted()), end="")
