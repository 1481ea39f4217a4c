"""One language: a flag of one name has one type and one meaning, in all scripts and commands."""

import dataclasses
from collections import defaultdict
from typing import Annotated, get_args, get_origin, get_type_hints

from tests.lib.configs import configurations, is_help, meaning

# What has one name, and yet more than one type or meaning; and why.
REASONS = {
    "parts": "each experiment has its own",
    "warm_up": "a warm-up of `train` is for pathwise alone, that of the ladder for its objectives",
    "learning_rate": "of Adam, but of SGD where maximum likelihood and the review use it",
    "encoder": "a VAE with Bernoulli latents has no other encoder",
    "estimators": "of Bernoulli latents, of any with its K, or of the importance-weighted bound",
    "eval_size": "the examples that are shown in a picture are measured first",
    "eval_samples": "an evaluation says how far to trust the weights, which takes two",
    "prior": "`train` lists the names",
    "run": "a run that is evaluated, or whose checkpoints are measured",
    "resume": "of a training, or of a table of variances",
    "overwrite": "of a run, or of a result",
    "out": "of a run, of a result, or the file of draws",
    "data_folder": "of a run, where its data lie now",
    "batch_size": "of the examples that are evaluated together",
    "num_samples": "of z in a bound, or of the model",
    "num_chains": "the help of `evaluate` has none",
}


def type_of(hint) -> str:
    """The annotation without the help of a shared flag."""
    if get_origin(hint) is Annotated and any(map(is_help, get_args(hint))):
        kind, *rules = get_args(hint)
        rules = [rule for rule in rules if not is_help(rule)]
        hint = Annotated[kind, *rules] if rules else kind
    return repr(hint)


def test_a_flag_has_one_type_and_one_meaning():
    found = defaultdict(set)
    for config in map(type, configurations().values()):
        hints = get_type_hints(config, include_extras=True)
        for field in dataclasses.fields(config):
            found[field.name].add((type_of(hints[field.name]), meaning(config, field.name)))
    several = {name: said for name, said in found.items() if len(said) > 1}
    assert several.keys() == REASONS.keys(), several.keys() ^ REASONS.keys()
