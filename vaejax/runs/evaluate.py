"""Evaluating a run: how likely the test set is, from both sides, and what the latent space holds.

A part that is not for the run's prior or encoder, or that needs a package which is not here, is
left out, and the page says so.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from vaejax.data.base import random_rows
from vaejax.distributions.base import NotKnownError
from vaejax.runs.command import environment
from vaejax.runs.config import check_config, require_examples
from vaejax.runs.folder import open_run
from vaejax.runs.parts import (
    EvaluateConfig,
    EvaluationPart,
    LeftOutError,
    Subject,
    both_sides,
    bounds,
    latents,
    sample_quality,
)
from vaejax.runs.report import bounds_figure, latents_figure, page

PICTURES = ("samples", "reconstructions", "latent", "curves")  # what training has drawn


# What says that a model has none of something; every other error is a fault, or a mistake of the
# user's, and ends the evaluation.
NOT_FOR_THIS_RUN = (LeftOutError, NotKnownError, ImportError)


def evaluate_run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates a run, writes evaluation.json and report.html into its folder, prints the table."""
    check_config(config)
    subject = subject_of(config)
    keys = jax.random.split(jax.random.key(config.seed + 1), 4)
    notes: list[str] = []
    parts = {"bounds": bounds(config, subject, keys[0])}
    wanted = {
        "AIS": (both_sides, keys[1], config.ais_size > 1),
        "the latent space": (latents, keys[2], True),
        "the comparison of samples": (sample_quality, keys[3], config.sample_size > 0),
    }
    for name, (function, key, is_wanted) in wanted.items():
        part = attempt(name, partial(function, config, subject, key), notes) if is_wanted else None
        if part is not None:
            parts[name] = part
    return reported(config, subject, parts, notes)


def subject_of(config: EvaluateConfig) -> Subject:
    run = open_run(config.run, data_folder=config.data_folder)
    require_examples(config, run.dataset)
    images = run.dataset.test.images
    rows = random_rows(jax.random.key(config.seed), len(images), config.eval_size)
    return Subject(run.config, run.step, run.model, run.params, images[rows], run.transform)


def attempt(
    name: str, part: Callable[[], EvaluationPart], notes: list[str]
) -> EvaluationPart | None:
    """What a part finds, or a note of why this run has none."""
    try:
        return part()
    except NOT_FOR_THIS_RUN as error:
        notes.append(f"{name} is left out: {error}")
        return None


def reported(
    config: EvaluateConfig, subject: Subject, parts: dict[str, EvaluationPart], notes: list[str]
) -> dict[str, Any]:
    """Writes the page and the numbers, prints the table, and returns the numbers."""
    out = Path(config.run)
    rows = [row for part in parts.values() for row in part.rows]
    numbers = {name: number for part in parts.values() for name, number in part.numbers.items()}
    versions = environment()
    facts = {
        "Configuration": dataclasses.asdict(subject.config),
        "Evaluation": dataclasses.asdict(config),
        "Made with": {**versions.pop("versions"), **versions},
    }
    title = f"{config.run}: {subject.config.data} at step {subject.step:,}"
    text = page(title, rows, notes, _pictures(out, parts), facts)
    (out / "report.html").write_text(text, encoding="utf-8")
    head = {"run": config.run, "step": subject.step, "examples": len(subject.images)}
    result = {**head, **numbers, "notes": notes}
    (out / "evaluation.json").write_text(json.dumps({**result, **facts}, indent=2) + "\n")
    width = max(len(name) for name, _, _ in rows)
    print("\n".join(f"{name:<{width}}  {value:<24} {remark}" for name, value, remark in rows))
    print("\n".join([*notes, f"report: {out / 'report.html'}"]))
    return result


def _pictures(out: Path, parts: dict[str, EvaluationPart]) -> dict[str, Figure | Path]:
    """Those that the parts give, and those that training has drawn."""
    difference = parts["AIS"].numbers["ais_less_iwae"]["mean"] if "AIS" in parts else None
    pictures: dict[str, Figure | Path] = {
        "bounds": bounds_figure(parts["bounds"].drawn, difference)
    }
    if "the latent space" in parts:
        of_latents = latents_figure(parts["the latent space"].drawn)
        pictures |= {} if of_latents is None else {"what each latent tells": of_latents}
    drawn = {name: out / f"{name}.png" for name in PICTURES}
    return pictures | {name: path for name, path in drawn.items() if path.exists()}
