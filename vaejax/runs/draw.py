"""Draws from the model of a run."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax import plots
from vaejax.base.fields import Count, Seed
from vaejax.base.files import whole
from vaejax.runs.config import Configuration, check_config
from vaejax.runs.folder import Which, open_run
from vaejax.runs.pictures import drawn
from vaejax.runs.place import expanded, place_of

COLUMNS = 16  # of the picture
OTHER_FILES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".npy", ".csv", ".json")


@dataclass(frozen=True)
class SampleConfig(Configuration):
    """A trained run, and how many draws from its model to write."""

    run: str
    """Its folder."""
    num_samples: Count = 128
    """Draws from the model."""
    params: Which | None = None
    """Those of the last step or of the best validation; else those that the run evaluates."""
    out: str | None = None
    """The .npz file of the arrays x and z, and beside it a .png of x; else draws.npz in the run's
    folder.
    """
    data_folder: str | None = None
    """The folder that the run's data lie in now; else where they were."""
    seed: Seed = 0
    """Of all that is random."""


def sample_run(config: SampleConfig) -> dict[str, Any]:
    """(x, z) ~ p(x, z) of a trained model, as arrays and as a picture."""
    check_config(config)
    path = arrays_path(config)
    run = open_run(config.run, config.params, data_folder=config.data_folder)
    draw = jax.jit(jax.vmap(lambda key: run.model.sample(run.params, key)))
    x, z = draw(jax.random.split(jax.random.key(config.seed), config.num_samples))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial_file:
        np.savez(partial_file, x=x, z=z)
    title = "x ~ p(x | z), z ~ p(z)"
    said = drawn({path.stem: lambda: plots.example_grid(x, COLUMNS, title)}, path.parent)
    picture = path.with_suffix(".png")
    shown = str(picture) if picture.exists() else said[path.stem]
    return {"run": config.run, "step": run.step, "arrays": str(path), "picture": shown}


def arrays_path(config: SampleConfig) -> Path:
    """The file of the arrays. Raises ValueError rather than write over what are no draws."""
    if config.out is None:
        path = place_of(config.run, "run") / "draws.npz"
    else:
        path = expanded(config.out, "out")
        if path.is_dir():
            raise ValueError(f"out = {config.out} is a folder; name a file")
        if path.suffix.lower() in OTHER_FILES:
            raise ValueError(
                f"out = {config.out}: draws are arrays in a .npz file, with a .png of them beside"
                f" it; give {path.with_suffix('.npz').name}"
            )
        path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
        place_of(path.parent)
    picture = path.with_suffix(".png")
    if (path.exists() or picture.exists()) and not _holds_draws(path):
        raise ValueError(
            f"{path.parent} holds {path.name} or {picture.name}, which are not draws of a run; name"
            " another file"
        )
    return path


def _holds_draws(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist()) == {"x.npy", "z.npy"}
    except (OSError, zipfile.BadZipFile):
        return False
