r"""A generative model as a classifier, against a discriminative one, by the number of labels.

    python experiments/graphs/generative_classifier.py
    python experiments/graphs/generative_classifier.py --binarisation none \
        --out runs/generative_grey

Bayes' rule, p(y | x) proportional to p(y) p(x | y), in four classifiers: two pairs of equal size.

    conditional VAE    p(y) int p(z) p(x | z, y) dz, by importance sampling
                       against an MLP, p(y | x)
    naive Bayes        p(y) prod_i p(x_i | y), exact
                       against logistic regression, p(y | x)

The two of a pair see the same labelled images (equally many of each class) and maximise the mean of
log p(x, y), its ELBO, or log p(y | x). They have the same prior N(0, I / decay) on all weights, the
same optimiser, steps and batches. There is no early stopping and no tuning.

log p(x, y) of the VAE is the mean of the weights of two independent halves of the importance
samples. Half the difference of the halves' estimates is the standard error that is reported, as its
root mean square over test images and classes, and so for the probability of the true class;
`changed` is the part of the test images that the halves would put into different classes.

Expected: the generative one of a pair ahead with few labels, the discriminative one with many (Ng &
Jordan 2002). Measured by the first command, test accuracy in %, mean over four seeds:

    labels  conditional VAE  MLP          lead         naive Bayes  logistic     lead
    10      44.0 +- 3.1      51.0 +- 3.6  -7.0 +- 2.4  53.1 +- 2.8  52.5 +- 4.0  +0.6 +- 1.7
    100     82.6 +- 1.3      80.1 +- 1.3  +2.5 +- 0.3  78.8 +- 1.4  80.4 +- 1.5  -1.6 +- 1.3
    1,000   92.8 +- 0.5      92.0 +- 0.5  +0.8 +- 0.5  83.5 +- 0.4  90.2 +- 0.6  -6.8 +- 0.6
    1,297   93.2 +- 0.2      92.8 +- 0.2  +0.3 +- 0.4  84.8 +- 0.2  90.7 +- 0.0  -5.8 +- 0.2

The simple pair is as expected at its right end: where naive Bayes is wrong, many labels show it.
Neither pair has the generative one ahead at 10 labels by more than its error; the VAE, whose model
of an image is not wrong, is ahead at 100 and falls level.

Duration: 78 s on two cores of an Intel Xeon.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.classifiers import Network, check_labels, labelled_rows, with_weight_prior
from experiments.lib.data import drawn, require_labels, seen_split
from experiments.lib.script import Report, run_script, tell
from experiments.lib.training import fitted
from vaejax import plots
from vaejax.base.fields import Count, Positive
from vaejax.data.base import Split
from vaejax.runs.build import load_data
from vaejax.runs.config import require_seeds

PAIRS = {"conditional VAE": "MLP", "naive Bayes": "logistic regression"}


@dataclasses.dataclass(frozen=True)
class Config(flags.ImageSetting):
    """Two pairs of classifiers, and the labels that they learn from: each seed draws its own, the
    same for all. The images are binarised once; "none" leaves them grey, and the pixels are
    continuous Bernoulli.
    """

    label_counts: flags.LabelCounts = (10, 100, 1_000, 0)
    latent_dim: flags.LatentDim = 4
    hidden: tuple[Count, ...] = (64,)
    decay: flags.Decay = 1.0
    num_steps: Count = 1_000
    learning_rate: Positive = 1e-2
    eval_samples: flags.EvalSamples = 100
    num_seeds: flags.NumSeeds = 4
    eval_size: flags.EvalSize = None
    out: str = "runs/generative_classifier"

    def check_together(self) -> None:
        require_seeds(self.seed, self.num_seeds)
        if self.eval_samples % 2:
            raise ValueError(
                f"eval_samples = {self.eval_samples}; it must be even, for it is halved"
            )


# The classifiers: the bound of one labelled example {"x": image, "y": one-hot}, and log p(x, y) or
# log p(y | x) of every class y.


@vaejax.component
class Classifier:
    """`init(key, example)`; `bound(params, example, key)`; `scores(params, x, key)` [2, c]: two
    estimates, equal where exact.
    """

    init: Callable
    bound: Callable
    scores: Callable


def classifier(config: Config, name: str, shape: tuple[int, ...], num_classes: int) -> Classifier:
    y = vaejax.Node("y", vaejax.OneHotCategorical(vaejax.Free(num_classes, ("logits",))))
    if name == "conditional VAE":
        x = vaejax.Node("x", config.pixels(vaejax.MLP(shape, config.hidden)), ("z", "y"))
        z = vaejax.Node("z", vaejax.StandardNormal(config.latent_dim))
        encoder = vaejax.DiagNormal(vaejax.MLP(config.latent_dim, config.hidden, heads=2))
        graph = vaejax.DirectedGraph((y, z, x))
        model = vaejax.GraphModel(graph, encoder, observed=("x", "y"))
        scores = partial(sampled_scores, model, num_classes, config.eval_samples)
        return Classifier(model.init, partial(vaejax.Pathwise(), model), scores)
    if name == "naive Bayes":
        x = vaejax.Node("x", config.pixels(vaejax.MLP(shape, ())), "y")
        graph = vaejax.DirectedGraph((y, x))
        functions = (init_graph, log_joint, exact_scores)
        return Classifier(*(partial(function, graph) for function in functions))
    hidden = config.hidden if name == "MLP" else ()
    net = vaejax.OneHotCategorical(vaejax.MLP(num_classes, hidden))
    return Classifier(Network(net).init, Network(net), partial(net_scores, net))


def sampled_scores(
    model: vaejax.GraphModel, num_classes: int, num_samples: int, params: vaejax.Params, x, key
) -> jax.Array:
    """log p(x, y) of each class, nats, by either half of the importance samples."""

    def log_marginal(y, key):
        return vaejax.log_marginal(model, params, {"x": x, "y": y}, key, num_samples // 2)

    keys = jax.random.split(key, (2, num_classes))
    return jax.vmap(jax.vmap(log_marginal), (None, 0))(jnp.eye(num_classes), keys)


def init_graph(graph: vaejax.DirectedGraph, key, example) -> vaejax.Params:
    return vaejax.Params(graph.init(key, None, example), ())


def log_joint(graph: vaejax.DirectedGraph, params: vaejax.Params, example, key):
    """log p(x, y), nats."""
    return graph(params.theta).log_prob(example)


def exact_scores(graph: vaejax.DirectedGraph, params: vaejax.Params, x, key) -> jax.Array:
    """log p(x, y) of each class, nats, twice."""
    _, table = graph(params.theta).log_marginals({"x": x}, "y")
    return jnp.stack([table, table])


def net_scores(net: vaejax.OneHotCategorical, params: vaejax.Params, x, key) -> jax.Array:
    """log p(y | x) of each class, nats, twice."""
    log_p = jax.nn.log_softmax(net.logits(params.phi, x))
    return jnp.stack([log_p, log_p])


# Training and evaluation.


def trained(
    config: Config, classifier: Classifier, data: dict[str, np.ndarray], key
) -> vaejax.Params:
    size = len(data["x"])
    init_key, fit_key = jax.random.split(key)
    params = classifier.init(init_key, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data))
    objective = vaejax.minibatch(
        partial(with_weight_prior, classifier.bound, config.decay, size),
        support={"x": config.pixels.support, "y": vaejax.OneHotCategorical.support},
    )
    return fitted(config, objective, params, data, fit_key, progress=False)


def measured(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Of scores [n, 2, c]: accuracy and mean log p(y | x), and what the sampling does to them."""
    scores = np.asarray(scores, np.float64)
    # log p(x, y), and log 2, which normalising takes away
    log_joint = np.logaddexp.reduce(scores, axis=1)
    log_p = log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True)
    row = np.arange(len(labels))
    # p(y | x) of the true class by each half, [n, 2]
    by_half = np.exp(scores - np.logaddexp.reduce(scores, axis=2, keepdims=True))[row, :, labels]
    first, second = scores[:, 0], scores[:, 1]

    def error(first, second) -> float:
        return float(np.sqrt(np.mean((first - second) ** 2))) / 2

    return {
        "accuracy": float(np.mean(log_p.argmax(1) == labels)),
        "log_class": float(np.mean(log_p[row, labels])),
        "error_of_log_joint": error(first, second),
        "error_of_probability": error(*by_half.T),
        "changed": float(np.mean(first.argmax(1) != second.argmax(1))),
    }


def compare(config: Config, train: Split, test: Split, names: tuple[str, ...]) -> list[dict]:
    """A row for each number of labels, classifier and seed; each seed has labels of its own."""
    rows, labels = [], np.asarray(train.labels)
    one_hot = np.eye(int(labels.max()) + 1, dtype=np.float32)
    for number in config.label_counts:
        for seed in range(config.seed, config.seed + config.num_seeds):
            chosen = labelled_rows(labels, number, seed)
            data = {"x": train.images[chosen], "y": one_hot[labels[chosen]]}
            for name in names:
                member = classifier(config, name, data["x"].shape[1:], len(one_hot))
                fit_key, score_key = jax.random.split(jax.random.key(seed))
                params = trained(config, member, data, fit_key)
                scores = vaejax.map_dataset(member.scores, params, test.images, score_key)
                row = {"labels": len(chosen), "name": name, "seed": seed}
                rows.append(row | measured(scores, np.asarray(test.labels)))
        tell(f"{rows[-1]['labels']} labels")
    return rows


# What is reported.


def over_seeds(rows: list[dict], name: str, labels: int, quantity: str = "accuracy") -> np.ndarray:
    """What one classifier has with so many labels, for each seed."""
    return np.array(tables.columns(tables.where(rows, name=name, labels=labels), quantity)[0])


def lead(rows: list[dict], name: str, labels: int) -> vaejax.Estimate:
    """Its accuracy less that of its discriminative partner, paired by seed."""
    return vaejax.estimate(over_seeds(rows, name, labels) - over_seeds(rows, PAIRS[name], labels))


def table(rows: list[dict], numbers: list[int]) -> str:
    pairs = [
        {"labels": labels, "generative": generative, "discriminative": discriminative}
        | {"first": vaejax.estimate(over_seeds(rows, generative, labels))}
        | {"second": vaejax.estimate(over_seeds(rows, discriminative, labels))}
        | {"lead": lead(rows, generative, labels)}
        for generative, discriminative in PAIRS.items()
        for labels in numbers
    ]
    header = "labels | generative | accuracy | discriminative | accuracy | lead, paired"
    line = "{labels} | {generative} | {first:.1%} | {discriminative} | {second:.1%} | {lead:+.1%}"
    accuracies = tables.table(header, line, pairs)
    quantities = ("error_of_log_joint", "error_of_probability", "changed")
    errors = [
        {"labels": labels}
        | {name: over_seeds(rows, "conditional VAE", labels, name).mean() for name in quantities}
        for labels in numbers
    ]
    header = "labels | error of log p(x, y) (nats) | error of p(y given x), y true | class changed"
    line = "{labels} | {error_of_log_joint:.3f} | {error_of_probability:.4f} | {changed:.2%}"
    return f"{accuracies}\n\n{tables.table(header, line, errors)}"


def figure(rows: list[dict], numbers: list[int], title: str) -> Figure:
    """Accuracy against labels: colours for generative or discriminative, lines for pairs."""
    drawing, [[axes]] = plots.figure_of(size=(7, 4.4))
    styles = {"ls": "-"}, {"ls": "--", "marker": "s", "lw": 1.1, "alpha": 0.75}
    for pair, style in zip(PAIRS.items(), styles, strict=True):
        for name, colour, aside in zip(pair, (plots.BLUE, plots.ORANGE), (0.98, 1.02), strict=True):
            points = [
                {"x": n * aside, "percent": vaejax.estimate(100 * over_seeds(rows, name, n))}
                for n in numbers
            ]
            figures.curve(axes, points, "x", "percent", color=colour, label=name, **style)
    labels = {"xlabel": "labelled training images", "ylabel": "test accuracy (%)"}
    plots.finish(axes, grid=True, xscale="log", title=title, **labels)
    # The labels of close numbers would overlap in one line.
    close = {high for low, high in itertools.pairwise(numbers) if high < 1.5 * low}
    plots.ticks_at(axes, numbers, lambda number: "\n" * (number in close) + f"{number:,}")
    plots.legend(axes, "lower right", title="blue: generative, orange: discriminative")
    return drawing


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    labels, _ = require_labels(dataset, "to learn from")
    check_labels(dataset, labels, "label_counts", *config.label_counts)
    train_key, test_key, rows_key = jax.random.split(jax.random.key(config.seed), 3)
    train = seen_split(dataset.train, transform, train_key)
    test = seen_split(drawn(dataset.test, config.eval_size, rows_key), transform, test_key)
    rows = compare(config, train, test, (*PAIRS, *PAIRS.values()))
    numbers = list(dict.fromkeys(row["labels"] for row in rows))
    seeds = f"mean and standard error over {tables.seeds(config.num_seeds)}"
    heading = f"{seeds}, {len(test.images)} test images"
    leads = {name: {labels: lead(rows, name, labels) for labels in numbers} for name in PAIRS}
    return Report(
        {"data": dataset.source, "rows": rows},
        f"{heading}\n{table(rows, numbers)}",
        {"accuracy": lambda: figure(rows, numbers, f"{config.data}: {seeds}")},
        {"lead": leads},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
