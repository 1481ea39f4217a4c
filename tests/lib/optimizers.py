"""Every optimiser and wrapper that Optax has, found in its modules, and a small model to train."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import vaejax

XS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
PARAMS = vaejax.Params({"w": jnp.ones((2, 3))}, {"b": jnp.full(3, 0.2)})


def negative_square(params, x, key):
    return -jnp.sum((x - params.theta["w"] @ params.phi["b"]) ** 2)


OBJECTIVE = vaejax.minibatch(negative_square, support=vaejax.supports.REAL)
MASK = vaejax.Params(True, False)
# What each asks for without a default, by the name of the argument.
GIVEN = {
    "learning_rate": 0.01,
    "clipping": 0.1,
    "eta": 0.01,
    "gamma": 0.5,
    "max_delta": 1.0,
    "threshold": 1.0,
    "max_norm": 1.0,
    "inner": optax.adam(0.01),
    "inner_factory": optax.adam,
    "max_consecutive_errors": 3,
    "should_transform_fn": lambda step, **rest: step % 2 == 0,
    "decay": 0.9,
    "mask": MASK,
    "freeze_mask": MASK,
    "fast_optimizer": optax.sgd(0.01),
    "slow_step_size": 0.5,
    "sync_period": 2,
    "transforms": {"a": optax.adam(0.01), "b": optax.sgd(0.01)},
    "param_labels": vaejax.Params("a", "b"),
    "measure": optax.tree.norm,
    "measure_name": "norm",
    "step_size": 0.5,
    "step_size_fn": lambda step: 0.5,
    "max_backtracking_steps": 3,
    "max_linesearch_steps": 3,
    "optimizer": optax.adam(0.01),
    "adv_optimizer": optax.sgd(0.01),
    "base_optimizer": optax.sgd(0.01),
    "tx": optax.adam(0.01),
    "l2_norm_clip": 1.0,
    "noise_multiplier": 0.1,
    "seed": 0,
    "f": lambda updates, params: updates,
}
# Of those that need no learning rate, the ones whose updates are steps down already.
STEPS = {
    "optax.MultiSteps",
    "optax.lbfgs",
    "optax.named_chain",
    "optax.contrib.dadapt_adamw",
    "optax.contrib.mechanize",
    "optax.contrib.prodigy",
    "optax.contrib.sam",
}
# Beside these.
ARGUMENTS = {
    "optax.chain": ((optax.clip(1.0), optax.adam(0.01)), {}),
    "optax.named_chain": ((("first", optax.adam(0.01)),), {}),
    "optax.add_noise": ((), {"key": jax.random.key(0)}),
    "optax.contrib.differentially_private_aggregate": ((), {"key": jax.random.key(0)}),
    "optax.contrib.sam": ((), {"opaque_mode": True}),
}


def makers():
    """{name: function} of all in Optax that make a transformation of the gradient."""
    functions = {}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if name.startswith("_") or not (
                inspect.isfunction(function) or isinstance(function, partial)
            ):
                continue
            if "GradientTransformation" in str(inspect.signature(function).return_annotation):
                functions[f"{module.__name__}.{name}"] = function
    return functions | {"optax.MultiSteps": lambda: optax.MultiSteps(optax.adam(0.01), 2)}


def made(name):
    """The optimiser; one that only transforms the gradient is followed by a small step down."""
    function = makers()[name]
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_POSITIONAL]
    args, keywords = ARGUMENTS.get(name, ((), {}))
    optimizer = function(*args, **{key: GIVEN[key] for key in needed}, **keywords)
    if "inject" in name:
        optimizer = optimizer(learning_rate=0.01)
    is_step = "learning_rate" in needed or name in STEPS
    return optimizer if is_step else optax.chain(optimizer, optax.scale(-1e-3))


def fit(optimizer, num_steps=6, **settings):
    """A run of a few steps."""
    defaults = {"objective": OBJECTIVE, "params": PARAMS, "data": XS, "key": jax.random.key(0)}
    sizes = {"num_steps": num_steps, "batch_size": 4, "progress": False}
    return vaejax.fit(optimizer=optimizer, **(defaults | sizes | settings))
