"""Tests of the tests: the list of planted bugs is whole and in date, and a sample of it is caught.
`make mutants` plants them all.
"""

import ast
from collections import Counter

import pytest

from tests.lib.mutants import fails_with, mutants
from tests.lib.paths import ROOT
from tests.test_house import WINGS

MUTANTS = {mutant.name: mutant for mutant in mutants()}
FEWEST = 70
WITHOUT_FORMULAS = {"plots"}  # pictures, which are looked at

# Quick ones, and the test that sees each: issue 15 names the first six.
SAMPLE = {
    "base/mapping-2": "base/test_mapping.py",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_can_be_planted(name):
    """Its text stands once in its file, it makes another program of it, and its tests exist."""
    mutant = MUTANTS[name]
    source = mutant.source()
    assert ast.dump(ast.parse(source)) != ast.dump(ast.parse((ROOT / mutant.file).read_text()))
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
