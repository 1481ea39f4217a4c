r"""What the ELBO misses of log p(x), split: the family of q, or the encoder.

    python experiments/inference/inference_gap.py
    python experiments/inference/inference_gap.py --data mnist --latent-dim 10 --num-steps 10000 \
        --encoder-steps 10000 --out runs/gap_mnist

A VAE is trained; then, on its decoder, an encoder of each family. For each test example log p(x)
comes from annealed importance sampling (`vaejax.AIS`), max_q ELBO(q) from gradient ascent over the
family's own parameters for this example alone (`vaejax.Refined`), and

    log p(x) - ELBO = [log p(x) - max_q ELBO(q)] + [max_q ELBO(q) - ELBO]
                    = approximation gap + amortisation gap.

AIS is a lower bound, so the approximation gap is too small by what it misses: `ais_sandwich.py`
says how much that is.

Expected: most of the gap is the encoder's, and a richer family closes the approximation gap and not
the other (Cremer et al. 2018). Measured by the first command, nats per example over 100 test
examples, log p(x) = -22.81 +- 0.40:

    family         gap                approximation      amortisation
    diag-normal    0.260 +- 0.017     0.096 +- 0.011     0.165 +- 0.013
    full-normal    0.230 +- 0.014     0.035 +- 0.010     0.195 +- 0.011
    real-nvp:4     0.173 +- 0.013     -0.001 +- 0.010    0.173 +- 0.009

Both come true: the encoder is at fault for 0.6 to all of the gap, and what a richer family can do,
its encoder does not.

Duration: 41 s on one core of an Intel Xeon, most programs compiled before.
"""

import dataclasses

import jax
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import encoders, flags, tables
from experiments.lib.data import Examples, drawn
from experiments.lib.encoders import EncodersSetting, Entries
from experiments.lib.script import Report, run_script, tell
from vaejax import plots
from vaejax.base.fields import Count
from vaejax.runs.build import load_data


@dataclasses.dataclass(frozen=True)
class Config(EncodersSetting):
    """A VAE, families of q for it, and how exactly the three numbers of an example are found."""

    latent_dim: Count = 4
    refining_steps: flags.RefiningSteps = 1_000
    refining_rate: flags.RefiningRate = 0.01
    bound_samples: flags.BoundSamples = 500
    temperatures: flags.Temperatures = 400
    num_chains: flags.NumChains = 16
    eval_size: flags.EvalSize = 100
    out: str = "runs/inference_gap"

    def check_together(self) -> None:
        super().check_together()
        for name in self.encoders:
            if name.partition(":")[0] not in FAMILIES:
                raise ValueError(
                    f"encoder {name!r} has no best q here; choose among diag-normal, full-normal"
                    " and real-nvp:LAYERS"
                )


FAMILIES = ("diag-normal", "full-normal", "real-nvp")


def gaps(config: Config, entries: Entries, test: Examples, key) -> dict[str, vaejax.Gap]:
    """{family: the gap of each example}, with one log p(x) for all."""
    model, params = next(iter(entries.values()))
    sampler = vaejax.AIS(model, vaejax.ais.Sigmoid(config.temperatures), config.num_chains)
    log_p = test.each(sampler, params, key, batch_size=20)
    settings = {"num_samples": config.bound_samples, "transform": test.transform}
    by_family = {}
    for name, (model, params) in entries.items():
        family = encoders.free_encoder(model.encoder, name, config.latent_dim)
        refined = vaejax.Refined(
            model, config.refining_steps, "standard", family, config.refining_rate
        )
        by_family[name] = vaejax.inference_gap(refined, params, test.stored, log_p, key, **settings)
        tell(f"{name}: gap {vaejax.estimate(by_family[name].total)}")
    return by_family


def figure(rows: list[dict], title: str) -> Figure:
    """The two parts of the gap, one on the other, for each family."""
    drawing, [[axes]] = plots.figure_of(size=(6.4, 1.5 + 0.65 * len(rows)))
    places, start = np.arange(len(rows))[::-1], np.zeros(len(rows))
    for part, colour in (("approximation", plots.BLUE), ("amortisation", plots.ORANGE)):
        means, errors = np.transpose([row[part] for row in rows])
        style = {"height": 0.55, "color": colour, "alpha": 0.9, "label": f"{part} gap"}
        axes.barh(places, means, left=start, **style)
        start = start + means
        axes.errorbar(start, places, xerr=errors, fmt="none", ecolor=plots.INK, capsize=3, lw=1)
    axes.set_yticks(places, [row["family"] for row in rows])
    axes.set_title(title, fontsize=plots.TITLE)
    plots.finish(axes, xlabel="log p(x) − ELBO (nats per example)")
    plots.shared_legend(drawing, [axes], ncols=2)
    return drawing


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    entries = encoders.encoders_of_one_decoder(config, dataset.train.images, transform)
    rows_key, key = jax.random.split(jax.random.key(config.seed + 1))
    test = Examples(drawn(dataset.test, config.eval_size, rows_key).images, transform)
    by_family = gaps(config, entries, test, key)
    rows = [{"family": name, **encoders.gap_parts(gap)} for name, gap in by_family.items()]
    parts = "elbo", "best", "gap", "approximation", "amortisation"
    line = " | ".join(["{family}", *(f"{{{name}:.3f}}" for name in parts)])
    header = "family | ELBO | best ELBO | gap | approximation | amortisation"
    heading = (
        f"nats per example, mean over {len(test)} test examples ± standard error; log p(x)"
        f" {rows[0]['log_marginal']}"  # the same for every family
    )
    title = f"{config.data}: one decoder, an encoder of each family"
    return Report(
        {"data": dataset.source, "rows": rows},
        f"{heading}\n{tables.table(header, line, rows)}",
        {"inference_gap": lambda: figure(rows, title)},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
