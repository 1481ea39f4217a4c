"""What the fields of a configuration may hold, said where a field is declared: `num_steps: Count`.

`check_fields` holds each value against its annotation: its kind, the range of a number, the choices
of a `Literal`, and every `Rule`. A number without a range is refused, so that none is forgotten.
"""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vaejax.base.checks import SEEDS, Integers, Reals, require_in, shortened, unknown_name

Count = Annotated[int, Integers(1)]
Plural = Annotated[int, Integers(2)]  # of which there is a variance
CountOrZero = Annotated[int, Integers(0)]
Seed = Annotated[int, SEEDS]
Positive = Annotated[float, Reals(0, is_open=True)]
PositiveOrZero = Annotated[float, Reals(0)]
Fraction = Annotated[float, Reals(0, 1)]
InnerFraction = Annotated[float, Reals(0, 1, is_open=True)]
Finite = Annotated[float, Reals()]

Sizes = Mapping[str, int]  # {"train": how many examples, "test": how many}


class Rule:
    """What an annotation asks of a value beside its kind: `Annotated[str, Name("prior")]`. `brief`
    says it in a few words, for the help of a flag.
    """

    brief: str = ""

    def check(self, value: Any, name: str) -> None:
        """Raises ValueError for a value of the field `name` that cannot be."""

    def check_sizes(self, value: Any, name: str, sizes: Sizes) -> None:
        """Raises ValueError for a value that is not for data of these sizes."""


@dataclasses.dataclass(frozen=True)
class Listed(Rule):
    """A list that is not empty and, where `each_once`, names nothing twice."""

    each_once: bool = True

    def check(self, value: tuple, name: str) -> None:
        if not value:
            raise ValueError(f"{name} is empty; name at least one")
        twice = next((part for i, part in enumerate(value) if part in value[:i]), None)
        if self.each_once and twice is not None:
            raise ValueError(f"{name} = {shortened(value)} has {twice!r} twice; name each once")


Entries = TypeVar("Entries")
NonEmpty = Annotated[tuple[Entries, ...], Listed(each_once=False)]
Distinct = Annotated[tuple[Entries, ...], Listed()]


@dataclasses.dataclass(frozen=True)
class AtMost(Rule):
    """A number of examples, of which a split has enough."""

    split: Literal["train", "test"]

    def check_sizes(self, value: int, name: str, sizes: Sizes) -> None:
        size = sizes[self.split]
        if value > size:
            kind = {"train": "training", "test": "test"}[self.split]
            raise ValueError(f"{name} = {value}, but the data have {size} {kind} examples")


def brief_range(hint: Any) -> str:
    """What a value of this annotation may hold, in a few words; "" where they are none."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        said = [note.brief for note in inner[1:] if isinstance(note, Integers | Reals | Rule)]
        words = [*(brief for brief in said if brief), brief_range(inner[0])]
        return words[-2] if len(words) > 1 else words[-1]
    if origin in (Union, types.UnionType):
        return "".join(map(brief_range, inner))
    within = brief_range(inner[0]) if origin is tuple else ""
    return f"each {within}" if within else ""


def check_fields(config: Any) -> None:
    """Raises ValueError for the first field outside of what its annotation says, TypeError for one
    of another kind, or for an annotation of numbers that says no range.
    """
    for rule, value, name in _rules_of(config):
        rule.check(value, name)


def check_sizes(config: Any, sizes: Sizes) -> None:
    """Raises ValueError for the first field that asks for more examples than there are."""
    for rule, value, name in _rules_of(config):
        rule.check_sizes(value, name, sizes)


def _rules_of(config: Any) -> Iterator[tuple[Rule, Any, str]]:
    """(rule, value, name) of every rule that holds for a value of the dataclass."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        yield from _rules_of_value(getattr(config, field.name), hints[field.name], field.name)


def _rules_of_value(value: Any, hint: Any, name: str) -> Iterator[tuple[Rule, Any, str]]:
    """Checks the kind and the range of one value on the way."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (present,) = (kind for kind in inner if kind is not type(None))
        if value is not None:
            yield from _rules_of_value(value, present, name)
    elif origin is Annotated:
        yield from _rules_of_annotated(value, inner[0], inner[1:], name)
    elif origin is tuple:
        yield from _rules_of_tuple(value, inner[0], name)
    elif origin is Literal:
        _require_named(value, inner, name)
    else:
        _require_instance(value, hint, name)


def _rules_of_annotated(
    value: Any, kind: Any, notes: tuple[Any, ...], name: str
) -> Iterator[tuple[Rule, Any, str]]:
    ranges = [note for note in notes if isinstance(note, Integers | Reals)]
    for known in ranges:
        require_in(value, name, known)
    if not ranges:
        yield from _rules_of_value(value, kind, name)
    yield from ((rule, value, name) for rule in notes if isinstance(rule, Rule))


def _rules_of_tuple(value: Any, kind: Any, name: str) -> Iterator[tuple[Rule, Any, str]]:
    if not isinstance(value, tuple):
        remedy = f"write {tuple(value)!r}" if isinstance(value, list) else "give a tuple"
        raise TypeError(f"{name} = {shortened(value)} is not a tuple; {remedy}")
    for i, part in enumerate(value):
        yield from _rules_of_value(part, kind, f"{name}[{i}]")


def _require_named(value: Any, names: tuple[str, ...], name: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} = {shortened(value)}; it must be one of {', '.join(names)}")
    if value not in names:
        raise ValueError(unknown_name(name, value, list(names)))


def _require_instance(value: Any, kind: type, name: str) -> None:
    if kind in (int, float):
        raise TypeError(f"{name}: {kind.__name__} says no range; annotate it as vaejax.runs does")
    if not isinstance(value, kind):
        raise TypeError(f"{name} = {shortened(value)}; it must be a {kind.__name__}")
