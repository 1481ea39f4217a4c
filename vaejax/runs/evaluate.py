"""Evaluating a run: how likely the test set is, from both sides, and what the latent space holds.

A part that is not for the run's prior or encoder, or that needs a package which is not here, is
left out, and the page says so.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure

from vaejax.data.base import random_rows
from vaejax.data.own import short_name
from vaejax.distributions.base import NotKnownError
from vaejax.runs.command import environment
from vaejax.runs.config import check_config, require_examples
from vaejax.runs.continuation import saved_config
from vaejax.runs.devices import joined, mesh_of
from vaejax.runs.files import read_json, write_json, write_text
from vaejax.runs.folder import open_run
from vaejax.runs.lock import claimed
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
from vaejax.runs.pictures import attempted
from vaejax.runs.place import PICTURES, place_of
from vaejax.runs.report import Row, bounds_figure, inlined, latents_figure, page

# What says that a model has none of something; every other error is a fault, or a mistake of the
# user's, and ends the evaluation.
NOT_FOR_THIS_RUN = (LeftOutError, NotKnownError, ImportError)


def evaluate_run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates a run, writes evaluation.json and report.html into its folder, prints the table.

    What one part has found is on disk before the next begins.
    """
    check_config(config)
    processes = joined(config.distributed)
    with processes.together():
        folder = place_of(config.run, "run")
        saved_config(folder)  # raises where there is none, before a lock is made there
    with processes.by_first(claimed(folder, "evaluation")):
        config = replace(config, run=str(folder))
        with processes.together():
            subject = subject_of(config)
        evaluation = Evaluated(config, subject, facts_of(config, subject), {}, [])
        add_parts(evaluation)
        with processes.together():
            return reported(evaluation) if processes.is_first else evaluation.numbers()


class Evaluated(NamedTuple):
    """What has been found of a run so far, and notes of what has not."""

    config: EvaluateConfig
    subject: Subject
    facts: dict[str, Any]
    parts: dict[str, EvaluationPart]
    notes: list[str]

    @property
    def out(self) -> Path:
        return Path(self.config.run)

    @property
    def rows(self) -> list[Row]:
        return [row for part in self.parts.values() for row in part.rows]

    def numbers(self) -> dict[str, Any]:
        subject, parts = self.subject, self.parts.values()
        head = {
            "run": self.config.run,
            "step": subject.step,
            "examples": len(subject.images),
        }
        numbers = {name: number for part in parts for name, number in part.numbers.items()}
        return {**head, **numbers, "notes": self.notes}

    def write(self) -> None:
        """By the first of the processes."""
        if self.subject.processes.is_first:
            write_json(self.out / "evaluation.json", {**self.numbers(), **self.facts})


def facts_of(config: EvaluateConfig, subject: Subject) -> dict[str, Any]:
    """What the numbers depend on."""
    versions = environment()
    return {
        "Configuration": asdict(subject.config),
        "Evaluation": asdict(config),
        "Made with": {**versions.pop("versions"), **versions},
    }


def add_parts(evaluation: Evaluated) -> None:
    """Finds each part. One that fails ends the evaluation, and evaluation.json says so beside what
    the parts before it have found.
    """
    config, subject, _, parts, notes = evaluation
    keys = jax.random.split(jax.random.key(config.seed + 1), 4)
    functions = {
        "bounds": bounds,
        "AIS": both_sides,
        "the latent space": latents,
        "the comparison of samples": sample_quality,
    }
    for (name, function), key in zip(functions.items(), keys, strict=True):
        try:
            part = attempt(name, partial(function, config, subject, key), notes)
        except Exception as error:
            if parts:
                notes.append(f"{name} failed, and what was to follow is missing: {error}")
                evaluation.write()
            raise
        if part is not None:
            parts[name] = part


def subject_of(config: EvaluateConfig) -> Subject:
    run = open_run(config.run, data_folder=config.data_folder)
    require_examples(config, run.dataset)
    images = run.dataset.test.images
    rows = random_rows(jax.random.key(config.seed), len(images), config.eval_size)
    mesh = mesh_of(config.devices, config.distributed)
    shown = images[rows], run.transform
    return Subject(
        run.config, run.step, run.model, run.params, *shown, None if mesh.size == 1 else mesh
    )


def attempt(
    name: str, part: Callable[[], EvaluationPart], notes: list[str]
) -> EvaluationPart | None:
    """What a part finds, or a note of why this run has none."""
    try:
        return part()
    except NOT_FOR_THIS_RUN as error:
        notes.append(f"{name} is left out: {error}")
        return None


def reported(evaluation: Evaluated) -> dict[str, Any]:
    """Writes the numbers and the page, prints the table, and returns the numbers."""
    config, subject, facts, _, notes = evaluation
    evaluation.write()
    pictures = _pictures(evaluation)
    if notes:  # of pictures too
        evaluation.write()
    title = f"{config.run}: {short_name(subject.config.data)} at step {subject.step:,}"
    rows, report = evaluation.rows, evaluation.out / "report.html"
    write_text(report, page(title, rows, notes, pictures, facts))
    width = max(len(name) for name, _, _ in rows)
    print("\n".join(f"{name:<{width}}  {value:<24} {remark}" for name, value, remark in rows))
    print("\n".join([*notes, f"report: {report}"]))
    return evaluation.numbers()


def _pictures(evaluation: Evaluated) -> list[str]:
    """Those that the parts give, and those that training has drawn, as HTML."""
    parts = evaluation.parts
    difference = parts["AIS"].numbers["ais_less_iwae"]["mean"] if "AIS" in parts else None
    pictures: dict[str, Callable[[], Figure | Path]] = {
        "bounds": lambda: bounds_figure(parts["bounds"].drawn, difference)
    }
    if "the latent space" in parts:
        space = parts["the latent space"].drawn
        pictures["what each latent tells"] = lambda: latents_figure(space)
    pictures |= {name: lambda path=path: path for name, path in of_training(evaluation).items()}
    shown = (
        attempted(f"the picture {name!r}", partial(inlined, draw, name), evaluation.notes)
        for name, draw in pictures.items()
    )
    return [html for html in shown if html is not None]


def of_training(evaluation: Evaluated) -> dict[str, Path]:
    """{name: file} of the pictures that training has drawn; notes say which are not there, and of
    which step all are where the checkpoint is another.
    """
    out, step, notes = evaluation.out, evaluation.subject.step, evaluation.notes
    paths = {name: out / f"{name}.png" for name in PICTURES}
    try:
        result = read_json(out / "result.json", "step")
    except (OSError, ValueError) as error:
        notes.append(f"what training said of its pictures is not known: {error}")
        result = {}
    said = result.get("pictures", {})
    missing = [name for name, path in paths.items() if not path.exists()]
    notes += [said.get(name, f"{name}.png is not there: training draws it") for name in missing]
    if len(missing) < len(paths) and result.get("step", step) != step:
        notes.append(f"the pictures that training drew are of step {result['step']:,}")
    return {name: path for name, path in paths.items() if name not in missing}
