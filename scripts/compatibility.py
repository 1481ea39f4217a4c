"""Which priors, encoders and estimators go together: tried, not asserted. Prints
docs/compatibility.md.

    python scripts/compatibility.py > docs/compatibility.md

The components here are also those of tests/test_product.py, which trains every valid combination
and holds this table against the rules that mathematics gives.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

import vaejax
from vaejax.runs import named_estimators

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
    "DiscretizedLogistic, 2 components": lambda: vaejax.DiscretizedLogistic(
        net(PIXELS, heads=6), 17
    ),
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
    "Pathwise": lambda: vaejax.Pathwise(2),
    "Pathwise of IWAE": lambda: vaejax.Pathwise(2, vaejax.iwae_bound),
    "Pathwise of MIWAE": lambda: vaejax.Pathwise(8, vaejax.MIWAEBound(1)),
    "Pathwise of CIWAE": lambda: vaejax.Pathwise(2, vaejax.CIWAEBound(0.05)),
    "PIWAE": lambda: vaejax.PIWAE(8, 1),
    "AnalyticKL": lambda: vaejax.AnalyticKL(2),
    "StickTheLanding": lambda: vaejax.StickTheLanding(2),
    "DReG": lambda: vaejax.DReG(2),
    "GeneralisedDReG": lambda: vaejax.GeneralisedDReG(2),
    "RWS": lambda: vaejax.RWS(4),
    "RWS, doubly reparameterised": lambda: vaejax.RWS(2, doubly_reparameterised=True),
    "TaylorControlVariate": lambda: vaejax.TaylorControlVariate(2),
    "MeasureValued": lambda: vaejax.MeasureValued(2),
    "ScoreFunction": lambda: vaejax.ScoreFunction(4),
    "ScoreFunction, learned baseline": lambda: vaejax.ScoreFunction(
        4, vaejax.LearnedBaseline(vaejax.MLP((), (8,)))
    ),
    "OptimalConstant": lambda: vaejax.OptimalConstant(4),
    "VIMCO": lambda: vaejax.VIMCO(4),
    "OVIS": lambda: vaejax.OVIS(4),
    "Enumerate": lambda: vaejax.Enumerate(),
    "Relaxed": lambda: vaejax.Relaxed(),
    "StraightThrough": lambda: vaejax.StraightThrough(),
    "DisARM": lambda: vaejax.DisARM(4),
    "DoubleControlVariate": lambda: vaejax.DoubleControlVariate(4),
    "REBAR": lambda: vaejax.REBAR(2),
    "RELAX": lambda: vaejax.RELAX(vaejax.MLP((), (8,)), 2),
}


@cache
@cache
def model_and_shapes(prior: str, encoder: str, likelihood: str) -> tuple[vaejax.VAE, vaejax.Params]:
    """A model, and the shapes of its parameters."""
    model = vaejax.VAE(PRIORS[prior](), LIKELIHOODS[likelihood](), ENCODERS[encoder]())
    return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(PIXELS))


def shapes_with_psi(estimator: str, model: vaejax.VAE, shapes: vaejax.Params) -> vaejax.Params:
    """The same with the shapes of what the estimator learns."""
    init = partial(ESTIMATORS[estimator]().init, model)
    psi = jax.eval_shape(init, shapes, jnp.zeros(PIXELS), jax.random.key(0))
    return shapes._replace(psi=psi)


def refusal(prior: str, encoder: str, estimator: str, likelihood: str = "Bernoulli") -> str | None:
    """The sentence with which a combination is refused, found by tracing it; None if it is not."""
    try:
        model, shapes = model_and_shapes(prior, encoder, likelihood)
        params = shapes_with_psi(estimator, model, shapes)
        jax.eval_shape(
            partial(ESTIMATORS[estimator](), model), params, jnp.zeros(PIXELS), jax.random.key(0)
        )
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
    return {
        (prior, encoder): [name for name in ESTIMATORS if refusal(prior, encoder, name) is None]
        for prior, encoder in pairs
    }


def with_name(estimator: str) -> str:
    """The estimator, and the name by which commands and experiments know it, where it has one."""
    value = ESTIMATORS[estimator]()
    names = [
        name
        for name, entry in named_estimators.ESTIMATORS.items()
        if value in [entry.build(number) for number in (2, 4, 8) if number in entry.number]
    ]
    return f"{estimator} (`{names[0]}`)" if names else estimator


def grouped(
    names: Iterable[str], partners: Callable[[str], tuple[str, ...]]
) -> dict[tuple[str, ...], list[str]]:
    """{partners: the names that have just these}, in the order of the names."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(partners(name), []).append(name)
    return groups


def table(
    left: str,
    right: str,
    groups: dict[tuple[str, ...], list[str]],
    label: Callable[[str], str] = str,
) -> list[str]:
    """The lines of a table with a row for each group, and in a cell a line for each name."""
    rows = [
        f"| {'<br>'.join(map(label, names))} | {'<br>'.join(partners)} |"
        for partners, names in groups.items()
    ]
    return [f"| {left} | {right} |", "|---|---|", *rows, ""]


def document(accepted: dict[tuple[str, str], list[str]]) -> str:
    """The page: which priors go with which encoders, which estimators with which of these, and what
    refusals say.
    """

    def priors_of(encoder: str) -> tuple[str, ...]:
        return tuple(prior for prior in PRIORS if accepted[prior, encoder])

    def priors_with(estimator: str, encoder: str) -> tuple[str, ...]:
        return tuple(p for p in priors_of(encoder) if estimator in accepted[p, encoder])

    def encoders_of(estimator: str) -> tuple[str, ...]:
        """Its encoders, each with the priors to which it is limited."""
        encoders = []
        for encoder in ENCODERS:
            priors = priors_with(estimator, encoder)
            limits = "" if priors == priors_of(encoder) else f" (with {' or '.join(priors)})"
            encoders += [encoder + limits] if priors else []
        return tuple(encoders)

    lines = [
        "# Which prior, encoder and estimator go together",
        "",
        "This page is the output of `python scripts/compatibility.py`, which tries every",
        "combination. `tests/test_product.py` compares it with the rules of mathematics, and",
        "trains valid combinations.",
        "",
        "A prior and an encoder go together if their latents live on the same set. Every",
        "likelihood goes with every such pair:",
        "",
        *table("encoder", "prior", grouped(ENCODERS, priors_of)),
        "An estimator goes with these encoders, and with every prior of an encoder unless some",
        "are named. In brackets is its name in commands and experiments:",
        "",
        *table("estimator", "encoder", grouped(ESTIMATORS, encoders_of), with_name),
        "The likelihoods:",
        "",
        *(f"- {likelihood}" for likelihood in LIKELIHOODS),
        "",
        "Other combinations are refused before anything compiles. The message says why, and what",
        "to use instead:",
        "",
        *(
            f"- {prior} x {encoder} x {estimator}: {refusal(prior, encoder, estimator)}"
            for prior, encoder, estimator in REFUSED
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(accepted()), end="")
