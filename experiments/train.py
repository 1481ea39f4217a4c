"""Train a VAE, evaluate it and draw what it learned: the experiment that every other one starts
from.

    python experiments/train.py                                                   # the embedded
                                                                                  digits
    python experiments/train.py --data fashion_mnist --latent-dim 20 --num-steps 30000 --out runs/fashion
    python experiments/train.py --data binarized_mnist --latent-dim 40 --num-steps 30000 --out runs/binarized
    python experiments/train.py --resume --out runs/fashion --num-steps 60000     # go on, to the
                                                                                  same bits

The run's folder gets config.json, metrics.jsonl, checkpoints/, result.json and four pictures. The
last line on standard output is one JSON object with the results.

Measured on two cores of an Intel Xeon, seed 0, at revision cd2b31b with other work on the machine,
in nats per test example (log p(x) by 500 importance samples):

    command   training   test ELBO         test log p(x)     active units
    first        34 s     -23.41 +- 0.24    -22.95 +- 0.23    2 of 2
    second      192 s    -238.34 +- 0.77   -235.21 +- 0.76    8 of 20
    third       243 s     -99.41 +- 0.28    -93.38 +- 0.26   14 of 40

Expected: no published figure is for these settings, which are short runs, to be repeated in
minutes. For scale: on the static set nbip/IWAE quotes log p(x) = -88.71 from the appendix of Burda
et al. for a one-layer VAE trained for 3,280 epochs; here it is 60.
"""

import dataclasses
import inspect
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
import numpyro.distributions as npd
import optax
import tyro
from common import command_line, environment, some_rows

import vaejax
from vaejax import plots
from vaejax.base.checks import unknown_name
from vaejax.data.check import check_data, support_of
from vaejax.data.pixels import Policy


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every experiment on a VAE shares: data, likelihood, encoder and how a step is taken."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, omniglot, cifar10, or tfds:NAME."""
    data_folder: str | None = None
    """Where NAME.npz or the idx.gz files lie; else $VAEJAX_DATA, then TFDS."""
    binarisation: Policy = "dynamic"
    """How grey pixels become 0 and 1: dynamic (afresh at each access), static (once), threshold, or
    none.
    """
    likelihood: str = "bernoulli"
    """bernoulli, continuous-bernoulli, gaussian (its scale learned), gaussian:SCALE, laplace,
    categorical:LEVELS or discretized-logistic:LEVELS.
    """
    encoder: str = "diag-normal"
    """diag-normal, full-normal, low-rank:RANK, laplace, real-nvp:LAYERS, iaf:LAYERS, or vmf (for
    the sphere).
    """
    net: Literal["mlp", "gated", "conv"] = "mlp"
    """The nets of encoder and decoder."""
    hidden: tuple[int, ...] = (200, 200)
    """Widths of the hidden layers (mlp and gated)."""
    latent_dim: int = 2
    """Dimensions of z."""
    batch_size: int = 100
    learning_rate: float = 1e-3
    """Of Adam."""
    warm_up: int = 0
    """Steps over which the weight of the KL rises from 0 to 1 (estimator pathwise only)."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE and how it is trained. Names with a colon take a number: vamp:500."""

    prior: str = "normal"
    """normal, learned-normal, mixture:COMPONENTS, vamp:COMPONENTS (pseudo-inputs start at training
    examples), flow:LAYERS, maf:LAYERS, laplace, student-t, or sphere.
    """
    estimator: str = "pathwise"
    """Of the ELBO: pathwise, analytic-kl, stick-the-landing, taylor, measure-valued,
    score-function. Of the importance-weighted bound, with --num-samples of 2 or more: iwae, dreg,
    rws, vimco, ovis.
    """
    num_samples: int = 1
    """K, the samples of z in each bound."""
    num_steps: int = 10_000
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: cosine falls to 0 at num_steps."""
    clip_norm: float | None = None
    """Clip the gradient's global norm to this."""
    validate_every: int = 500
    patience: int | None = None
    """Stop after so many validations without a better one, and evaluate the best."""
    checkpoint_every: int = 2_000
    eval_samples: int = 500
    """Importance samples per example for log p(x)."""
    devices: int = 1
    """Shard each batch over so many devices."""
    out: str = "runs/train"
    """The run's folder."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; flags that are not given are the run's own."""
    overwrite: bool = False
    """Replace the run in --out."""


def training_config(setting: Setting, **changes: Any) -> Config:
    """The configuration of a training in another experiment's setting."""
    shared = {field.name: getattr(setting, field.name) for field in dataclasses.fields(Setting)}
    return Config(**shared | changes)


# What may differ between a run and its continuation: how far and where it goes, not what it
# computes.
FREE_TO_CHANGE = {
    "resume",
    "overwrite",
    "num_steps",
    "out",
    "data_folder",
    "eval_samples",
    "devices",
    "patience",
    "checkpoint_every",
    "validate_every",
}


def check(config: Config) -> None:
    """Raises ValueError for a number that cannot be."""
    counts = (
        "latent_dim num_samples num_steps batch_size validate_every checkpoint_every eval_samples"
        " devices"
    )
    for name in counts.split():
        if getattr(config, name) < 1:
            raise ValueError(f"{name} = {getattr(config, name)}; it must be at least 1")
    if not (config.learning_rate > 0 and math.isfinite(config.learning_rate)):
        raise ValueError(f"learning_rate = {config.learning_rate}; it must be positive")


def named(kind: str, name: str, table: dict[str, Callable]):
    """The value that `name`, or `name:number`, stands for in the table."""
    key, _, argument = name.partition(":")
    if key not in table:
        raise ValueError(unknown_name(kind, name, list(table)))
    parameters = inspect.signature(table[key]).parameters.values()
    if argument and not parameters:
        raise ValueError(f"{kind} {name!r}: it takes no number")
    if not argument and any(parameter.default is parameter.empty for parameter in parameters):
        raise ValueError(f"{kind} {name!r}: give a number, such as {key}:10")
    try:
        number = (
            [float(argument) if "." in argument or "e" in argument else int(argument)]
            if argument
            else []
        )
    except ValueError:
        raise ValueError(
            f"{kind} {name!r}: {argument!r} is no number; give one, such as {key}:10"
        ) from None
    return table[key](*number)


def build_model(config: Config, x: np.ndarray) -> vaejax.VAE:
    """The model of a configuration, for examples like x."""
    return vaejax.VAE(build_prior(config), build_likelihood(config, x.shape), build_encoder(config))


def build_prior(config: Config):
    dim = config.latent_dim
    table = {
        "normal": lambda: vaejax.StandardNormal(dim),
        "learned-normal": lambda: vaejax.LearnedNormal(dim),
        "mixture": lambda components: vaejax.MixtureOfGaussians(dim, components),
        "vamp": lambda components: vaejax.VampPrior(components),
        "flow": lambda layers=4: vaejax.FlowPrior(dim, layers),
        "maf": lambda layers=4: vaejax.FlowPrior(dim, layers, kind="autoregressive"),
        "laplace": lambda: vaejax.NumPyroPrior(partial(laplace, dim)),
        "student-t": lambda: vaejax.NumPyroPrior(partial(student_t, dim)),
        "sphere": lambda: vaejax.UniformOnSphere(dim),
    }
    return named("prior", config.prior, table)


def build_likelihood(config: Config, shape: tuple[int, ...]):
    def decoder(out=shape, heads=1):
        if config.net == "conv":
            return vaejax.ConvDecoder(out, heads=heads)
        return NETS[config.net](out, config.hidden[::-1], heads=heads)

    table = {
        "bernoulli": lambda: vaejax.Bernoulli(decoder()),
        "continuous-bernoulli": lambda: vaejax.ContinuousBernoulli(decoder()),
        "gaussian": lambda scale=None: vaejax.Gaussian(
            decoder(), "learned" if scale is None else scale
        ),
        "laplace": lambda: vaejax.Laplace(decoder(heads=2)),
        "categorical": lambda levels=256: vaejax.Categorical(decoder((*shape, levels)), levels),
        "discretized-logistic": lambda levels=256: vaejax.DiscretizedLogistic(
            decoder(heads=2), levels
        ),
    }
    return named("likelihood", config.likelihood, table)


def build_encoder(config: Config):
    dim = config.latent_dim

    def encoder(heads=1):
        if config.net == "conv":
            return vaejax.ConvEncoder(dim, heads=heads)
        return NETS[config.net](dim, config.hidden, heads=heads)

    table = {
        "diag-normal": lambda: vaejax.DiagNormal(encoder(2)),
        "full-normal": lambda: vaejax.FullNormal(encoder(dim + 2)),
        "low-rank": lambda rank: vaejax.LowRankNormal(encoder(2 + rank)),
        "laplace": lambda: vaejax.Laplace(encoder(2)),
        "real-nvp": lambda layers=4: vaejax.RealNVP(encoder(3), layers),
        "iaf": lambda layers=2: vaejax.InverseAutoregressive(encoder(3), layers),
        "vmf": lambda: vaejax.VonMisesFisher(encoder()),
    }
    return named("encoder", config.encoder, table)


NETS = {"mlp": partial(vaejax.MLP, activation=nn.relu), "gated": vaejax.GatedMLP}


def laplace(dim: int) -> npd.Distribution:
    return npd.Laplace(0.0, 1.0).expand((dim,)).to_event(1)


def student_t(dim: int) -> npd.Distribution:
    return npd.StudentT(5.0, 0.0, 1.0).expand((dim,)).to_event(1)


def build_objective(config: Config, model: vaejax.VAE):
    """The mean bound of a batch under the configuration's estimator."""
    samples = config.num_samples
    estimators = {
        "pathwise": lambda: vaejax.Pathwise(samples),
        "iwae": lambda: vaejax.Pathwise(samples, vaejax.iwae_bound),
        "analytic-kl": lambda: vaejax.AnalyticKL(samples),
        "stick-the-landing": lambda: vaejax.StickTheLanding(samples),
        "taylor": lambda: vaejax.TaylorControlVariate(samples),
        "measure-valued": lambda: vaejax.MeasureValued(samples),
        "score-function": lambda: vaejax.ScoreFunction(samples),
        "dreg": lambda: vaejax.DReG(samples),
        "rws": lambda: vaejax.RWS(samples),
        "vimco": lambda: vaejax.VIMCO(samples),
        "ovis": lambda: vaejax.OVIS(samples),
    }
    estimator = named("estimator", config.estimator, estimators)
    if config.warm_up:
        if config.estimator != "pathwise":
            raise ValueError(
                f"warm_up = {config.warm_up} with estimator {config.estimator!r}: a warm-up is for"
                " pathwise alone"
            )
        estimator = vaejax.Beta(vaejax.WarmUp(config.warm_up), samples)
    return vaejax.minibatch(partial(estimator, model))


def build_optimizer(config: Config) -> optax.GradientTransformation:
    cosine = config.schedule == "cosine"
    rate = (
        optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
        if cosine
        else config.learning_rate
    )
    adam = optax.adam(rate)
    return (
        adam
        if config.clip_norm is None
        else optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)
    )


def initial_params(
    config: Config, model: vaejax.VAE, images: np.ndarray, transform, key
) -> vaejax.Params:
    """`model.init`, with training examples as the pseudo-inputs of a VampPrior."""
    init_key, rows_key, pixels_key = jax.random.split(key, 3)
    params = jax.jit(model.init)(init_key, transform(images[0], pixels_key))
    if isinstance(model.prior, vaejax.VampPrior):
        count = model.prior.num_components
        if count > len(images):
            raise ValueError(
                f"prior vamp:{count} starts at {count} training examples, but there are"
                f" {len(images)}; choose fewer"
            )
        rows = np.asarray(jax.random.choice(rows_key, len(images), (count,), replace=False))
        params.theta["prior"] = jax.jit(jax.vmap(transform))(
            images[rows], jax.random.split(pixels_key, count)
        )
    return params


def trained(
    setting: Setting, images: np.ndarray, transform, num_steps: int, **changes: Any
) -> tuple[vaejax.VAE, vaejax.Params]:
    """The model of another experiment's setting, and its parameters after so many steps on these
    images.
    """
    config = training_config(setting, num_steps=num_steps, **changes)
    model = build_model(config, images[0])
    check_data(images, support_of(model), transform, name=setting.data)
    init_key, fit_key = jax.random.split(jax.random.key(setting.seed))
    start = initial_params(config, model, images, transform, init_key)
    how = {"num_steps": num_steps, "batch_size": setting.batch_size, "transform": transform}
    return (
        model,
        vaejax.fit(
            build_objective(config, model), start, build_optimizer(config), images, fit_key, **how
        ).params,
    )


class MetricsLog:
    """metrics.jsonl: the mean bound of every 100 steps, and each validation, as training goes. A
    resumed run writes it anew.
    """

    def __init__(self, path: Path, every: int = 100):
        self.path, self.every = path, every
        self.rows = self.validations = 0
        self.times: list[tuple[int, float]] = []

    def __call__(self, run: vaejax.Run) -> None:
        self.times.append((run.step, time.perf_counter()))
        bound, history = run.history["bound"], run.history
        ends = range((self.rows + 1) * self.every, run.step + 1, self.every)
        rows = [{"step": end, "bound": float(bound[end - self.every : end].mean())} for end in ends]
        later = slice(self.validations, None)
        pairs = zip(
            history["validation_step"][later].tolist(),
            history["validation_bound"][later].tolist(),
            strict=True,
        )
        rows += [{"step": step, "validation_bound": bound} for step, bound in pairs]
        with self.path.open("a" if len(self.times) > 1 else "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.rows, self.validations = self.rows + len(ends), len(history["validation_step"])

    def steps_per_second(self) -> float | None:
        """Between the first compiled call, whose time is the compiler's, and the last."""
        if len(self.times) < 2:
            return None
        (first, began), (last, ended) = self.times[0], self.times[-1]
        return round((last - first) / (ended - began), 2)


def prepared_folder(config: Config) -> Path:
    """The run's folder, empty or to be continued. Raises ValueError rather than write over another
    run.
    """
    out = Path(config.out)
    if not config.resume and out.exists() and any(out.iterdir()):
        if not config.overwrite:
            raise ValueError(
                f"{out} already holds a run: --resume it, --overwrite it, or name another --out"
            )
        if not (out / "config.json").exists():
            raise ValueError(
                f"{out} holds no config.json, so it is not a run, and is not overwritten; name"
                " another --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def train(config: Config) -> dict:
    """Runs the experiment and returns its result. Everything that can be refused is refused before
    the folder is touched.
    """
    check(config)
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    init_key, fit_key, evaluate_key, plot_key = jax.random.split(jax.random.key(config.seed), 4)
    model = build_model(config, dataset.train.images[0])
    objective, optimizer = build_objective(config, model), build_optimizer(config)
    support = support_of(model)
    for name in ("train", "valid", "test"):
        check_data(
            getattr(dataset, name).images, support, transform, name=f"{config.data} ({name})"
        )
    if config.batch_size > len(dataset.train.images):
        raise ValueError(
            f"batch_size = {config.batch_size}, but {config.data} has {len(dataset.train.images)}"
            " training examples"
        )
    if config.devices > jax.device_count() or config.batch_size % config.devices:
        raise ValueError(
            f"devices = {config.devices}: there are {jax.device_count()}, and batch_size ="
            f" {config.batch_size} must divide over them"
        )
    mesh = jax.make_mesh((config.devices,), ("data",)) if config.devices > 1 else None
    params = initial_params(config, model, dataset.train.images, transform, init_key)

    out = prepared_folder(config)
    facts = {"config": dataclasses.asdict(config), "data": dataset.source, **environment()}
    (out / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{config.data}: {dataset.source}", file=sys.stderr)

    log, began = MetricsLog(out / "metrics.jsonl"), time.perf_counter()
    run = vaejax.fit(
        objective,
        params,
        optimizer,
        dataset.train.images,
        fit_key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=transform,
        validation=dataset.valid.images,
        validate_every=config.validate_every,
        patience=config.patience,
        checkpoints=out / "checkpoints",
        checkpoint_every=config.checkpoint_every,
        resume=config.resume,
        config=fixed(config),
        mesh=mesh,
        callback=log,
    )
    train_seconds = time.perf_counter() - began
    params = run.best_params if config.patience and run.best_params else run.params

    print("evaluating on the test set ...", file=sys.stderr)
    settings = {"transform": transform, "batch_size": 100}
    evaluation = vaejax.evaluate(
        model,
        params,
        dataset.test.images,
        evaluate_key,
        num_samples=config.eval_samples,
        **settings,
    )
    draw(out, model, params, run, dataset, transform, plot_key)
    result = {
        "test_elbo": evaluation.elbo.mean,
        "test_elbo_standard_error": evaluation.elbo.standard_error,
        "test_log_marginal": evaluation.log_marginal.mean,
        "test_log_marginal_standard_error": evaluation.log_marginal.standard_error,
        "eval_samples": config.eval_samples,
        "active_units": evaluation.active_units,
        "latent_dim": config.latent_dim,
        "validation_bound": (
            float(run.history["validation_bound"][-1])
            if len(run.history["validation_bound"])
            else None
        ),
        "step": run.step,
        "train_seconds": round(train_seconds, 2),
        "steps_per_second": log.steps_per_second(),
        "out": str(out),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{evaluation} of {config.latent_dim}\npictures     {out}/*.png")
    return result


def draw(
    out: Path,
    model: vaejax.VAE,
    params: vaejax.Params,
    run: vaejax.Run,
    dataset: vaejax.Dataset,
    transform,
    key,
) -> None:
    """The four pictures of a run."""
    sample_key, rows_key, pixels_key, reconstruct_key, latent_key = jax.random.split(key, 5)
    shown = dataset.test.images[some_rows(rows_key, len(dataset.test.images), 64)]
    xs = jax.jit(jax.vmap(transform))(shown, jax.random.split(pixels_key, len(shown)))
    images, labels = dataset.test.images[:5_000], dataset.test.labels
    means = vaejax.posterior_means(model, params, images, latent_key, transform=transform)
    figures = {
        "curves": plots.curves(run.history, dataset.name),
        "samples": plots.samples(model, params, sample_key),
        "reconstructions": plots.reconstructions(model, params, xs, reconstruct_key),
        "latent": plots.latent(
            model, params, means, None if labels is None else labels[: len(images)]
        ),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)


def fixed(config: Config) -> dict:
    """The fields that a continuation must share. A cosine schedule depends on the length of the
    run, so then it counts.
    """
    free = FREE_TO_CHANGE - ({"num_steps"} if config.schedule == "cosine" else set())
    return {name: field for name, field in dataclasses.asdict(config).items() if name not in free}


def saved_config(out: str) -> Config:
    """The configuration of the run in `out`."""
    path = Path(out) / "config.json"
    if not path.exists():
        raise ValueError(
            f"nothing to resume: {path} does not exist; name the run's folder with --out, or leave"
            " out --resume"
        )
    fields = json.loads(path.read_text())["config"]
    values: dict[str, Any] = {
        name: tuple(field) if isinstance(field, list) else field for name, field in fields.items()
    }
    return Config(**values)


def parse(argv: list[str] | None) -> Config:
    """The configuration of a command line. With --resume, flags that are not given are the run's
    own.
    """
    config = tyro.cli(Config, args=argv)
    if not config.resume:
        return config
    saved = dataclasses.replace(saved_config(config.out), resume=True, out=config.out)
    config = tyro.cli(Config, args=argv, default=saved)
    now = fixed(config)
    differences = [
        f"{name}: saved {was!r}, now {now[name]!r}"
        for name, was in fixed(saved).items()
        if name in now and now[name] != was
    ]
    if differences:
        raise ValueError(
            f"{config.out} was trained with another configuration; {'; '.join(differences)}"
        )
    return config


def main(argv: list[str] | None = None) -> int:
    return command_line(lambda: train(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
