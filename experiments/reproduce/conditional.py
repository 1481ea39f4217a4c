"""The label-conditional IWAE of nbip/IWAE (tasks/task04.py) on dynamically binarised MNIST.

    python -m experiments.reproduce.conditional --row ciwae-5 --data-folder FOLDER

log p(x | y) of an image x with label y: the prior p(z | y), the likelihood p(x | z, y) and the
encoder q(z | x, y) are each shown the label, one-hot. 100 latents; tanh nets of two layers of 200.
"""

import dataclasses

import jax
import numpy as np

import vaejax
from experiments.lib.burda import (
    NOT_FAR,
    SHAPE,
    VALID,
    glorot_uniform,
    iwae,
    normal,
    with_mean_image,
)
from experiments.lib.reproduce import run_table
from experiments.lib.reproduction import Goal, Published, Table
from experiments.lib.trained_row import TrainedRow, Training
from experiments.lib.training import cosine_adam
from vaejax import DirectedGraph, Node

SOURCE = "README of nbip/IWAE, its own runs"
CLASSES = 10
LATENTS = 100


@vaejax.component
class WithLabel(vaejax.Transform):
    """{"x": a stored image, "y": its label one-hot}, the image as `pixels` has it."""

    pixels: vaejax.Transform

    def __call__(self, stored, key):
        return {"x": self.pixels(stored["x"], key), "y": stored["y"]}

    def check(self, stored, support, name):
        self.pixels.check(stored["x"], support["x"], name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditional(TrainedRow):
    """p(x | y) = E_p(z | y) p(x | z, y)."""

    estimator: vaejax.Estimator
    num_steps: int = 200_000
    batch_size: int = 500
    learning_rate: float = 2e-3
    reached: Goal | None = NOT_FAR

    def model(self) -> vaejax.GraphModel:
        prior = Node("z", normal(vaejax.MLP(LATENTS, heads=2)), "y")
        pixels = Node("x", vaejax.Bernoulli(vaejax.MLP(SHAPE)), ("z", "y"))
        encoder = normal(vaejax.MLP(LATENTS, heads=2))  # shown x and y
        return vaejax.GraphModel(DirectedGraph((prior, pixels), inputs=("y",)), encoder)

    def data(self, work) -> tuple[dict, dict, vaejax.Transform]:
        """Training and test examples, and what makes an example of a stored one."""
        dataset, transform = vaejax.prepare_pixels(work.dataset("mnist", valid=VALID), "dynamic")
        train, test = labelled(dataset.train), labelled(dataset.test)
        return train, test, WithLabel(transform)

    def training(self, work, seed):
        train, _, transform = self.data(work)
        model, steps = self.model(), work.steps(self.num_steps)
        init_key, fit_key = jax.random.split(jax.random.key(seed))
        return Training(
            vaejax.minibatch(self.estimator, model),
            start(model, train, init_key),
            cosine_adam(self.learning_rate, steps),
            train,
            fit_key,
            steps,
            self.batch_size,
            transform,
        )

    def evaluated(self, work, params):
        _, test, transform = self.data(work)
        return work.evaluation(self.model(), params, test, transform)


def labelled(split) -> dict[str, np.ndarray]:
    return {"x": split.images, "y": np.eye(CLASSES, dtype=np.float32)[split.labels]}


def start(model: vaejax.GraphModel, train: dict, key) -> vaejax.Params:
    """Glorot's weights, and the mean image."""
    init_key, x_key, z_key, phi_key = jax.random.split(key, 4)
    example = {"x": np.zeros(SHAPE, np.float32), "y": train["y"][0]}
    params = model.init(init_key, example)
    decoder = glorot_uniform(params.theta["x"], x_key)
    theta = {
        "x": with_mean_image(decoder, train["x"], 255),
        "z": glorot_uniform(params.theta["z"], z_key, heads=2),
    }
    return params._replace(theta=theta, phi=glorot_uniform(params.phi, phi_key, heads=2))


NOTE = """Here Adam has batches of 500 and a rate of 2e-3 that falls along a cosine, where nbip has
batches of 20 and 3,280 epochs; 59,600 training images are binarised at every access, where nbip
binarises 60,000 once an epoch."""

TABLE = Table(
    "conditional",
    "nbip/IWAE: an importance-weighted autoencoder of images given their labels",
    rows=(
        Conditional(
            name="ciwae-1",
            published=Published(82.32, "nats", SOURCE),
            estimator=iwae(1),
            num_seeds=3,
        ),
        Conditional(
            name="ciwae-5",
            published=Published(81.41, "nats", SOURCE),
            estimator=iwae(5),
            num_seeds=3,
            versus=("ciwae-1",),
        ),
    ),
    note=NOTE,
    columns={"active_units": "active units", "elbo": "ELBO"},
)

if __name__ == "__main__":
    run_table("conditional")
