"""One language: a flag of one name has one type and one meaning in all experiments and commands."""

from flag_table import REASONS, configurations, document, flags

from tests.lib.paths import ROOT


def test_a_flag_has_one_type_and_one_meaning():
    """But for those with a reason."""
    variants = flags(configurations().values())
    several = {name for name, meanings in variants.items() if len(meanings) > 1}
    assert several == REASONS.keys(), several ^ REASONS.keys()


def test_every_flag_says_what_it_means():
    for name, meanings in flags(configurations().values()).items():
        for (kind, text), owners in meanings.items():
            assert text.endswith(".") and kind, (name, owners)


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "flags.md").read_text()
    assert page == document(), "python scripts/flag_table.py > docs/flags.md"
