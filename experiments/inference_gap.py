r"""What the ELBO misses of log p(x), split: the family of q, or the encoder.

    python experiments/inference_gap.py python experiments/inference_gap.py --data mnist
    --latent-dim 10 --num-steps 10000 --encoder-steps 10000 --out runs/gap_mnist

A VAE is trained; then, on its decoder, an encoder of each family. For each test example log p(x)
comes from annealed importance sampling (`vaejax.AIS`), max_q ELBO(q) from gradient ascent over the
family's own parameters for this example alone (`vaejax.Refined`), and

    log p(x) - ELBO = [log p(x) - max_q ELBO(q)] + [max_q ELBO(q) - ELBO] = approximation gap +
    amortisation gap.

AIS is a lower bound, so the approximation gap is too small by what it misses: `ais_sandwich.py`
says how much that is.

Expected: most of the gap is the encoder's, and a richer family closes the approximation gap and not
the other (Cremer et al. 2018). Measured by the first command on one core of an Intel Xeon, in 41 s
with most programs compiled before, nats per example over 100 test examples, log p(x) = -22.81 +-
0.40:

    family         gap                approximation      amortisation
    diag-normal    0.260 +- 0.017     0.096 +- 0.011     0.165 +- 0.013
    full-normal    0.230 +- 0.014     0.035 +- 0.010     0.195 +- 0.011
    real-nvp:4     0.173 +- 0.013     -0.001 +- 0.010    0.173 +- 0.009

Both come true: the encoder is at fault for 0.6 to all of the gap, and what a richer family can do,
its encoder does not.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import command_line, record, some_rows
from matplotlib.figure import Figure
from mcmc_posterior import encoders_of_one_decoder
from train import Setting

import vaejax
from vaejax import ais
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.plots.images import BLUE, ORANGE


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE, families of q for it, and how exactly the three numbers of an example are found."""

    latent_dim: int = 4
    hidden: tuple[int, ...] = (100,)
    num_steps: int = 3_000
    encoders: tuple[str, ...] = ("diag-normal", "full-normal", "real-nvp:4")
    """As --encoder of train.py: normals and flows."""
    encoder_steps: int = 3_000
    """Steps of each encoder's own training, with theta fixed."""
    refining_steps: int = 1_000
    """Steps from N(0, I) to the best q of a family for one example."""
    rate: float = 0.01
    """Of Adam on q's parameters, at its start."""
    bound_samples: int = 500
    """Weights that each ELBO is the mean of."""
    temperatures: int = 400
    num_chains: int = 16
    eval_size: int = 100
    """So many test examples, drawn at random."""
    out: str = "runs/inference_gap"
    """The folder for result.json and inference_gap.png."""


def of_one_example(encoder: Any, dim: int) -> Any:
    """The encoder's family with a q of its own for one example: free parameters in place of the
    net.
    """
    rows = (
        tuple(f"row {i + 1}" for i in range(dim)) if isinstance(encoder, vaejax.FullNormal) else ()
    )
    return dataclasses.replace(encoder, net=vaejax.Free(dim, ("loc", "log_scale", *rows)))


def gaps(
    config: Config, entries: dict, images: np.ndarray, transform, key
) -> dict[str, vaejax.Gap]:
    """{family: the gap of each example}, with one log p(x) for all."""
    model, params = next(iter(entries.values()))
    sampler = vaejax.AIS(model, ais.Sigmoid(config.temperatures), config.num_chains)
    log_p = map_dataset(Transformed(sampler, transform), params, images, key, batch_size=20)
    found = {}
    for name, (model, params) in entries.items():
        family = of_one_example(model.encoder, config.latent_dim)
        refined = vaejax.Refined(model, config.refining_steps, "standard", family, config.rate)
        found[name] = vaejax.inference_gap(
            refined,
            params,
            images,
            log_p,
            key,
            num_samples=config.bound_samples,
            transform=transform,
        )
        print(f"{name}: gap {estimate(found[name].total)}", file=sys.stderr)
    return found


def row_of(name: str, gap: vaejax.Gap) -> dict:
    """Means over the examples with standard errors; the parts add up to the gap exactly."""
    parts = {"elbo": gap.elbo, "best": gap.best, "log_marginal": gap.log_marginal}
    parts |= {
        "gap": gap.total,
        "approximation": gap.approximation,
        "amortisation": gap.amortisation,
    }
    means = {part: estimate(values) for part, values in parts.items()}
    return {"family": name, **{part: of._asdict() for part, of in means.items()}}


def table(rows: list[dict]) -> str:
    parts = ("elbo", "best", "gap", "approximation", "amortisation")
    lines = ["| family | ELBO | best ELBO | gap | approximation | amortisation |", "|---" * 6 + "|"]
    for row in rows:
        cells = [f"{row[part]['mean']:.3f} ± {row[part]['standard_error']:.3f}" for part in parts]
        lines.append(f"| {row['family']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure_of(rows: list[dict], title: str) -> Figure:
    """The two parts of the gap, one on the other, for each family."""
    figure = Figure(figsize=(6.4, 1.5 + 0.65 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places, start = np.arange(len(rows))[::-1], np.zeros(len(rows))
    for part, colour in (("approximation", BLUE), ("amortisation", ORANGE)):
        means = np.array([row[part]["mean"] for row in rows])
        errors = [row[part]["standard_error"] for row in rows]
        axes.barh(
            places, means, left=start, height=0.55, color=colour, label=f"{part} gap", alpha=0.9
        )
        axes.errorbar(
            start + means, places, xerr=errors, fmt="none", ecolor="#22313f", capsize=3, lw=1
        )
        start = start + means
    axes.set(
        yticks=places,
        yticklabels=[row["family"] for row in rows],
        xlabel="log p(x) − ELBO (nats per example)",
    )
    axes.set_title(title, fontsize=11)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(config: Config) -> dict:
    for name in ("eval_size", "bound_samples", "refining_steps", "temperatures", "num_chains"):
        if getattr(config, name) < 2:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least 2")
    for name in config.encoders:
        if name.partition(":")[0] not in ("diag-normal", "full-normal", "real-nvp"):
            raise ValueError(
                f"encoder {name!r} has no best q here; choose among diag-normal, full-normal and"
                " real-nvp:LAYERS"
            )
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    entries = encoders_of_one_decoder(
        config,
        config.encoders,
        config.num_steps,
        config.encoder_steps,
        dataset.train.images,
        transform,
    )
    rows_key, key = jax.random.split(jax.random.key(config.seed + 1))
    chosen = some_rows(rows_key, len(dataset.test.images), config.eval_size)
    found = gaps(config, entries, dataset.test.images[chosen], transform, key)
    rows = [row_of(name, gap) for name, gap in found.items()]
    log_p = estimate(next(iter(found.values())).log_marginal)  # the same for every family
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(rows, f"{config.data}: one decoder, an encoder of each family").savefig(
        out / "inference_gap.png", dpi=150
    )
    print(
        f"nats per example, mean over {len(chosen)} test examples ± standard error; log p(x)"
        f" {log_p}"
    )
    print(table(rows))
    record(out, config, data=dataset.source, rows=rows)
    return {"rows": rows, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
