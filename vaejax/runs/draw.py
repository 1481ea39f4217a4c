"""Draws from the model of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax import plots
from vaejax.base.fields import Count, Seed
from vaejax.runs.config import Configuration, check_config
from vaejax.runs.folder import Which, open_run

COLUMNS = 16  # of the picture


@dataclass(frozen=True)
class SampleConfig(Configuration):
    """A trained run, and how many draws from its model to write."""

    run: str
    """Its folder."""
    num_samples: Count = 128
    params: Which | None = None
    """Those of the last step or of the best validation; else those that the run evaluates."""
    out: str | None = None
    """The file of the arrays x and z, and beside it a .png of x; else draws.npz in the run's
    folder.
    """
    seed: Seed = 0


def sample_run(config: SampleConfig) -> dict[str, Any]:
    """(x, z) ~ p(x, z) of a trained model, as arrays and as a picture."""
    check_config(config)
    run = open_run(config.run, config.params)
    draw = jax.jit(jax.vmap(lambda key: run.model.sample(run.params, key)))
    x, z = draw(jax.random.split(jax.random.key(config.seed), config.num_samples))
    path = Path(config.out or Path(config.run) / "draws.npz").with_suffix(".npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, z=z)
    picture = path.with_suffix(".png")
    plots.save(plots.image_grid(x, COLUMNS, "x ~ p(x | z), z ~ p(z)"), picture)
    return {"run": config.run, "step": run.step, "arrays": str(path), "picture": str(picture)}
