"""The page of an evaluated run: one HTML file that needs no other."""

import base64
import html
import io
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaejax.evaluation.evaluate import Evaluation
from vaejax.evaluation.latents import COLLAPSED, LatentSpace
from vaejax.plots.look import BLUE, GREY, ORANGE, figure_of, finish, legend
from vaejax.runs.readings import CAPTIONS, reading_of

Row = tuple[str, str, str]  # quantity, value, remark
SIZE = (5.2, 3.4)  # inches, of a figure on the page

TEMPLATE = Template((files("vaejax.runs") / "report.html").read_text(encoding="utf-8"))


def page(
    title: str,
    rows: list[Row],
    notes: list[str],
    pictures: list[str],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    """The table, the notes, the pictures (`inlined`) and the facts, with everything in it."""
    return TEMPLATE.substitute(
        title=html.escape(title),
        rows="\n".join(map(_row, rows)),
        notes="\n".join(f"<p>{html.escape(note)}</p>" for note in notes),
        pictures="\n".join(pictures),
        facts="\n".join(_facts(name, values) for name, values in facts.items()),
    )


def _row(row: Row) -> str:
    """A quantity, its value and what it is of, and below them how to read it."""
    quantity, value, remark = map(html.escape, row)
    reading = html.escape(reading_of(row[0]))
    return (
        f"<tr><th scope=row>{quantity}</th><td class=value>{value}</td>"
        f"<td>{remark}<p class=reading>{reading}</p></td></tr>"
    )


def _facts(name: str, values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<li>{html.escape(key)} <b>{html.escape(str(value))}</b></li>"
        for key, value in values.items()
    )
    return f"<h2>{html.escape(name)}</h2><ul>{items}</ul>"


def inlined(draw: Callable[[], Figure | Path], name: str) -> str:
    """An <img> with the picture in it that `draw()` gives."""
    picture = draw()
    if isinstance(picture, Path):
        data = picture.read_bytes()
    else:
        buffer = io.BytesIO()
        picture.savefig(buffer, dpi=130, format="png")
        data = buffer.getvalue()
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    caption = CAPTIONS.get(name, name)
    return f'<figure><img alt="{name}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def bounds_figure(evaluation: Evaluation, ais_less_iwae: float | None) -> Figure:
    """IWAE-K against K, with twice the standard error, and what AIS adds to the last."""
    figure, [[axes]] = figure_of(size=SIZE)
    counts = list(evaluation.iwae)
    means = np.array([bound.mean for bound in evaluation.iwae.values()])
    errors = np.array([bound.standard_error for bound in evaluation.iwae.values()])
    axes.fill_between(counts, means - 2 * errors, means + 2 * errors, color=BLUE, alpha=0.15, lw=0)
    axes.plot(counts, means, "o-", color=BLUE, label="IWAE-K, ± 2 standard errors")
    if ais_less_iwae is not None:
        label, height = "with what AIS adds on some", means[-1] + ais_less_iwae
        axes.axhline(height, color=ORANGE, lw=1.2, ls="--", label=label)
    finish(axes, xscale="log", xlabel="K", ylabel="bound on log p(x) (nats)")
    legend(axes, "lower right")
    return figure


def latents_figure(space: LatentSpace) -> Figure:
    """What each latent tells, sorted: its KL, or its information about x where the prior is no
    product over the latents; what all tell together where q is none either.
    """
    if space.kl is not None:
        return _of_each(space.kl, "mean KL(q(z_j|x) ‖ p(z_j)) (nats)")
    if space.information is not None:
        return _of_each(space.information, "information I(x; z_j) (nats)")
    parts = {
        "rate": space.rate.mean,
        "mutual information": space.mutual_information,
        "KL(q(z) ‖ p(z))": space.marginal_kl,
    }
    known = {name: nats for name, nats in parts.items() if nats is not None}
    figure, [[axes]] = figure_of(size=SIZE)
    axes.barh(list(known), list(known.values()), color=BLUE)
    axes.axvline(space.limit, color=ORANGE, lw=1.2, ls="--", label="log N")
    axes.invert_yaxis()
    finish(axes, xlabel="nats, of all latents together")
    legend(axes, "lower right")
    return figure


def _of_each(told: np.ndarray, name: str) -> Figure:
    figure, [[axes]] = figure_of(size=SIZE)
    ordered = np.sort(told)[::-1]
    colours = [BLUE if nats > COLLAPSED else GREY for nats in ordered]
    axes.bar(np.arange(1, len(told) + 1), ordered, color=colours)
    finish(axes, xlabel="latent, sorted", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
