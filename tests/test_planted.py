"""Tests of the tests: the list of planted bugs is whole and in date, and a sample of it is caught.
`make mutants` plants them all.
"""

import ast
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from tests.lib.mutants import fails_with, mutants
from tests.lib.paths import ROOT
from tests.test_house import WINGS

MUTANTS = {mutant.name: mutant for mutant in mutants()}
FEWEST = 70
WITHOUT_FORMULAS = {"plots"}  # pictures, which are looked at

PATHWISE = "estimators/test_pathwise.py::"
CONTROLS = "estimators/test_control_variates.py::"
RELAXED = "estimators/test_relaxed.py::"

# Quick ones, and the test that sees each.
SAMPLE = {
    "estimators/pathwise-1": PATHWISE + "test_the_coefficient_is_that_of_its_pilot",
    "estimators/pathwise-2": PATHWISE + "test_the_pilot_has_noise_of_its_own",
    "bounds-6": "test_bounds.py::test_bounds_are_their_formulas",
    "estimators/control_variates-1": CONTROLS + "test_the_controls_are_their_formulas",
    "estimators/control_variates-2": CONTROLS + "test_psi_learns_to_reduce_the_variance",
    "estimators/relaxed-1": RELAXED + "test_the_temperature_divides_the_noisy_logits",
}


@cache
def program(file):
    return ast.dump(ast.parse((ROOT / file).read_text()))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_can_be_planted(name):
    """Its text stands once in its file, it makes another program of it, and its tests exist."""
    mutant = MUTANTS[name]
    assert ast.dump(ast.parse(mutant.source())) != program(mutant.file)
    assert mutant.tests and all((ROOT / "tests" / test).exists() for test in mutant.tests)


def test_there_are_enough_of_them_in_every_wing():
    assert len(MUTANTS) >= FEWEST
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS.values()}) == len(
        MUTANTS
    )
    counts = Counter(mutant.wing for mutant in MUTANTS.values())
    assert not {wing for wing in WINGS if counts[wing] < 2} - WITHOUT_FORMULAS


@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_bug_is_caught(name):
    assert fails_with(MUTANTS[name], SAMPLE[name])


def test_nothing_is_caught_where_nothing_is_planted():
    """The same way of planting, of a text in place of itself."""
    name = "bounds-6"
    mutant = MUTANTS[name]
    assert not fails_with(replace(mutant, new=mutant.old), SAMPLE[name])
