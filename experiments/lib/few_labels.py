"""M2 of Kingma et al. 2014: few labels and many images in one generative model.

p(y) p(z) p(x | y, z) with q(y | x) q(z | x, y), whose q(y | x) is the classifier. With L(x, y) the
ELBO of an image with its label and U(x) = sum_y q(y | x) [L(x, y) - log q(y | x)], M2 maximises

    sum_(all x) U(x) + sum_(labelled) [L(x, y) + alpha N/N_l log q(y | x)],

over N images, the N_l labelled ones among them. A row of the data is one image and one labelled
image, whose terms have the weight 1/(the number of rows with it): the sum over the rows is the one
above, so that a minibatch of rows, drawn uniformly, is unbiased for it, and each has as many
labelled images as others. A row has a labelled image of each of several draws of labels, and psi,
which nothing moves, says which draw is learnt from: so all draws are trained in one program.

How it starts decides what it becomes, for q(y | x) follows whatever differences L(x, y) has between
the classes. From LeCun's weights these are 5 nats for an image of MNIST (500 softplus units), and
mean nothing. From weights near 0 (`small`) they are 0.0004, so that the classifier can learn the
labels before p(x | y, z) tells the classes apart. For the latents of M1 that is enough. Of pixels
p(x | y, z) finds other clusters sooner, unless q(y | x) starts at what the labels alone say and is
held (`held_steps`) while p(x | y, z) learns from it what a class looks like. Seen on MNIST in
10,000 steps of 200 images (100 labels, one draw, 10,000 validation images), by a program of its
own: M2 errs in 58 % from weights near 0, and in 21 % where the classifier was held, which alone
errs in 25 %; M1+M2 in 12.3 % and 13.9 %. Hundreds of thousands of steps do the rest; see the note
of experiments/reproduce/semi_supervised.py.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from experiments.lib.training import cosine_adam
from vaejax import DirectedGraph, Node, OneHotCategorical, Params
from vaejax.base.types import Key, PyTree
from vaejax.bounds import stopped
from vaejax.estimators.base import mean_under
from vaejax.networks.base import Net


@vaejax.component
class Zeros:
    """A net that gives 0 for every example: as logits, equal probabilities."""

    out: int

    def init(self, key, example):
        return ()

    def apply(self, params, example):
        return jnp.zeros(self.out)


def m2(
    net: Callable[..., Net], latent_dim: int, num_classes: int, likelihood: Any
) -> vaejax.GraphModel:
    """p(y) p(z) p(x | y, z) with q(y | x) q(z | x, y), all classes equally probable; `net` makes
    the two of q, as `net(out, heads=2)`.
    """
    generative = DirectedGraph(
        (
            Node("y", OneHotCategorical(Zeros(num_classes))),
            Node("z", vaejax.StandardNormal(latent_dim)),
            Node("x", likelihood, ("z", "y")),
        )
    )
    steps = (
        Node("y", OneHotCategorical(net(num_classes)), "x"),
        Node("z", vaejax.DiagNormal(net(latent_dim, heads=2)), ("x", "y")),
    )
    return vaejax.GraphModel(generative, DirectedGraph(steps, inputs=("x",)))


def classifier(model: vaejax.GraphModel) -> OneHotCategorical:
    """q(y | x)."""
    assert model.named_latents is not None  # as `m2` made it
    conditional: Any = model.named_latents["y"].conditional
    return conditional


def start_of_m2(
    model: vaejax.GraphModel, example: PyTree, draw: np.ndarray, key: Key, phi_y: PyTree = None
) -> Params:
    """Weights near 0, but for q(y | x) where it has the parameters phi_y; `draw` is one-hot."""
    init_key, small_key = jax.random.split(key)
    params = small(model.init(init_key, example), small_key)
    phi = params.phi if phi_y is None else {**params.phi, "y": phi_y}
    return params._replace(phi=phi, psi=jnp.asarray(draw, jnp.float32))


def small(params: PyTree, key: Key, scale: float = 1e-3) -> PyTree:
    """Weights ~ N(0, scale^2) and biases of 0, in the place of these parameters."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return structure.unflatten(
        [weight if weight.ndim > 1 else jnp.zeros_like(weight) for weight in drawn]
    )


def adam_of_m2(
    learning_rate: float, num_steps: int, size: int, held_steps: int = 0
) -> optax.GradientTransformation:
    """Adam on the objective per image, of `size` images, with log N(params; 0, I) added; q(y | x)
    is held for the first steps.
    """
    prior = optax.add_decayed_weights(1 / size, mask=_all_but_psi)
    held = optax.scale_by_schedule(lambda step: jnp.where(jnp.less(step, held_steps), 0.0, 1.0))
    return optax.chain(
        prior, cosine_adam(learning_rate, num_steps), optax.masked(held, _the_classifier)
    )


def _all_but_psi(params: Params) -> Params:
    return jax.tree.map(lambda leaf: True, params)._replace(psi=False)


def _the_classifier(params: Params) -> Params:
    nothing = jax.tree.map(lambda leaf: False, params)
    return nothing._replace(phi={**nothing.phi, "y": True})


# The data.


def paired_rows(images: PyTree, chosen: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """{x, labelled, y, weight}: every image once, beside it a labelled one of each draw, whose
    weights sum to one over the rows.

    chosen: rows of the labelled images, [draws, N_l]; y: their labels, one-hot [draws, N_l, c].
    """
    turn = np.arange(len(jax.tree.leaves(images)[0])) % chosen.shape[1]
    weight = (1 / np.bincount(turn))[turn].astype(np.float32)
    rows = chosen[:, turn].T  # [n, draws]
    labelled = jax.tree.map(lambda leaf: leaf[rows], images)
    return {"x": images, "labelled": labelled, "y": y.swapaxes(0, 1)[turn], "weight": weight}


@vaejax.component
class BothImages:
    """A transform of images that takes each number by itself, for all images of a row."""

    transform: Callable

    def __call__(self, row: dict[str, Any], key: Key) -> dict[str, Any]:
        key, labelled_key = jax.random.split(key)
        x = self.transform(row["x"], key)
        return {**row, "x": x, "labelled": self.transform(row["labelled"], labelled_key)}


# The latents of M1.

LEAST_MOVE = 0.1


def m1_latents(model: vaejax.VAE, params: Params, *sets: np.ndarray) -> list[dict[str, np.ndarray]]:
    """{loc, scale} of q(z | x), [n, d] each, of some sets of images: of the dimensions whose loc
    has a standard deviation above `LEAST_MOVE` over the first set. The others tell nothing of x.

    They stay in M1's units, in which p(z) has variance 1: dimensions that tell little are short.
    """
    posterior: Any = jax.jit(jax.vmap(model.posterior, (None, 0)))
    densities = [posterior(params, images) for images in sets]
    moves = np.std(densities[0].loc, axis=0) > LEAST_MOVE
    return [
        {"loc": np.asarray(q.loc)[:, moves], "scale": np.exp(np.asarray(q.log_scale)[:, moves])}
        for q in densities
    ]


def around(latent: dict[str, jax.Array], key: Key) -> jax.Array:
    """x ~ N(loc, diag scale^2): a transform of stored latents."""
    return latent["loc"] + latent["scale"] * jax.random.normal(key, latent["loc"].shape)


# The objective.


@vaejax.component
class SemiSupervised(vaejax.Estimator):
    """U(x) + weight [L(x', y') + alpha N/N_l log q(y' | x')] of one row {x, labelled, y, weight},
    nats, x' and y' of the draw that psi says; its bound is without the last term.
    """

    alpha: float
    labelled_share: float  # N_l/N

    def __call__(self, model: Any, params, x, key):
        key, labelled_key = jax.random.split(key)
        labelled = elbo_of_class(model, params, labelled_example(params, x), labelled_key)
        return elbo_of_image(model, params, x["x"], key) + x["weight"] * labelled

    def terms(self, model: Any, params, x, key, step):
        bound = self(model, params, x, key)
        log_q = log_q_class(model, params, labelled_example(params, x))
        alpha = self.alpha / self.labelled_share
        return vaejax.Terms(bound, bound + x["weight"] * alpha * log_q)


def labelled_example(params: Params, row: dict[str, Any]) -> dict[str, Any]:
    """{x, y} of the row's labelled image of the draw in psi."""
    draw = stopped(params.psi)
    return {"x": jnp.tensordot(draw, row["labelled"], 1), "y": draw @ row["y"]}


def elbo_of_class(model: vaejax.GraphModel, params: Params, example, key):
    """L(x, y) of {x, y}, the KL of z in closed form."""
    return vaejax.KLByNode()(model.observe("y"), params, example, key)


def elbo_of_image(model: vaejax.GraphModel, params: Params, x, key):
    """U(x) = sum_y q(y | x) [L(x, y) - log q(y | x)]: the noise of z is the same in all classes, so
    that their differences have little of it.
    """
    log_q = jax.nn.log_softmax(classifier(model).logits(params.phi["y"], x))
    elbos = jax.vmap(lambda y: elbo_of_class(model, params, {"x": x, "y": y}, key))
    return mean_under(log_q, elbos(jnp.eye(len(log_q))) - log_q)


def log_q_class(model: vaejax.GraphModel, params: Params, example):
    """log q(y | x) of {x, y}, nats."""
    return classifier(model)(params.phi["y"], example["x"]).log_prob(example["y"])


def error(net: OneHotCategorical, params: PyTree, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose most probable class is not theirs."""
    logits = np.asarray(jax.jit(jax.vmap(net.logits, (None, 0)))(params, images))
    return float(np.mean(logits.argmax(axis=1) != labels))
