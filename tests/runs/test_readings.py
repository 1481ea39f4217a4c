"""How to read the page of a run."""

import numpy as np
import pytest

from vaejax.base.mapping import Estimate
from vaejax.evaluation.latents import LatentSpace
from vaejax.runs.readings import READINGS, reading_of
from vaejax.runs.report import latents_figure, page


def test_a_number_in_a_name_is_any_number():
    assert reading_of("IWAE-1,000") == reading_of("IWAE-40") == READINGS["IWAE-K"]
    assert reading_of("AIS − IWAE-50") == READINGS["AIS − IWAE-K"]
    assert reading_of("k-hat above 0.7") == READINGS["k-hat above K"]
    with pytest.raises(KeyError):
        reading_of("another number")


def test_what_is_shown_is_text():
    """A folder may have any name, and nothing of it is taken for HTML or for the template."""
    text = page("<b>$title</b>", [("ELBO", "<i>1</i>", "$rows & more")], ["a < b"], [], {})
    assert "&lt;b&gt;$title&lt;/b&gt;" in text and "&lt;i&gt;1&lt;/i&gt;" in text
    assert "$rows &amp; more" in text and "a &lt; b" in text and READINGS["ELBO"][:30] in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("known", ["kl", "information", "neither"])
def test_there_is_a_panel_of_the_latents_whatever_is_known(known):
    nats = np.array([0.5, 0.001])
    parts = {"kl": None, "information": None} | ({} if known == "neither" else {known: nats})
    unknown = dict.fromkeys(("mutual_information", "total_correlation", "dimension_wise"))
    space = LatentSpace(
        **parts, **unknown, rate=Estimate(0.6, 0.1), marginal_kl=0.2, limit=3.0, active=nats > 0.01
    )
    [axes] = latents_figure(space).axes
    drawn = [bar.get_width() if known == "neither" else bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(drawn, [0.6, 0.2] if known == "neither" else nats)
