"""Methods that a base class holds to a contract, whoever defines them and whoever calls them."""

import functools

import pytest

from vaejax.base.contracts import hold


def positive(owner, method, x, **keywords):
    result = method(x, **keywords)
    if result <= 0:
        raise ValueError(f"{type(owner).__name__}.{method.__name__} is not above 0")
    return result


class Base:
    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        hold(cls, {"f": positive})

    def f(self, x):
        return x


hold(Base, {"f": positive})


class Own(Base):
    def f(self, x):
        """What it does."""
        return x - 1


class Inherits(Own):
    pass


class Mixin:
    def f(self, x, less=2):
        return x - less


class Mixed(Mixin, Base):
    pass


class AsksItsParent(Own):
    def f(self, x):
        return super().f(x) + 5


class Static(Base):
    @staticmethod
    def f(x):
        return x - 1


class OfTheClass(Base):
    @classmethod
    def f(cls, x):
        return x - 1


class Partly(Base):
    def g(self, x, less):
        return x - less

    f = functools.partialmethod(g, less=1)


class Cached(Base):
    @functools.lru_cache  # noqa: B019
    def f(self, x):
        return x - 1


@pytest.mark.parametrize("cls", [Base, Own, Inherits, Mixed, Static, OfTheClass, Partly, Cached])
def test_however_a_method_is_defined_it_goes_through_its_contract(cls):
    assert cls().f(4) > 0
    with pytest.raises(ValueError, match=rf"{cls.__name__}.f is not above 0"):
        cls().f(-4)
    with pytest.raises(ValueError, match=r"is not above 0"):
        cls.f(cls(), -4) if cls is not Static else cls().f(-4)


def test_what_is_asked_of_a_parent_is_between_the_two():
    """The parent's result, -1, is not held against the contract; the child's, 4, is."""
    assert AsksItsParent().f(0) == 4
    with pytest.raises(ValueError, match=r"AsksItsParent.f"):
        AsksItsParent().f(-9)


def test_it_stays_what_it_was():
    assert Own.f.__doc__ == "What it does."
    assert Mixed().f(4, less=1) == 3
    assert Inherits.f is Own.f
    with pytest.raises(ValueError, match=r"not above 0"):
        Mixed().f(4, less=9)


def test_a_field_of_the_name_is_no_method():
    class Field(Base):
        f = 3.0

    assert Field().f == 3.0
