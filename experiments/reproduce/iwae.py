"""Burda, Grosse & Salakhutdinov 2016, table 1, on MNIST that is binarised afresh at every access.

    python -m experiments.reproduce.iwae
    python -m experiments.reproduce.iwae --row iwae-5 --seed 0 --data-folder FOLDER

One stochastic layer of 50 latents, or two of 100 and 50; tanh nets; the VAE's bound with k samples,
the importance-weighted bound, and its doubly reparameterised gradient (Tucker et al. 2019). The
architecture, the start, the data and the evaluation are those of the paper's code.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

import vaejax
from experiments.lib.burda import (
    NOT_FAR,
    SHAPE,
    Mnist,
    OneLayer,
    glorot_uniform,
    iwae,
    normal,
    with_mean_image,
)
from experiments.lib.reproduce import run_table
from experiments.lib.reproduction import Goal, Published, Records, Row, Table
from vaejax import DirectedGraph, Node

BURDA = "Burda et al. 2016, table 1, quoted from the README of nbip/IWAE"
NBIP = "README of nbip/IWAE, a reproduction (Tucker et al. 2019 print no numbers)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoLayers(Mnist):
    """x - 200 - 200 - z1 [100] - 100 - 100 - z2 [50], and back."""

    reached: Goal | None = NOT_FAR

    def model(self):
        wide, narrow = (200, 200), (100, 100)
        above = Node("z2", vaejax.StandardNormal(50))
        between = Node("z1", normal(vaejax.MLP(100, narrow, heads=2)), "z2")
        pixels = Node("x", vaejax.Bernoulli(vaejax.MLP(SHAPE, wide)), "z1")
        first = Node("z1", normal(vaejax.MLP(100, wide, heads=2)), "x")
        second = Node("z2", normal(vaejax.MLP(50, narrow, heads=2)), "z1")
        return vaejax.GraphModel(
            DirectedGraph((above, between, pixels)), DirectedGraph((first, second), inputs=("x",))
        )

    def start(self, model, images, key):
        init_key, x_key, z1_key, *phi_keys = jax.random.split(key, 5)
        params = model.init(init_key, jnp.zeros(SHAPE))
        decoder = glorot_uniform(params.theta["x"], x_key)
        theta = {
            **params.theta,
            "x": with_mean_image(decoder, images, 255),
            "z1": glorot_uniform(params.theta["z1"], z1_key, heads=2),
        }
        phi = {
            name: glorot_uniform(params.phi[name], phi_key, heads=2)
            for name, phi_key in zip(("z1", "z2"), phi_keys, strict=True)
        }
        return params._replace(theta=theta, phi=phi)


def vae(samples: int) -> vaejax.Estimator:
    return vaejax.Pathwise(samples)


def one(
    name: str, nll: float, estimator: vaejax.Estimator, source: str = BURDA, **settings: Any
) -> Row:
    published = Published(nll, "nats", source)
    settings = USUAL | {"learning_rate": 4e-3} | settings
    return OneLayer(name=name, published=published, estimator=estimator, **settings)


def two(name: str, nll: float, estimator: vaejax.Estimator, **settings: Any) -> Row:
    published = Published(nll, "nats", BURDA)
    settings = USUAL | {"learning_rate": 2e-3} | settings
    return TwoLayers(name=name, published=published, estimator=estimator, **settings)


USUAL: dict[str, Any] = {"num_steps": 300_000, "batch_size": 500, "num_seeds": 3}
FEWER: dict[str, Any] = {"num_steps": 200_000, "batch_size": 200, "num_seeds": 1}
NOTE = """Every row has Adam at 4e-3, or 2e-3 with two layers, which falls along a cosine to 0, and
batches of 500, or 200 where k = 50; the paper has batches of 20, 3,280 epochs and a rate that falls
from 1e-3 to 1e-4 in eight stages. Rate and batch were chosen by the training bound of short runs.
DReG is not in the paper. The paper's numbers of active units are not quoted: no source at hand has
them."""


@dataclasses.dataclass(frozen=True)
class Burda(Table):
    """With what the papers say of the rows together."""

    def claims(self, records: Records) -> list[str]:
        claims = []
        for title, names in ORDERED.items():
            recorded = [name for name in names if name in records]
            if len(recorded) > 1:
                values = [records[name]["ours"]["nll"]["mean"] for name in recorded]
                falls = all(after < before for before, after in itertools.pairwise(values))
                listed = ", ".join(f"{value:.2f}" for value in values)
                claims.append(f"{title} falls with k: {'yes' if falls else 'no'}, {listed} nats.")
        for name, other in (("dreg-5", "iwae-5"), ("dreg-50", "iwae-50")):
            pair = records.get(name, {}).get("versus", {}).get(other)
            if pair is not None:
                half = 1.96 * pair["standard_error"]
                low, high = pair["mean"] - half, pair["mean"] + half
                is_below = "yes" if high <= 0 else "no" if low > 0 else "undecided"
                claims.append(
                    f"`{name}` at or below `{other}`: {is_below}; 95 % interval of the difference,"
                    f" over the test images, {low:+.3f} to {high:+.3f} nats."
                )
        return claims


ORDERED = {
    "The VAE with one layer": ("vae-1", "vae-5", "vae-50"),
    "The IWAE with one layer": ("vae-1", "iwae-5", "iwae-50"),
    "The IWAE with two layers": ("two-layers-vae-1", "two-layers-iwae-5", "two-layers-iwae-50"),
}

MISSED = (
    "missed by 1.0 with 200,000 steps, where the paper has 9.8 million. Its training bound rose"
    " most slowly at the first, high rates: from -98.0 to -95.9 nats in a fifth of the steps, by"
    " 3.3 in the next fifth. A lower rate and more steps are what is left to try. So the IWAE does"
    " not fall from k = 5, with its 300,000 steps of 500 images, to k = 50"
)
RESUMED = (
    "missed by 0.1, and better than the paper's. The first 226,264 steps are those of 8e8681e, all"
    " seeds in one program; the rest those of the revision below"
)

TABLE = Burda(
    "iwae",
    "Burda et al. 2016: importance-weighted autoencoders",
    rows=(
        one("vae-1", 86.76, vae(1)),
        one("vae-5", 86.47, vae(5), versus=("vae-1",)),
        one("vae-50", 86.35, vae(50), versus=("vae-1",), **FEWER),
        one("iwae-5", 85.54, iwae(5), versus=("vae-1", "vae-5"), note=RESUMED),
        one("iwae-50", 84.78, iwae(50), versus=("vae-1",), **FEWER, note=MISSED),
        one("dreg-5", 84.90, vaejax.DReG(5), NBIP, versus=("iwae-5",)),
        one("dreg-50", 84.32, vaejax.DReG(50), NBIP, versus=("iwae-50",), **FEWER),
        two("two-layers-vae-1", 85.33, vae(1), versus=("vae-1",)),
        two("two-layers-iwae-5", 83.89, iwae(5), versus=("two-layers-vae-1", "iwae-5")),
        two("two-layers-iwae-50", 82.90, iwae(50), versus=("two-layers-iwae-5",), **FEWER),
    ),
    columns={"active_units": "active units", "elbo": "ELBO"},
    note=NOTE,
)

if __name__ == "__main__":
    run_table("iwae")
