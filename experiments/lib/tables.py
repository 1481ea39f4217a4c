"""Tables in Markdown."""

from vaejax.base.mapping import Estimate
from vaejax.runs.table import markdown as markdown


def with_error(estimate: Estimate, digits: int = 3, sign: str = "") -> str:
    """mean ± standard error; `sign="+"` shows that of a mean above zero too."""
    return f"{estimate.mean:{sign}.{digits}f} ± {estimate.standard_error:.{digits}f}"


def percent(estimate: Estimate, sign: str = "") -> str:
    """100 times the mean ± standard error."""
    return with_error(Estimate(100 * estimate.mean, 100 * estimate.standard_error), 1, sign)


def bold_if(best: bool, cell: str) -> str:
    """**cell** where it is the best of its kind."""
    return f"**{cell}**" if best else cell
