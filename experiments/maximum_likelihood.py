r"""Maximum likelihood of a fully observed directed graph: to fit is to bring KL(data || model)
down, and SGD finds what counting finds.

    python experiments/maximum_likelihood.py

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

Measured by the command above on two cores of an Intel Xeon in 18 s, nats per example, with H(p_D) =
3.2815; the two sides of the identity differ by 4e-16 at most, since both add up the same
single-precision log p(x):

    model        numbers    log p(D) / N    KL(p_D || p)    at the counts
    tables       18         -3.3071         0.02562         0.02558
    logistic     15         -3.3682         0.08667
    no arrows    7          -3.5947         0.31325         0.31325
"""

import dataclasses
import itertools
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record
from matplotlib.figure import Figure

import vaejax
from vaejax import plots
from vaejax.base.checks import require_count
from vaejax.networks.layers import flat

PARENTS = {
    "a": (),
    "b": (),
    "c": ("a",),
    "d": ("a", "b"),
    "e": ("b",),
    "f": ("c", "d"),
    "g": ("d", "e"),
}
COLOURS = {"tables": plots.BLUE, "logistic": plots.ORANGE, "no arrows": plots.GREY}


@dataclasses.dataclass(frozen=True)
class Config:
    """Data from a random graph of tables, and three models fitted to it by SGD, whose rate falls to
    zero along a cosine.
    """

    num_examples: int = 2_000
    num_steps: int = 2_000
    batch_size: int = 50
    rate: float = 1.0
    """At the start, on the mean log-likelihood, whose curvature in a logit is 1/4 at most."""
    record_every: int = 5
    spread: float = 1.5
    """Standard deviation of the logits of the graph that generates the data."""
    seed: int = 0
    out: str = "runs/maximum_likelihood"
    """The folder for result.json, graph.png and likelihood.png."""


@vaejax.component
class Table:
    """One free logit for each state of so many binary parents."""

    num_parents: int

    def init(self, key, example):
        return jnp.zeros((2,) * self.num_parents)

    def apply(self, params, example):
        state = flat(example).astype(int) if self.num_parents else ()
        return params[tuple(state)][None]


def graph_of(
    parents: dict[str, tuple[str, ...]], net=lambda names: Table(len(names))
) -> vaejax.DirectedGraph:
    """A graph of binary nodes, each of shape [1], with a factor Bernoulli(net)."""
    return vaejax.DirectedGraph(
        tuple(
            vaejax.Node(name, vaejax.Bernoulli(net(names)), names)
            for name, names in parents.items()
        )
    )


def logistic(names: tuple[str, ...]):
    """sigmoid(w . parents + b)."""
    return vaejax.MLP(1, hidden=()) if names else Table(0)


MODELS = {
    "tables": graph_of(PARENTS),
    "logistic": graph_of(PARENTS, logistic),
    "no arrows": graph_of(dict.fromkeys(PARENTS, ())),
}


def log_likelihood(graph: vaejax.DirectedGraph, params: vaejax.Params, x, key):
    """log p(x) of one example with a value for every node, nats. Nothing is inferred and nothing
    drawn: neither phi nor the key is used.
    """
    return graph(params.theta).log_prob(x)


def states_of(names) -> dict[str, np.ndarray]:
    """{node: [2^n, 1]}, every state of n binary nodes."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=len(names))), np.float32)
    return {name: states[:, i : i + 1] for i, name in enumerate(names)}


def data_distribution(data: dict[str, np.ndarray]) -> np.ndarray:
    """p_D of every state, in the order of `states_of`."""
    place = np.ravel_multi_index([x[:, 0].astype(int) for x in data.values()], (2,) * len(data))
    return np.bincount(place, minlength=2 ** len(data)) / len(place)


@partial(jax.jit, static_argnames="graph")
def log_probs(graph: vaejax.DirectedGraph, params, states) -> jax.Array:
    return jax.vmap(lambda x: graph(params).log_prob(x))(states)


def divergence(p: np.ndarray, log_q) -> float:
    """KL(p || q) = sum_x p(x) (log p(x) - log q(x)), nats, over the states that have mass."""
    there = p > 0
    return float(np.sum(p[there] * (np.log(p[there]) - np.asarray(log_q, np.float64)[there])))


def entropy(p: np.ndarray) -> float:
    """H(p) = -sum_x p(x) log p(x), nats."""
    return -float(np.sum(p[p > 0] * np.log(p[p > 0])))


def counted(graph: vaejax.DirectedGraph, data: dict[str, np.ndarray]) -> dict:
    """The maximum of the likelihood of tables: of each node, for each state of its parents, the
    log-odds of the counts.
    """
    params = {}
    for node in graph.nodes:
        counts = np.zeros((2,) * (len(node.parents) + 1))
        np.add.at(
            counts, tuple(data[name][:, 0].astype(int) for name in (*node.parents, node.name)), 1
        )
        if not counts.all():
            raise ValueError(
                f"{node.name!r} lacks one of its values at some state of its parents, so its"
                " log-odds are infinite; more examples"
            )
        params[node.name] = jnp.asarray(np.log(counts[..., 1]) - np.log(counts[..., 0]))
    return params


def sampled(config: Config, key) -> dict[str, np.ndarray]:
    """The data: ancestral samples of a graph of tables with random logits."""
    logits_key, sample_key = jax.random.split(key)
    graph = MODELS["tables"]
    leaves, structure = jax.tree.flatten(graph.init(key))
    keys = jax.random.split(logits_key, len(leaves))
    logits = [
        config.spread * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    joint = graph(structure.unflatten(logits))
    samples = jax.jit(jax.vmap(joint.sample))(jax.random.split(sample_key, config.num_examples))
    return {name: np.asarray(samples[name]) for name in PARENTS}


def fitted(
    config: Config, graph: vaejax.DirectedGraph, data: dict[str, np.ndarray], key
) -> list[tuple[int, dict]]:
    """[(step, parameters)] to the last step: SGD on the N/M-scaled gradient of log p(D), so the
    rate is divided by N.
    """
    init_key, fit_key = jax.random.split(key)
    params = vaejax.Params(theta=graph.init(init_key), phi=())
    path = [(0, jax.device_get(params.theta))]

    def record(run):
        if run.step % config.record_every == 0 or run.step == config.num_steps:
            path.append((run.step, jax.device_get(run.params.theta)))

    rate = optax.cosine_decay_schedule(config.rate / config.num_examples, config.num_steps)
    vaejax.fit(
        vaejax.minibatch(partial(log_likelihood, graph), dataset_size=config.num_examples),
        params,
        optax.sgd(rate),
        data,
        fit_key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        # a compiled call ends there, so that `record` sees it
        checkpoint_every=config.record_every,
        callback=record,
        progress=False,
    )
    return path


def along(
    graph: vaejax.DirectedGraph, path: list, data: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Along a run, nats: the mean log-likelihood, from the examples, and KL(p_D || p), from all
    states.
    """
    p, states = data_distribution(data), states_of(PARENTS)
    mean = [
        float(np.mean(np.asarray(log_probs(graph, params, data), np.float64))) for _, params in path
    ]
    kl = [divergence(p, log_probs(graph, params, states)) for _, params in path]
    return {
        "step": np.array([step for step, _ in path]),
        "log_likelihood": np.array(mean),
        "kl": np.array(kl),
    }


def figure_of(curves: dict[str, dict], h: float, optimum: dict[str, float]) -> Figure:
    """Left: the two sides of the identity for the tables. Right: KL(p_D || p) of the three models,
    with the closed forms.
    """
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    tables = curves["tables"]
    left.plot(tables["step"], -tables["log_likelihood"], color=plots.ORANGE, label="−log p(D) / N")
    left.plot(tables["step"], tables["kl"], color=plots.BLUE, label="KL(data ‖ model)")
    left.plot(
        tables["step"],
        -tables["log_likelihood"] - tables["kl"],
        color=plots.INK,
        ls="--",
        label="their difference",
    )
    left.annotate(
        f"H(data) = {h:.4f}",
        (tables["step"][-1], h),
        (0, -13),
        textcoords="offset points",
        ha="right",
        color=plots.INK,
    )
    left.set(
        xlabel="step of SGD",
        ylabel="nats per example",
        title="free tables: one falls as the other does",
        ylim=(0, None),
    )
    left.legend(frameon=False, loc="center", bbox_to_anchor=(0.6, 0.35))
    for name, curve in curves.items():
        right.plot(curve["step"], curve["kl"], color=COLOURS[name], label=name)
        if name in optimum:
            right.axhline(optimum[name], color=COLOURS[name], ls=":", lw=1.2)
            right.annotate(
                f"counts: {optimum[name]:.4f}", (1, optimum[name]), (-2, -13), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", color=plots.INK, fontsize=9,
            )  # fmt: skip
    right.set(ylim=(0.7 * min(optimum.values()), None))
    right.set(
        xlabel="step of SGD",
        ylabel="KL(data ‖ model), nats",
        yscale="log",
        title="what each model keeps",
    )
    right.legend(frameon=False, loc="upper right")
    for axes in (left, right):
        axes.set_xscale("symlog", linthresh=10, linscale=0.5)
        axes.set_xlim(0, tables["step"][-1])
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def table(rows: list[dict]) -> str:
    lines = [
        "| model | numbers | log p(D) / N | KL(data ‖ model) | KL at the counts |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        best = "" if row["kl_at_counts"] is None else f"{row['kl_at_counts']:.5f}"
        lines.append(
            f"| {row['model']} | {row['numbers']} | {row['log_likelihood']:.4f} | {row['kl']:.5f} |"
            f" {best} |"
        )
    return "\n".join(lines)


def main(config: Config) -> dict:
    for name in ("num_examples", "num_steps", "batch_size", "record_every"):
        require_count(getattr(config, name), name)
    began = time.perf_counter()
    data_key, *keys = jax.random.split(jax.random.key(config.seed), 1 + len(MODELS))
    data = sampled(config, data_key)
    p, states = data_distribution(data), states_of(PARENTS)
    h, rows, curves, optimum = entropy(p), [], {}, {}
    for (name, graph), key in zip(MODELS.items(), keys, strict=True):
        if name != "logistic":
            optimum[name] = divergence(p, log_probs(graph, counted(graph, data), states))
        path = fitted(config, graph, data, key)
        curves[name] = along(graph, path, data)
        rows.append(
            {
                "model": name,
                "numbers": sum(leaf.size for leaf in jax.tree.leaves(path[-1][1])),
                "log_likelihood": float(curves[name]["log_likelihood"][-1]),
                "kl": float(curves[name]["kl"][-1]),
                "kl_at_counts": optimum.get(name),
            }
        )
    worst = max(
        float(np.abs(curve["log_likelihood"] + curve["kl"] + h).max()) for curve in curves.values()
    )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    plots.graph(MODELS["tables"], observed=tuple(PARENTS)).savefig(out / "graph.png", dpi=150)
    figure_of(curves, h, optimum).savefig(out / "likelihood.png", dpi=150)
    print(table(rows))
    print(
        f"entropy of the data {h:.4f} nats; log p(D) / N + KL differs from minus that by"
        f" {worst:.1e} at most, at any recorded step"
    )
    result = {
        "rows": rows,
        "entropy": h,
        "worst_error_of_identity": worst,
        "seconds": round(time.perf_counter() - began, 1),
    }
    record(out, config, **result)
    return result | {"out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
