"""Several families of q(z|x) on one decoder, and how far each is from its best."""

import dataclasses
from typing import Any

import jax

import vaejax
from experiments.lib import flags
from vaejax.base.fields import Count
from vaejax.runs.build import build_model, build_optimizer, initial_params, trained
from vaejax.runs.config import training_config

Entries = dict[str, tuple[Any, vaejax.Params]]  # {name: (a VAE or a Refined, its parameters)}


@vaejax.component
class EncoderBound(vaejax.Estimator):
    """The one-sample ELBO with theta held fixed, so that the encoder alone is trained."""

    def __call__(self, model, params, x, key):
        held = params._replace(theta=jax.lax.stop_gradient(params.theta))
        return vaejax.Pathwise()(model, held, x, key)


@dataclasses.dataclass(frozen=True)
class EncodersSetting(flags.ModelSetting):
    """A VAE, and the encoders that are trained on its decoder."""

    hidden: tuple[Count, ...] = (100,)
    num_steps: Count = 3_000
    encoders: flags.Encoders = ("diag-normal", "full-normal", "real-nvp:4")
    encoder_steps: flags.EncoderSteps = 3_000


def encoders_of_one_decoder(setting: EncodersSetting, images, transform) -> Entries:
    """{encoder: (model, parameters)}: a VAE is trained, then an encoder of each kind on its theta,
    which is the same in all. The rates fall to zero along a cosine.
    """
    config = training_config(setting, num_steps=setting.encoder_steps, schedule="cosine")
    # What is no encoder for this prior is refused before anything trains.
    variants = {
        name: build_model(dataclasses.replace(config, encoder=name), images[0])
        for name in setting.encoders
    }
    _, shared = trained(setting, images, transform, setting.num_steps, schedule="cosine")
    init_key, _, encoder_key = jax.random.split(jax.random.key(setting.seed), 3)
    settings = {
        "key": encoder_key,
        "num_steps": setting.encoder_steps,
        "batch_size": setting.batch_size,
        "transform": transform,
    }
    entries: Entries = {}
    for name, variant in variants.items():
        start = initial_params(config, variant, images, transform, init_key)
        start = start._replace(theta=shared.theta)
        objective, optimizer = vaejax.minibatch(EncoderBound(), variant), build_optimizer(config)
        run = vaejax.fit(objective, start, optimizer, images, **settings)
        entries[name] = variant, run.params
    return entries


def free_encoder(encoder: Any, name: str, dim: int) -> Any:
    """The encoder's family with free parameters, of one example, in place of the net."""
    rows = [f"row {i + 1}" for i in range(dim)] if name == "full-normal" else []
    return dataclasses.replace(encoder, net=vaejax.Free(dim, ("loc", "log_scale", *rows)))


def gap_parts(gap: vaejax.Gap) -> dict[str, Any]:
    """Means over the examples with standard errors; the parts add up to the gap exactly."""
    values = {
        "elbo": gap.elbo,
        "best": gap.best,
        "log_marginal": gap.log_marginal,
        "gap": gap.total,
        "approximation": gap.approximation,
        "amortisation": gap.amortisation,
    }
    return {name: vaejax.estimate(part) for name, part in values.items()}
