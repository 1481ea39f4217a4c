"""A description is the same in every process, and another where any part is another."""

import collections
import dataclasses
import datetime
import functools
import importlib
import importlib.util
import inspect
import json
import operator
import re
import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest
from flax import nnx

import vaejax
from tests.base.test_numbers import FIELDS, KINDS, made
from tests.lib.cases import cases
from tests.lib.optimizer_numbers import OPTIMIZERS, others_of, spelt
from tests.lib.optimizers import fit
from tests.lib.paths import ROOT
from vaejax.base.compare import differences, told
from vaejax.base.describe import description, digest_of
from vaejax.base.functions import is_own
from vaejax.base.values import by_value

SCALE = 2.0


def scaled(x):
    return SCALE * x


def closed_over(number):
    def inner(x, offset=1):
        return x + number + offset

    return inner


def read_from(number):
    """A function of `__main__`, which reads a variable of its module."""
    known = {"__name__": "__main__", "number": number}
    code = compile("def f(x):\n    return x * number", "main.py", "exec")
    [constant] = [part for part in code.co_consts if inspect.iscode(part)]
    return type(scaled)(constant, known)


def calls(module):
    """A function of `__main__`, which calls one of this module."""
    code = compile("def f(x):\n    return module.function(x)", "main.py", "exec")
    [constant] = [part for part in code.co_consts if inspect.iscode(part)]
    return type(scaled)(constant, {"__name__": "__main__", "module": module})


def own_class(scale):
    class Own(vaejax.Prior):
        support = vaejax.supports.REAL

        def __call__(self, params, q):
            return scale

    return Own


def reads(thing):
    """A function of `__main__`, which reads this."""
    return read_from(thing)


@dataclasses.dataclass
class Field:
    a: int = 0


class WithMore(Field):
    """No dataclass of its own, so that what it sets is no field."""

    def __init__(self, b):
        super().__init__()
        self.b = b


class Kept:
    @functools.cached_property
    def number(self):
        return 3


class KeptByCall(Kept):
    def __call__(self):
        return self.number


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Called:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.scale * x


def cycle(number):
    things = [number]
    things.append(things)
    return things


# Pairs that differ in one part.
PAIRS = {
    "activation": lambda: [vaejax.MLP(2, activation=f) for f in (nn.relu, nn.tanh)],
    "array": lambda: [np.arange(3.0), np.array([0.0, 1.0, 3.0])],
    "bound method": lambda: [Plain(a=1).__init__, Plain(a=2).__init__],
    "class": lambda: [npd.Normal, npd.Laplace],
    "class of a function": lambda: [own_class(1), own_class(2)],
    "closure": lambda: [closed_over(1), closed_over(2)],
    "cycle": lambda: [cycle(1), cycle(2)],
    "default": lambda: [lambda x, a=1: x, lambda x, a=2: x],
    "dtype": lambda: [jnp.float32, jnp.bfloat16],
    "jit": lambda: [jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)],
    "key": lambda: [jax.random.key(0), jax.random.key(1)],
    "key of another kind": lambda: [jax.random.key(0), jax.random.key(0, impl="rbg")],
    "lambda": lambda: [lambda x: x + 1.0, lambda x: x + 2.0],
    "lambda in a lambda": lambda: [lambda: lambda x: x + 1.0, lambda: lambda x: x + 2.0],
    "names read": lambda: [lambda x: jnp.exp(x), lambda x: jnp.log(x)],
    "nothing and its name": lambda: [None, "None"],
    "object": lambda: [Plain(a=1, b=(2, 3)), Plain(a=1, b=(2, 4))],
    "partial": lambda: [partial(scaled, x=1), partial(scaled, x=2)],
    "set": lambda: [{"a", "b"}, {"a", "c"}],
    "set in a lambda": lambda: [lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}],
    "range": lambda: [range(3), range(4)],
    "slice": lambda: [slice(1, 3), slice(1, 4)],
    "getter": lambda: [operator.itemgetter(1), operator.itemgetter(2)],
    "pattern": lambda: [re.compile("a"), re.compile("b")],
    "time": lambda: [datetime.timedelta(1), datetime.timedelta(2)],
    "queue": lambda: [collections.deque([1]), collections.deque([2])],
    "iterator": lambda: [iter([1]), iter([2])],
    "beside the fields": lambda: [WithMore(1), WithMore(2)],
    "list of NNX": lambda: [nnx.List([nnx.relu]), nnx.List([nnx.tanh])],
    "reads a set": lambda: [reads({1}), reads({2})],
    "reads a range": lambda: [reads(range(3)), reads(range(4))],
    "reads a pattern": lambda: [reads(re.compile("a")), reads(re.compile("b"))],
    "reads what jit made": lambda: [reads(jax.jit(lambda x: x + 1)), reads(jax.jit(lambda x: x))],
    "reads what is called": lambda: [reads(Called(2.0)), reads(Called(3.0))],
    "ufunc": lambda: [jnp.add, jnp.multiply],
    "variable of the module": lambda: [read_from(1), read_from(2)],
    "values of an enum": lambda: [inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY],
}


@pytest.mark.parametrize("make", cases(PAIRS))
def test_another_part_is_another_description(make):
    (first, other), (again, _) = make(), make()
    assert differences(description(first), description(other))
    if make is not PAIRS["default"]:
        assert description(first) == description(again)
    json.dumps(description(first), allow_nan=False)


SAME = {
    "kinds of numbers": [3, np.int64(3), jnp.asarray(3), 3.0],
    "partials": [partial(scaled, 1, k=2), by_value(partial(scaled, 1, k=2))],
    "nets with a place": [vaejax.MLP(2), vaejax.MLP(2, name="net")],
    "order of a dict": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    "not finite": [float("nan"), np.float64("nan")],
}


@pytest.mark.parametrize("things", cases(SAME))
def test_equal_things_are_described_alike(things):
    first, *rest = map(description, things)
    assert all(differences(first, other) == [] for other in rest)


USED = {
    "a kept property": (Kept(), lambda thing: thing.number),
    "a kept property of what is called": (KeptByCall(), lambda thing: thing()),
    "a program of jit": (jax.jit(lambda x: x + 1), lambda thing: thing(1.0)),
    "a cache": (functools.cache(lambda x: x), lambda thing: thing(1)),
    "a Linen module": (nn.Dense(2), lambda thing: thing.init(jax.random.key(0), jnp.ones(2))),
    "a NumPyro density": (
        npd.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        lambda thing: (thing.mean, thing.covariance_matrix),
    ),
    "an optimiser": (optax.adam(1e-3), lambda thing: thing.init(jnp.ones(2))),
}


@pytest.mark.parametrize("case", cases(USED))
def test_what_was_used_is_described_as_before(case):
    thing, use = case
    before = description(thing)
    use(thing)
    assert differences(before, description(thing)) == []


ALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import optax, jax, vaejax
from tests.base.test_describe import PAIRS
from tests.lib.kinds import KINDS, REFINED
from tests.lib.optimizer_numbers import OPTIMIZERS
from vaejax.base.describe import description, digest_of
things = {**KINDS, **REFINED, **{f"optax.{name}": make() for name, make in OPTIMIZERS.items()}}
things |= {name: make()[0] for name, make in PAIRS.items()}
things["own"] = lambda x, words={"a", "b", "c"}: x if x in {"u", "v", "w"} else words
print(json.dumps({name: digest_of(description(thing)) for name, thing in things.items()}))
"""


def test_a_function_is_told_by_what_it_reads_of_an_object():
    """Not by the rest of it: a configuration may say that a run is resumed."""

    def function_of(**settings):
        known = {"__name__": "__main__", "config": Plain(**settings)}
        code = compile("def f(x):\n    return x / config.scale", "main.py", "exec")
        [constant] = [part for part in code.co_consts if inspect.iscode(part)]
        return description(type(scaled)(constant, known))

    assert function_of(scale=2.0, resume=False) == function_of(scale=2.0, resume=True)
    (line,) = differences(function_of(scale=2.0), function_of(scale=3.0))
    assert line == "reads.config.scale: saved 2.0, now 3.0"


def test_objects_that_know_each_other_are_described_in_time():
    """Thirty of them, each of which knows all: as many paths as orders."""
    things = [Plain(number=number) for number in range(30)]
    for thing in things:
        thing.all = things
    described = json.dumps(description(things[0]))
    assert len(described) < 10_000 and described == json.dumps(description(things[0]))
    things[-1].number = -1
    assert json.dumps(description(things[0])) != described


OWN = '''
"""A user's module."""
import functools
import flax.linen as nn
import jax, vaejax

OFFSET = 1.0

def inner(x):
    return x + OFFSET

def function(x):
    """Its claim."""
    shifted = inner(x)
    return 2.0 * shifted

def keeps(f):
    @functools.wraps(f)
    def kept(x):
        return f(x)
    return kept

@jax.jit
def compiled(x):
    return inner(x)

@keeps
def decorated(x):
    return inner(x)

def maker(scale):
    def made(x):
        return scale * inner(x)
    return made

class Base:
    def __call__(self, x):
        return inner(x)

    def method(self, x):
        return inner(x)

class Instance(Base):
    pass

@vaejax.component
class Net:
    def apply(self, params, x):
        return inner(x)

class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(inner(x))

class Ours(vaejax.Prior):
    support = vaejax.supports.REAL

    def __call__(self, params, q):
        return inner(q)

# Two that know each other.
def even(n):
    return n == 0 or odd(n - 1) and inner(n)

def odd(n):
    return n != 0 and even(n - 1)
'''
USES = {
    "function": lambda module: module.function,
    "a function by its caller": calls,
    "partial": lambda module: partial(module.function, x=1),
    "jit": lambda module: module.compiled,
    "a decorator": lambda module: module.decorated,
    "a closure": lambda module: module.maker(2.0),
    "an instance that is called": lambda module: module.Instance(),
    "a bound method": lambda module: module.Instance().method,
    "a component": lambda module: module.Net(),
    "a Linen module": lambda module: module.Linen(),
    "a prior": lambda module: module.Ours(),
    "recursion": lambda module: module.odd,
    "a class": lambda module: module.Instance,
}
EDITS = {
    "a number": ("OFFSET = 1.0", "OFFSET = 1.5"),
    "an operation": ("return x + OFFSET", "return x - OFFSET"),
    "another function": ("return x + OFFSET", "return jax.numpy.exp(x)"),
}
HARMLESS = {
    "a line": ("OFFSET = 1.0", "\n\nOFFSET = 1.0"),
    "a docstring": ("Its claim.", "What it is."),
    "the name of a variable": ("shifted", "moved"),
    "what is not read": ("OFFSET = 1.0", "OFFSET = 1.0\nOTHER = 3.0"),
}


def imported(folder, source):
    """The module, as a new process would have it."""
    path = folder / "of_a_user.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("of_a_user", path)
    sys.modules["of_a_user"] = module = importlib.util.module_from_spec(spec)
    code = compile(source, str(path), "exec")
    exec(code, vars(module))  # past the cache of compiled files
    return module


@pytest.mark.parametrize("use", cases(USES))
def test_a_users_module_that_was_edited_is_another(tmp_path, use):
    """However far the edit is from what was given."""
    first = description(use(imported(tmp_path, OWN)))
    assert json.dumps(first) == json.dumps(description(use(imported(tmp_path, OWN))))
    for edit in EDITS.values():
        assert differences(first, description(use(imported(tmp_path, OWN.replace(*edit))))), edit
    for edit in HARMLESS.values():
        now = description(use(imported(tmp_path, OWN.replace(*edit))))
        assert differences(first, now) == [], edit


def test_what_has_a_name_is_described_once(tmp_path):
    """Twenty functions, each of which calls all: as many paths as orders."""
    names = [f"f{number}" for number in range(20)]
    calls = " + ".join(f"{name}(x)" for name in names)
    module = imported(tmp_path, "\n".join(f"def {name}(x): return {calls}" for name in names))
    assert len(json.dumps(description(module.f0))) < 20_000


def test_a_name_that_an_earlier_version_kept_alone_is_compared_as_a_name(tmp_path):
    module = imported(tmp_path, OWN)
    now = json.loads(json.dumps(description({"f": module.function, "of": module.Instance()})))
    saved = {"f": {"function": "of_a_user.function"}, "of": {"class": "of_a_user.Instance"}}
    assert differences(saved, now) == differences(now, saved) == []
    for name, kind in (("f", "function"), ("of", "class")):
        (line,) = differences(saved | {name: {kind: "of_a_user.other"}}, now)
        assert line.startswith(f"{name}: saved of_a_user.other")


def test_only_a_users_module_is_told_by_its_code():
    for module in ("jax._src.nn.functions", "vaejax.base.values", "math", "dataclasses", "optax"):
        assert not is_own(module), module
    for module in ("__main__", __name__, "tests.lib.kinds"):
        assert is_own(module), module


@pytest.mark.parametrize("record, own", [("installed/__init__.py,sha256=0,0", False), ("", True)])
def test_a_package_is_installed_where_its_record_lies(tmp_path, monkeypatch, record, own):
    """As by `pip install --target`; JAX there was told by all of its code."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/__init__.py").touch()
    (tmp_path / "installed/inside.py").touch()
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x-1.dist-info/RECORD").write_text(f"x-1.dist-info/RECORD,,\n{record}\n")
    monkeypatch.syspath_prepend(tmp_path)
    is_own.cache_clear()
    modules = ("installed", "installed.inside")
    assert [is_own(importlib.import_module(name).__name__) for name in modules] == [own, own]
    for name in modules:
        del sys.modules[name]
    is_own.cache_clear()


@pytest.mark.slow
def test_it_is_the_same_in_every_process():
    """Whatever the seed of the hashes, and whatever else was imported."""
    digests = []
    for seed, first in (("1", ""), ("2", "import jax.experimental.sparse, optax.contrib\n")):
        done = subprocess.run(
            [sys.executable, "-c", first + ALL, str(ROOT)],
            capture_output=True, text=True, env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        digests.append(json.loads(done.stdout))
    assert digests[0] == digests[1] and len(digests[0]) > 60


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_of_each_component_counts(name):
    """As it counts for equality: every field with another value is another description."""
    kind, _, _ = FIELDS[name]
    thing = made(kind)
    for field in dataclasses.fields(kind):
        if isinstance(thing, nn.Module) and field.name in ("parent", "name"):
            continue
        changed = made(kind)
        object.__setattr__(changed, field.name, "something else")
        (line,) = differences(description(thing), description(changed))
        assert line.startswith(f"{field.name}: saved ") and "now something else" in line


@pytest.mark.parametrize("name", cases(list(KINDS)))
def test_every_kind_of_model_is_described_in_json(name):
    described = json.loads(json.dumps(description(KINDS[name]), allow_nan=False))
    assert differences(described, description(KINDS[name])) == []
    assert "0x" not in json.dumps(described)


@pytest.mark.parametrize("name", cases(list(OPTIMIZERS)))
def test_every_number_of_every_optimiser_counts(name):
    """Each public optimiser of Optax: typed again it is the same, with another number another."""
    described = description(OPTIMIZERS[name]())
    assert differences(described, description(OPTIMIZERS[name]())) == []
    assert "0x" not in json.dumps(described, allow_nan=False)
    for changed, optimizer in others_of(name):
        assert differences(described, description(optimizer)), f"{name}: {changed}"


@pytest.mark.parametrize("name", cases(list(OPTIMIZERS)))
def test_a_number_of_an_optimiser_is_its_value_whatever_its_type(name):
    """Of float32 it is another number, unless it has few digits."""
    described = description(OPTIMIZERS[name]())
    for kind in (np.float64, np.asarray, lambda number: np.float32(number).item()):
        for number, optimizer in spelt(name, kind):
            lines = differences(described, description(optimizer))
            assert bool(lines) == (kind(number) != number), (number, lines)


def test_a_rounded_number_trains_otherwise():
    """So that it is right to tell it from the number; of the same value there is no difference."""
    params = fit(optax.rmsprop(0.01, decay=0.999)).params
    for decay, is_same in ((np.float64(0.999), True), (np.float32(0.999), False)):
        other = fit(optax.rmsprop(np.float32(0.01), decay=decay)).params
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True)
        assert all((left == two).all() for left, two in pairs) is is_same
    (line,) = differences(description(optax.sgd(0.1)), description(optax.sgd(np.float32(0.1))))
    assert line.endswith(" now -0.10000000149011612 (the same in float32 alone; write the first)")


def test_a_difference_names_the_path_and_both_values():
    model = KINDS["VAE"]
    net = vaejax.MLP((4, 4), (3, 5), activation=nn.relu)
    other = dataclasses.replace(model, likelihood=vaejax.Bernoulli(net))
    lines = differences(description({"model": model}), description({"model": other}))
    assert lines == [
        "model.likelihood.net.activation: saved jax.numpy.tanh, now jax.nn.relu",
        "model.likelihood.net.hidden: saved [3], now [3, 5]",
    ]
    assert told([f"a.b{i}: saved 1, now 2" for i in range(7)]).endswith("; and 2 more")
    assert told(["a.b: saved 1, now 2", "c.b: saved 1, now 2"]) == "a.b: saved 1, now 2"


def test_code_of_another_python_is_not_compared():
    saved = {"function": "f", "code": "Python 3.10: 01"}
    assert differences(saved, {"function": "f", "code": "Python 3.11: 02"}) == []
    assert differences(saved, {"function": "f", "code": "Python 3.10: 02"})
    assert differences(saved, {"function": "g", "code": "Python 3.11: 02"})


def test_code_is_what_it_computes():
    """No name of its own variables, no docstring, no line."""

    def one(x):
        """A."""
        y = x + 1
        return y * y

    def other(x):
        """Another."""

        z = x + 1
        return z * z

    codes = [description(function)["code"] for function in (one, other)]
    assert codes[0] == codes[1]


def test_names_are_public_ones():
    assert description(nn.relu) == {"function": "jax.nn.relu"}
    assert description(vaejax.MLP) == {"type": "vaejax.MLP"}
    assert description(scaled)["function"] == f"{scaled.__module__}.scaled"
    assert description(optax.adam(0.1))["update"]["function"].startswith("optax.chain.<locals>")
    assert len(digest_of(description(KINDS["VAE"]))) == 64
