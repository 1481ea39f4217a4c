"""The page of an evaluated run: one HTML file that needs no other."""

import base64
import html
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaejax.evaluation.evaluate import Evaluation
from vaejax.evaluation.latents import COLLAPSED, LatentSpace
from vaejax.plots.look import BLUE, GREY, INK, ORANGE, figure_of, finish, legend

Row = tuple[str, str, str]  # quantity, value, remark
SIZE = (5.2, 3.4)  # inches, of a figure on the page

STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; color: {INK}; max-width: 1000px; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e3e7ea;
  vertical-align: top; }}
ul {{ columns: 3; font-size: .85rem; list-style: none; padding: 0; overflow-wrap: anywhere; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; flex: 1 1 440px; }}
img {{ max-width: 100%; }}
figcaption {{ color: #66747f; font-size: .85rem; }}
"""


def page(
    title: str,
    rows: list[Row],
    notes: list[str],
    pictures: list[str],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    """The table, the notes, the pictures (`inlined`) and the facts, with everything in it."""
    body = [
        f"<h1>{html.escape(title)}</h1>",
        table(rows, ("quantity", "value", "")),
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        '<h2>Pictures</h2><div class="pictures">',
        *pictures,
        "</div>",
        *(_facts(name, values) for name, values in facts.items()),
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    )


def _facts(name: str, values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<li>{html.escape(key)} <b>{html.escape(str(value))}</b></li>"
        for key, value in values.items()
    )
    return f"<h2>{html.escape(name)}</h2><ul>{items}</ul>"


def table(rows: list[Row], header: Row) -> str:
    def line(cells: Row, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def inlined(draw: Callable[[], Figure | Path | None], name: str) -> str:
    """An <img> with the picture in it that `draw()` gives; no text where it gives none."""
    picture = draw()
    if picture is None:
        return ""
    if isinstance(picture, Path):
        data = picture.read_bytes()
    else:
        buffer = io.BytesIO()
        picture.savefig(buffer, dpi=130, format="png")
        data = buffer.getvalue()
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<figure><img alt="{name}" src="{source}"><figcaption>{name}</figcaption></figure>'


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


def latents_figure(space: LatentSpace) -> Figure | None:
    """What each latent tells, sorted: its KL, or its information about x where the prior is no
    product over the latents; None where q is none either.
    """
    if space.kl is not None:
        told, name = space.kl, "mean KL(q(z_j|x) ‖ p(z_j)) (nats)"
    elif space.information is not None:
        told, name = space.information, "information I(x; z_j) (nats)"
    else:
        return None
    figure, [[axes]] = figure_of(size=SIZE)
    ordered = np.sort(told)[::-1]
    colours = [BLUE if nats > COLLAPSED else GREY for nats in ordered]
    axes.bar(np.arange(1, len(told) + 1), ordered, color=colours)
    finish(axes, xlabel="latent, sorted", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
