r"""Amortised, semi-amortised and per-datapoint inference: the bound that each reaches, against its
time.

    python experiments/amortisation.py python experiments/amortisation.py --data binarized_mnist
    --latent-dim 20 --num-steps 10000 --eval-size 500 --out runs/amort_mnist

A VAE is trained as usual. Then theta stays, and the test ELBO is measured with q from the encoder,
with q refined by steps of gradient ascent from there, and with q found by such steps from N(0, I),
the encoder out of the game (`vaejax.Refined`). What the encoder misses of the best diagonal normal
is the amortisation gap. The time is that of q(z|x) alone, compiled, over the whole test set, per
example.

Expected: refining the encoder's q gets in a few steps what starting anew takes many times as many
for (Kim et al. 2018; Cremer et al. 2018). Measured by the first command on two cores of an Intel
Xeon that had other work, in 1 minute 37 s: the encoder's q has a test ELBO of -23.29; 5 steps from
it gain 0.15 +- 0.01 nats, 20 steps 0.20, 100 steps 0.24. From N(0, I), 20 steps are 0.79 +- 0.05
below the encoder, 50 steps 0.08 above, 100 steps 0.24 above, and 200 no higher: the amortisation
gap is 0.24 nats, and 5 steps from the encoder close more of it than 50 from nowhere do. The 100
steps take 90 times as long as the encoder.
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro
from common import command_line, record
from matplotlib.figure import Figure
from train import Setting, trained

import vaejax
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.inference.refined import Start


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE, and how far q is refined. The ELBO is by `bound_samples` samples of q for each
    example.
    """

    latent_dim: int = 8
    hidden: tuple[int, ...] = (100,)
    num_steps: int = 3_000
    from_encoder: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100)
    """Numbers of refining steps from the encoder's q; 0 is amortised inference."""
    from_standard: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Numbers of steps from N(0, I)."""
    rate: float = 0.1
    """Of Adam on q's parameters, at its start."""
    bound_samples: int = 50
    eval_size: int | None = None
    """So many test examples; None takes all."""
    out: str = "runs/amortisation"
    """The folder for result.json and amortisation.png."""


def measured(
    config: Config, model: vaejax.Refined, params: vaejax.Params, images: np.ndarray, transform, key
) -> dict:
    """The mean ELBO of q, and the seconds that q takes for one example: the least of three passes,
    so that compiling is out.
    """
    bound = Transformed(partial(vaejax.AnalyticKL(config.bound_samples), model), transform)
    elbo = np.asarray(map_dataset(bound, params, images, key), np.float64)
    inference = Transformed(partial(posterior, model), transform)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(map_dataset(inference, params, images, key))
        seconds.append(time.perf_counter() - began)
    return {"elbo": estimate(elbo), "each": elbo, "milliseconds": 1e3 * min(seconds) / len(images)}


def posterior(model: vaejax.Refined, params: vaejax.Params, x, key):
    return model.posterior(params, x)


def compare(
    config: Config, model: vaejax.VAE, params: vaejax.Params, images: np.ndarray, transform, key
) -> list[dict]:
    """One row for each start and number of steps; the gain is over the encoder's q, example by
    example, with the same noise.
    """
    starts: dict[Start, tuple[int, ...]] = {
        "encoder": config.from_encoder,
        "standard": config.from_standard,
    }
    rows, amortised = [], None
    for start, numbers in starts.items():
        for steps in numbers:
            refined = vaejax.Refined(model, steps, start, learning_rate=config.rate)
            row = {
                "start": start,
                "steps": steps,
                **measured(config, refined, params, images, transform, key),
            }
            amortised = row["each"] if amortised is None else amortised
            gain = estimate(row.pop("each") - amortised)
            rows.append(
                row
                | {
                    "elbo": row["elbo"].mean,
                    "gain": gain.mean,
                    "error_of_gain": gain.standard_error,
                }
            )
            print(
                f"{start}, {steps} steps: ELBO {row['elbo'].mean:.2f}, gain {gain}", file=sys.stderr
            )
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| start | steps | test ELBO | gain on the encoder | ms per example |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        gain = (
            f"{row['gain']:+.2f} ± {row['error_of_gain']:.2f}"
            if (row["start"], row["steps"]) != ("encoder", 0)
            else ""
        )
        lines.append(
            f"| {row['start']} | {row['steps']} | {row['elbo']:.2f} | {gain} |"
            f" {row['milliseconds']:.3f} |"
        )
    return "\n".join(lines)


def figure_of(rows: list[dict], title: str) -> Figure:
    """The bound against the time of inference, which starts at the encoder's."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    amortised = rows[0]
    curves = {
        "encoder": ("semi-amortised: from the encoder's q", "#2c6fbb", 7),
        "standard": ("per data point: from N(0, I)", "#d9730d", -14),
    }
    for start, (label, colour, above) in curves.items():
        some = [row for row in rows if row["start"] == start and row is not amortised]
        axes.plot(
            [row["milliseconds"] for row in some],
            [row["elbo"] for row in some],
            "o-",
            color=colour,
            label=label,
            ms=4,
        )
        for row in some:
            at = row["milliseconds"], row["elbo"]
            axes.annotate(
                str(row["steps"]),
                at,
                (0, above),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    axes.plot(
        amortised["milliseconds"],
        amortised["elbo"],
        "D",
        color="#22313f",
        label="amortised: the encoder",
        ms=7,
    )
    axes.axhline(amortised["elbo"], color="#22313f", lw=0.7, ls=":")
    best = max(row["elbo"] for row in rows)
    axes.set(
        xscale="log",
        xlabel="time of q(z|x) (ms per example)",
        ylabel="test ELBO (nats per example)",
        title=title,
    )
    axes.set_ylim(
        min(amortised["elbo"] - 4 * (best - amortised["elbo"]), best - 1),
        best + 0.25 * (best - amortised["elbo"]) + 0.1,
    )
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(config: Config) -> dict:
    if not config.from_encoder or config.from_encoder[0] != 0:
        raise ValueError(
            f"from_encoder = {config.from_encoder}; it starts with 0, the encoder as it is, which"
            " the others are compared with"
        )
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    model, params = trained(
        config, dataset.train.images, transform, config.num_steps, estimator="analytic-kl"
    )
    images = dataset.test.images[: config.eval_size]
    rows = compare(config, model, params, images, transform, jax.random.key(config.seed + 1))
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(
        rows, f"{config.data}: the same model, three kinds of inference (numbers of steps)"
    ).savefig(out / "amortisation.png", dpi=150)
    print(f"nats per test example, {len(images)} of them; the gain is paired, ± its standard error")
    print(table(rows))
    record(out, config, data=dataset.source, rows=rows)
    return {"rows": rows, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
