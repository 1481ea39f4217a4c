r"""Maximum likelihood of a fully observed directed graph: to fit is to bring KL(data || model)
down, and SGD finds what counting finds.

    python experiments/graphs/maximum_likelihood.py

With every node observed nothing is to be inferred: log p(D) = sum_i log p(x_i) is a sum of terms of
one node each, and its gradient on a minibatch, scaled by N / M, is unbiased. For the data's own
distribution p_D, with weight 1/N on each example,

    (1/N) log p(D) + KL(p_D || p) = sum_x p_D(x) log p_D(x) = -H(p_D),

whatever the parameters. Seven binary nodes have 128 states, so both sides are exact. Where every
factor is a free table, a parameter for each state of the parents, the maximum is known: the
relative frequencies. Three models are fitted to the same data, which a graph with the same arrows
generated: those free tables; logistic regressions on the parents, one number for each arrow; and
tables without arrows.

Expected: the sum above is one constant along all runs; SGD on tables ends at the frequencies; of
three nodes with two parents each a logistic regression cannot say how the parents interact, and
without arrows the nodes are independent, so both keep a KL to the data.

Measured, nats per example, with H(p_D) = 3.2815; the two sides of the identity differ by 4e-16 at
most, since both add up the same single-precision log p(x):

    model        numbers    log p(D) / N    KL(p_D || p)    at the counts
    tables       18         -3.3071         0.02562         0.02558
    logistic     15         -3.3682         0.08667
    no arrows    7          -3.5947         0.31325         0.31325

Duration: 18 s on two cores of an Intel Xeon.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.script import Report, run_script
from vaejax import plots
from vaejax.base.fields import Count, Positive
from vaejax.runs.config import TrainSize

PARENTS = {
    "a": (),
    "b": (),
    "c": ("a",),
    "d": ("a", "b"),
    "e": ("b",),
    "f": ("c", "d"),
    "g": ("d", "e"),
}
SPREAD = 1.5  # the standard deviation of the logits of the graph that generates the data
COLOURS = {"tables": plots.BLUE, "logistic": plots.ORANGE, "no arrows": plots.GREY}


@dataclasses.dataclass(frozen=True)
class Config(flags.Trained):
    """Data from a random graph of tables, and three models fitted to it by SGD, whose rate falls to
    zero along a cosine: of the mean log-likelihood the curvature in a logit is 1/4 at most.
    """

    num_examples: flags.NumExamples = 2_000
    batch_size: TrainSize = 50
    learning_rate: Positive = 1.0
    record_every: Count = 5
    """Steps from one point of the curves to the next."""
    out: str = "runs/maximum_likelihood"

    def check_together(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, most in (("batch_size", "num_examples"), ("record_every", "num_steps")):
            if sizes[name] > sizes[most]:
                raise ValueError(
                    f"{name} = {sizes[name]}; it must be at most {most} = {sizes[most]}"
                )


# The models.


def table_of(names: tuple[str, ...]):
    """A number for each state of the parents."""
    return vaejax.Table(1, (2,) * len(names))


def logistic(names: tuple[str, ...]):
    """sigmoid(w . parents + b)."""
    return vaejax.MLP(1, hidden=()) if names else table_of(names)


def binary_graph(parents: dict[str, tuple[str, ...]], net=table_of) -> vaejax.DirectedGraph:
    """A graph of binary nodes, each of shape [1], with a factor Bernoulli(net)."""
    nodes = (
        vaejax.Node(name, vaejax.Bernoulli(net(names)), names) for name, names in parents.items()
    )
    return vaejax.DirectedGraph(tuple(nodes))


MODELS = {
    "tables": binary_graph(PARENTS),
    "logistic": binary_graph(PARENTS, logistic),
    "no arrows": binary_graph(dict.fromkeys(PARENTS, ())),
}


def log_likelihood(graph: vaejax.DirectedGraph, params: vaejax.Params, x, key):
    """log p(x) of one example, every node observed, nats; nothing is inferred or drawn."""
    return graph(params.theta).log_prob(x)


@partial(jax.jit, static_argnames="graph")
def log_probs(graph: vaejax.DirectedGraph, params, states) -> jax.Array:
    return jax.vmap(lambda x: graph(params).log_prob(x))(states)


# The distribution of the data, and what is exact.

# {node: [128, 1]}: every state of the seven nodes, in the order of their binary numbers.
BITS = np.indices((2,) * len(PARENTS)).reshape(len(PARENTS), -1, 1).astype(np.float32)
STATES = dict(zip(PARENTS, BITS, strict=True))


def counts(data: dict[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """[2, ..., 2], an axis for each node: how many examples have each state of these nodes."""
    table = np.zeros((2,) * len(tuple(names)))
    np.add.at(table, tuple(data[name][:, 0].astype(int) for name in names), 1)
    return table


def data_distribution(data: dict[str, np.ndarray]) -> np.ndarray:
    """p_D of each of `STATES`."""
    table = counts(data, tuple(data)).ravel()
    return table / table.sum()


def divergence(p: np.ndarray, log_q) -> float:
    """KL(p || q) = sum_x p(x) (log p(x) - log q(x)), nats, over the states that have mass."""
    there = p > 0
    return float(np.sum(p[there] * (np.log(p[there]) - np.asarray(log_q, np.float64)[there])))


def counted(graph: vaejax.DirectedGraph, data: dict[str, np.ndarray]) -> dict:
    """The most likely tables: the log-odds of the counts, for each state of the parents."""
    params = {}
    for node in graph.nodes:
        table = counts(data, (*node.parents, node.name))
        if not table.all():
            raise ValueError(
                f"{node.name!r} lacks one of its values at some state of its parents, so its"
                " log-odds are infinite; more examples"
            )
        log_odds = np.log(table[..., 1:]) - np.log(table[..., :1])
        params[node.name] = {"logits": jnp.asarray(log_odds)}
    return params


def sampled(config: Config, key) -> dict[str, np.ndarray]:
    """The data: ancestral samples of a graph of tables with random logits."""
    logits_key, sample_key = jax.random.split(key)
    graph = MODELS["tables"]
    logits = optax.tree.random_like(logits_key, graph.init(key))
    joint = graph(optax.tree.scale(SPREAD, logits))
    samples = jax.jit(jax.vmap(joint.sample))(jax.random.split(sample_key, config.num_examples))
    return {name: np.asarray(samples[name]) for name in PARENTS}


# The fit.


class Curve(NamedTuple):
    """Along a run, nats: the mean log-likelihood of the examples; KL(p_D || p) by all states."""

    step: np.ndarray
    log_likelihood: np.ndarray
    kl: np.ndarray


def fitted(config: Config, graph: vaejax.DirectedGraph, data: dict[str, np.ndarray], key) -> Curve:
    """By SGD on the N/M-scaled gradient of log p(D), so the rate is divided by N."""
    init_key, fit_key = jax.random.split(key)
    start, p = vaejax.Params(graph.init(init_key), ()), data_distribution(data)

    def point(step: int, theta: dict) -> tuple[int, float, float]:
        log_likelihood = np.mean(np.asarray(log_probs(graph, theta, data), np.float64))
        return step, float(log_likelihood), divergence(p, log_probs(graph, theta, STATES))

    points = [point(0, start.theta)]

    def record(run):
        if run.step % config.record_every == 0 or run.step == config.num_steps:
            points.append(point(run.step, run.params.theta))

    objective = vaejax.minibatch(
        partial(log_likelihood, graph), support=graph.support, dataset_size=config.num_examples
    )
    rate = optax.cosine_decay_schedule(config.learning_rate / config.num_examples, config.num_steps)
    vaejax.fit(
        objective,
        start,
        optax.sgd(rate),
        data,
        fit_key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        # A compiled call ends at a validation, so that `record` sees those steps.
        validation=vaejax.Validation(data, every=config.record_every),
        callbacks=(record,),
        progress=False,
    )
    return Curve(*np.array(points).T)


# What is reported.


def figure(curves: dict[str, Curve], entropy: float, optimum: dict[str, float]) -> Figure:
    """Left: the identity, for the tables. Right: KL(p_D || p), with the closed forms."""
    drawing, [[left, right]] = plots.figure_of(columns=2, size=(10.5, 4.2))
    step, log_likelihood, kl = curves["tables"]
    left.plot(step, -log_likelihood, color=plots.ORANGE, label="−log p(D) / N")
    left.plot(step, kl, color=plots.BLUE, label="KL(data ‖ model)")
    left.plot(step, -log_likelihood - kl, color=plots.INK, ls="--", label="their difference")
    figures.note(left, f"H(data) = {entropy:.4f}", (step[-1], entropy), (0, -13), ha="right")
    for name, curve in curves.items():
        right.plot(curve.step, curve.kl, color=COLOURS[name], label=name)
    for name, least in optimum.items():
        right.axhline(least, color=COLOURS[name], ls=":", lw=1.2)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "fontsize": 9}
        figures.note(right, f"counts: {least:.4f}", (1, least), (-2, -13), **place)
    for axes in (left, right):
        plots.finish(axes, xlabel="step of SGD")
        axes.set_xscale("symlog", linthresh=10, linscale=0.5)
        axes.set_xlim(0, step[-1])
    left.set(ylabel="nats per example", ylim=(0, None))
    left.set(title="free tables: one falls as the other does")
    plots.legend(left, "center", bbox_to_anchor=(0.6, 0.35))
    right.set(ylim=(0.7 * min(optimum.values()), None), ylabel="KL(data ‖ model), nats")
    right.set(yscale="log", title="what each model keeps")
    plots.legend(right, "upper right")
    return drawing


def experiment(config: Config) -> Report:
    data_key, *keys = jax.random.split(jax.random.key(config.seed), 1 + len(MODELS))
    data = sampled(config, data_key)
    p = data_distribution(data)
    entropy = -divergence(p, np.zeros(len(p)))
    optimum = {
        name: divergence(p, log_probs(MODELS[name], counted(MODELS[name], data), STATES))
        for name in ("tables", "no arrows")
    }
    curves, rows, errors = {}, [], []
    for (name, graph), key in zip(MODELS.items(), keys, strict=True):
        curve = curves[name] = fitted(config, graph, data, key)
        sizes = jax.tree.leaves(jax.eval_shape(graph.init, key))
        row = {"model": name, "numbers": sum(leaf.size for leaf in sizes)}
        row |= {"log_likelihood": curve.log_likelihood[-1], "kl": curve.kl[-1]}
        rows.append(row | {"kl_at_counts": optimum.get(name)})
        errors.append(np.abs(curve.log_likelihood + curve.kl + entropy).max())
    shown = [
        row | {"at_counts": f"{optimum[name]:.5f}" if (name := row["model"]) in optimum else ""}
        for row in rows
    ]
    header = "model | numbers | log p(D) / N | KL(data ‖ model) | KL at the counts"
    line = "{model} | {numbers} | {log_likelihood:.4f} | {kl:.5f} | {at_counts}"
    identity = (
        f"entropy of the data {entropy:.4f} nats; log p(D) / N + KL differs from minus that by"
        f" {max(errors):.1e} at most, at any recorded step"
    )
    return Report(
        {"rows": rows, "entropy": entropy, "worst_error_of_identity": max(errors)},
        f"{tables.table(header, line, shown)}\n{identity}",
        {
            "graph": lambda: plots.graph(MODELS["tables"], observed=tuple(PARENTS)),
            "likelihood": lambda: figure(curves, entropy, optimum),
        },
    )


if __name__ == "__main__":
    run_script(Config, experiment)
