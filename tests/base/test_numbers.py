"""Numbers in components and nets: what is none is refused when the value is made, and NumPy's
numbers are Python's. Every component is found by looking, so one that is added later is tested.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import types
import typing
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.kinds import KINDS
from vaejax.base.checks import plain_number, require_count, require_number, require_positive
from vaejax.networks.layers import Sized

NET, NET_OF_TWO = vaejax.MLP(2, (3,)), vaejax.MLP(2, (3,), heads=2)
# A value for each field that has no default, by the field's name.
VALUES: dict[str, Any] = {
    "above": 100.0,
    "alpha": 0.5,
    "beta": 0.5,
    "baseline": vaejax.LeaveOneOut(),
    "c": 0.5,
    "data": KINDS["VAE"],
    "dataset_size": 100,
    "dim": 3,
    "direction": "inverse",
    "encoder": vaejax.DiagNormal(vaejax.Free(2)),
    "f": lambda x, z: 0.0,
    "folder": "runs/none",
    "factory": lambda: npd.Normal(0.0, 1.0),
    "family": npd.Normal,
    "hidden": (3,),
    "inner": vaejax.minibatch(vaejax.Pathwise(), KINDS["VAE"]),
    "latent_dim": 2,
    "maximum": 255,
    "model": KINDS["VAE"],
    "nats": 0.5,
    "net": NET,
    "num_categories": 3,
    "num_chains": 4,
    "num_components": 3,
    "num_groups": 2,
    "num_samples": 4,
    "num_steps": 10,
    "optimizer": optax.sgd(0.1),
    "out": 2,
    "period": 10,
    "scale": 0.5,
    "shape": (3,),
    "states": (2, 3),
    "temperatures": vaejax.ais.Linear(4),
    "transition": vaejax.ais.HMC(),
}
OWN_VALUES: dict[str, dict[str, Any]] = {
    "ByNode": {"model": KINDS["layers"]},
    "FreeBitsByNode": {"model": KINDS["layers"]},
    "ConvDecoder": {"out": (4, 4)},
    "ResidualDecoder": {"out": (4, 4)},
}
# Made by the library alone, from numbers that were checked where they came in; or no numbers of a
# user's.
INTERNAL = {
    "Support": "a set, with infinite ends",
    "Integers": "a range of numbers",
    "Reals": "a range of numbers, with infinite ends",
    "OfImages": "what the decoders share",
    "Partial": "a function with any arguments",
    "Evaluation": "a result",
    "LatentSpace": "a result",
    "Calibration": "a result",
    "Minibatch": "made by minibatch, which checks",
    "Maximised": "made for gradients, with a step of training",
    "WeightsAndMean": "made by evaluate, which checks",
    "Summary": "made by evaluate, which checks",
    "Trainer": "made by fit, which checks",
    "GradientProgram": "made by gradient_moments, which checks",
    "_Head": "made by the groups of parameters, from shapes",
    "LeafSums": "variables of a traced program",
    "Whole": "variables of a traced program",
    "MovingProduct": "variables of a traced program",
    "FixedProduct": "variables of a traced program",
}
NEGATIVE, ZERO = "any finite number is one", "nothing of it"
ACCEPTED: dict[str, dict[Any, str]] = {
    "RenyiBound.alpha": {
        0: "IWAE",
        -1: NEGATIVE,
        np.inf: "log min w",
        -np.inf: "log max w",
        1e39: "as good as infinite",
        -1e39: "as good as infinite",
    },
    "Averaged.decay": {0: "the last parameters themselves"},
    "Beta.weight": {0: "no KL: an autoencoder"},
    "ConstantBaseline.c": {0: ZERO, -1: NEGATIVE},
    "Cyclical.end": {0: ZERO},
    "Cyclical.start": {0: ZERO},
    "DReG.alpha": {0: "IWAE", -1: "an upper bound in the limit"},
    "DoubleControlVariate.coefficient": {0: ZERO, -1: NEGATIVE, None: "learned"},
    "FlowPrior.num_layers": {0: "its base"},
    "FreeBits.nats": {0: ZERO},
    "FreeBitsByNode.nats": {0: ZERO},
    "FreeBitsByNode.weight": {0: ZERO},
    "InverseAutoregressive.num_layers": {0: "its base"},
    "OVIS.gamma": {0: "unbiased", -1: NEGATIVE},
    "RealNVP.num_layers": {0: "its base"},
    "Refined.num_steps": {0: "the start itself"},
    "ResidualDecoder.blocks": {0: "a plain convolution"},
    "ResidualEncoder.blocks": {0: "a plain convolution"},
    "StickTheLanding.coefficient": {0: "the plain gradient", -1: NEGATIVE},
    "TCVAE.alpha": {0: "a part left out"},
    "TCVAE.beta": {0: "a part left out"},
    "TCVAE.gamma": {0: "a part left out"},
    "VampPrior.init_scale": {0: "all at the example"},
    "WarmUp.end": {0: ZERO},
    "WarmUp.start": {0: ZERO},
}


def kinds_of(hint: Any) -> set:
    """The types that an annotation names; `tuple` for a tuple of numbers."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(kinds_of(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] in (int, float):
        return {tuple}
    return {hint}


@cache
def numeric_fields() -> dict[str, tuple[type, str, frozenset]]:
    """{"Class.field": (class, field, its types)} of every component and net of the library."""
    fields = {}
    for module in pkgutil.walk_packages(vaejax.__path__, "vaejax."):
        if module.name.endswith("__main__") or ".runs" in module.name:
            continue  # the fields of a run's configuration are checked as a whole, by its loader
        for name, kind in vars(importlib.import_module(module.name)).items():
            public = inspect.isclass(kind) and kind.__module__ == module.name and name[0] != "_"
            if not public or not dataclasses.is_dataclass(kind):
                continue
            is_component = "__hash__" in vars(kind) and vars(kind)["__hash__"] is not None
            is_value = kind.__dataclass_params__.frozen and kind.__dataclass_params__.eq
            if not ((is_component and is_value) or issubclass(kind, Sized)) or name in INTERNAL:
                continue
            hints = typing.get_type_hints(kind)
            for field in dataclasses.fields(kind):
                types_ = kinds_of(hints[field.name])
                if types_ & {int, float, tuple}:
                    fields[f"{name}.{field.name}"] = kind, field.name, frozenset(types_)
    return fields


def made(kind: type, **changed) -> Any:
    """One of the kind: every field without a default has a value from the table."""
    given = {}
    for field in dataclasses.fields(kind):
        own = OWN_VALUES.get(kind.__name__, {})
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if field.name in own or (field.init and not has_default):
            assert field.name in {**VALUES, **own}, f"say a value for {kind.__name__}.{field.name}"
            given[field.name] = {**VALUES, **own}[field.name]
    return kind(**{**given, **changed})


def bad_numbers(types_: frozenset, zero_is_bad: bool) -> list:
    bad = [0, -1, math.nan, math.inf, -math.inf, True, "3"]
    bad += [] if float in types_ else [2.5]
    bad += [] if type(None) in types_ else [None]
    if tuple in types_:
        bad = [(number,) for number in bad] + ([] if int in types_ else [3, None])
    bad += [np.float32(number) for number in bad if isinstance(number, float)]
    if float in types_:  # what a device has no number for: they would be infinite, and 0
        bad += [1e39, -1e39, *[1e-46] * zero_is_bad]
    return bad


FIELDS = numeric_fields()


def test_the_lists_name_what_there_is():
    assert len(FIELDS) > 60
    named = {*ACCEPTED}
    assert named <= set(FIELDS), named - set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_no_number_is_refused_when_it_is_made(name):
    kind, field, types_ = FIELDS[name]
    made(kind)
    accepted = ACCEPTED.get(name, {})
    for number in bad_numbers(types_, 0 not in accepted):
        plain = plain_number(number)
        is_accepted = any(plain is right or plain == right for right in accepted)
        if is_accepted and not isinstance(number, bool):
            continue
        try:
            made(kind, **{field: number})
        except (ValueError, TypeError) as error:
            message = str(error)
            assert "\n" not in message and field in message and kind.__name__ in message, message
            shown = number[0] if isinstance(number, tuple) else number
            assert repr(plain_number(shown)) in message, f"{name} = {number!r}: {message}"
        else:
            pytest.fail(f"{name} = {number!r} is accepted; refuse it, or say why it is fine")


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_fine_is_accepted(name):
    kind, field, _ = FIELDS[name]
    for number in ACCEPTED[name]:
        made(kind, **{field: number})


@pytest.mark.parametrize("name", FIELDS)
def test_numpy_s_numbers_are_python_s(name):
    """Equal, of one hash, and so of one compiled program."""
    kind, field, _ = FIELDS[name]
    value = getattr(made(kind), field)
    number = value[0] if isinstance(value, tuple) else value
    if not isinstance(number, int | float):
        number = 4.0 if isinstance(number, str) or number is None else 4
    number = min(number, 2**15) if isinstance(number, int) else 0.5
    scalars = [np.int64, np.uint16, np.int32] if isinstance(number, int) else [np.float64]
    scalars += [np.float32] if isinstance(number, float) else []
    for scalar in [*scalars, np.asarray, jnp.asarray]:
        given = (scalar(number),) if isinstance(value, tuple) else scalar(number)
        plain = (number,) if isinstance(value, tuple) else number
        if kind.__name__.endswith("Decoder") and field == "out":
            given, plain = given * 2, plain * 2
        ours, theirs = made(kind, **{field: given}), made(kind, **{field: plain})
        assert ours == theirs and hash(ours) == hash(theirs)
        assert type(getattr(ours, field)) is type(plain)


def test_one_trace_for_both_kinds_of_number():
    traces = []

    def program(x, estimator):
        traces.append(estimator)
        return x

    compiled = jax.jit(program, static_argnames="estimator")
    for count in (3, np.int64(3), np.int32(3), np.asarray(3), jnp.asarray(3)):
        compiled(jnp.ones(()), vaejax.Pathwise(count))
    assert len(traces) == 1


def test_a_model_of_numpy_s_numbers_trains():
    net = vaejax.MLP((np.int64(4), 4), (np.int64(3),))
    likelihood = vaejax.Gaussian(net, np.float32(0.5))
    encoder = vaejax.DiagNormal(vaejax.MLP(np.int64(2), (3,), heads=np.int32(2)))
    model = vaejax.VAE(vaejax.StandardNormal(jnp.asarray(2)), likelihood, encoder)
    objective = vaejax.minibatch(vaejax.Pathwise(np.int64(2)), model, dataset_size=np.int64(8))
    xs = np.ones((8, 4, 4), np.float32)
    params = model.init(jax.random.key(0), xs[0])
    steps = {"num_steps": np.int64(2), "batch_size": np.int64(4), "progress": False}
    run = vaejax.fit(objective, params, optax.sgd(0.0), xs, jax.random.key(0), **steps)
    assert np.isfinite(run.history["bound"]).all()


@pytest.mark.parametrize(
    "check, good, bad",
    [
        (require_count, (1, np.int64(3), np.uint8(1)), (0, True, np.bool(True), 1.0, "1", None)),
        (require_number, (0, -1.5, np.float32(2)), (math.nan, math.inf, True, "1", None, 1j)),
        (require_positive, (1, np.float16(0.5)), (0, -1, math.nan, np.float32(np.inf), True)),
        # What float32 has no number for, and what is 0 on a device.
        (require_number, (1e38, -1e38, 10**30, 1e-45), (1e39, -1e39, np.float64(1e300), 10**400)),
        (require_positive, (1e38, 1.2e-38), (1e39, 10**400, 1e-39, np.float64(1e-300), 5e-324)),
    ],
)
def test_the_checks(check, good, bad):
    for number in good:
        check(number, "Own.field")
    for number in bad:
        with pytest.raises(ValueError, match=r"^Own.field = .*; it must be"):
            check(number, "Own.field")


def test_an_array_that_is_traced_stays_one():
    def function(x):
        assert plain_number(x) is x
        return x

    jax.jit(function)(jnp.ones(()))
    assert plain_number(jnp.ones(2)).shape == (2,)
    key = jax.random.key(0)
    assert plain_number(key) is key
