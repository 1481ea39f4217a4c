r"""log p(x) between two bounds, by annealed importance sampling in both directions; and what it
adds to importance sampling on real data.

    python experiments/ais_sandwich.py python experiments/ais_sandwich.py --data binarized_mnist
    --latent-dim 20 --num-steps 20000 --temperatures 100 1000 --out runs/ais_mnist

A VAE is trained. Of examples drawn from it, an exact sample of p(z|x) is known, the z that they
were drawn from, so bidirectional Monte Carlo bounds log p(x) from both sides (`vaejax.AIS.bdmc`);
how far apart the two are says how well chains of this length do. On test examples the lower bound
alone is left, beside the ELBO and IWAE-K; the upper end of the simulated gap is what it may still
miss.

Expected: the sandwich closes as the temperatures grow in number (Wu et al. 2017). Measured by the
first command on one core of an Intel Xeon, in 90 s, nats per example:

    temperatures    simulated: lower    upper              gap                test: lower
    10              -24.80 +- 0.42      -22.00 +- 0.36     2.803 +- 0.202     -23.75 +- 0.43
    50              -23.89 +- 0.38      -23.74 +- 0.39     0.157 +- 0.088     -22.73 +- 0.38
    500             -23.85 +- 0.37      -23.84 +- 0.37     0.018 +- 0.016     -22.59 +- 0.38

On the same test examples the ELBO is -22.98, IWAE-100 -22.61 and IWAE-5000 -22.60: with eight
latents importance sampling gets there too.
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro
from common import command_line, record, some_rows
from matplotlib.figure import Figure
from train import Setting, trained

import vaejax
from vaejax import ais
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.plots.images import BLUE, GREY, INK, ORANGE


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE, and the chains."""

    hidden: tuple[int, ...] = (100,)
    latent_dim: int = 8
    num_steps: int = 5_000
    temperatures: tuple[int, ...] = (10, 50, 500)
    """Numbers of temperatures, on a sigmoid schedule."""
    num_chains: int = 16
    num_leapfrog: int = 10
    num_simulated: int = 100
    """Examples drawn from the model."""
    eval_size: int = 100
    """Test examples, drawn at random."""
    eval_samples: int = 5_000
    """The largest K of IWAE-K on them."""
    out: str = "runs/ais_sandwich"
    """The folder for result.json and ais_sandwich.png."""


def simulated(sampler: vaejax.AIS, params: vaejax.Params, nothing, key) -> tuple:
    """(lower, upper, acceptance) of one example of the model's own."""
    found = sampler.bdmc(params, key)
    return found.lower, found.upper, found.acceptance


def sandwiches(
    config: Config, model: vaejax.VAE, params: vaejax.Params, images: np.ndarray, transform, keys
) -> list[dict]:
    """A row for each number of temperatures: both bounds on simulated data, the lower one on real
    data, by a key of each.
    """
    rows, (simulated_key, real_key) = [], keys
    for count in config.temperatures:
        sampler = vaejax.AIS(
            model, ais.Sigmoid(count), config.num_chains, transition=ais.HMC(config.num_leapfrog)
        )
        began = time.perf_counter()
        numbers = np.arange(config.num_simulated)
        lower, upper, acceptance = map_dataset(
            partial(simulated, sampler), params, numbers, simulated_key, batch_size=20
        )
        lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
        real = np.asarray(
            map_dataset(Transformed(sampler, transform), params, images, real_key, batch_size=20),
            np.float64,
        )
        row = {
            "temperatures": count,
            "lower": estimate(lower),
            "upper": estimate(upper),
            "gap": estimate(upper - lower),
        }
        row |= {
            "real": estimate(real),
            "each": real,
            "acceptance": float(np.mean(acceptance)),
            "seconds": time.perf_counter() - began,
        }
        print(
            f"{count} temperatures: gap {row['gap'].mean:.3f} nats, {row['seconds']:.0f} s",
            file=sys.stderr,
        )
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| temperatures | simulated: lower | upper | gap | test: lower | acceptance | seconds |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        gap = f"{row['gap'].mean:.3f} ± {row['gap'].standard_error:.3f}"
        bounds = f"{row['lower']} | {row['upper']} | {gap} | {row['real']}"
        lines.append(
            f"| {row['temperatures']} | {bounds} | {row['acceptance']:.2f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def figure_of(rows: list[dict], evaluation: vaejax.Evaluation, title: str) -> Figure:
    """Left: the two bounds around the last row's middle. Right: on test data, AIS against
    IWAE-K.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = [row["temperatures"] for row in rows]
    middle = (rows[-1]["lower"].mean + rows[-1]["upper"].mean) / 2
    for side, colour in (("upper", ORANGE), ("lower", BLUE)):
        left.plot(
            counts,
            [row[side].mean - middle for row in rows],
            "o-",
            color=colour,
            label=f"{side} bound",
        )
    left.fill_between(
        counts,
        [row["lower"].mean - middle for row in rows],
        [row["upper"].mean - middle for row in rows],
        color="#e3e7ea",
    )
    left.axhline(0, color=GREY, lw=0.7, ls=":")
    left.set(
        xscale="log", xlabel="temperatures", ylabel=f"log p(x) − ({middle:.2f}) (nats per example)"
    )
    left.set_title(
        f"simulated data: the gap closes to {rows[-1]['gap'].mean:.3f} nats", fontsize=10
    )
    samples = list(evaluation.iwae)
    right.plot(
        samples,
        [of.mean for of in evaluation.iwae.values()],
        "s-",
        color=INK,
        label="IWAE-K, against K",
    )
    right.plot(
        counts,
        [row["real"].mean for row in rows],
        "o-",
        color=BLUE,
        label="AIS, against its temperatures",
    )
    right.set(
        xscale="log",
        xlabel="K, or temperatures",
        ylabel="lower bound on log p(x) (nats per example)",
    )
    right.set_title("test data", fontsize=10)
    for axes in (left, right):
        axes.legend(frameon=False, loc="upper right" if axes is left else "lower right")
        axes.set_xticks(
            counts if axes is left else [10**power for power in range(len(str(max(samples))))]
        )
        axes.get_xaxis().set_major_formatter("{x:,.0f}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure


def main(config: Config) -> dict:
    for name in ("num_chains", "num_simulated", "eval_size", "eval_samples"):
        if getattr(config, name) < 2:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least 2")
    if not config.temperatures:
        raise ValueError("temperatures is empty; name at least one number of them")
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    settings = {"estimator": "analytic-kl", "schedule": "cosine"}
    model, params = trained(config, dataset.train.images, transform, config.num_steps, **settings)
    rows_key, simulated_key, key = jax.random.split(jax.random.key(config.seed + 1), 3)
    images = dataset.test.images[some_rows(rows_key, len(dataset.test.images), config.eval_size)]
    rows = sandwiches(config, model, params, images, transform, (simulated_key, key))
    # The same key as for the chains, so that the same pixels are seen.
    evaluation = vaejax.evaluate(
        model,
        params,
        images,
        key,
        num_samples=config.eval_samples,
        transform=transform,
        batch_size=20,
    )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(rows, evaluation, f"{config.data}: bounds on log p(x) of one VAE").savefig(
        out / "ais_sandwich.png", dpi=150
    )
    print(
        f"nats per example, mean over {config.num_simulated} simulated and {len(images)} test"
        " examples ± standard error"
    )
    print(table(rows))
    print(f"\nthe same test examples\n{evaluation}")
    shown = [
        {
            name: of._asdict() if hasattr(of, "_asdict") else of
            for name, of in row.items()
            if name != "each"
        }
        for row in rows
    ]
    iwae = {str(count): of._asdict() for count, of in evaluation.iwae.items()}
    record(out, config, data=dataset.source, rows=shown, iwae=iwae)
    return {"rows": shown, "iwae": iwae, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
