"""The function whose gradient is measured."""

from vaejax.base.checks import require_count
from vaejax.base.types import PyTree
from vaejax.data.check import check_values
from vaejax.objectives.base import Maximised, Objective, require_objective


def differentiated(objective: Objective, step: int | None, xs: PyTree) -> Maximised:
    """(params, xs, key) -> what the objective maximises at a step of training.

    TypeError for a plain function; ValueError for a weight that moves with a step that is missing,
    and for data xs outside the objective's support, one example or a batch.
    """
    require_objective(objective)
    if step is not None:
        require_count(step, "step", least=0)
    check_values(xs, objective.support)
    if step is None and objective.schedules:
        names = ", ".join(name for name, _ in objective.schedules)
        raise ValueError(
            f"{names} of {type(objective).__name__} moves with the step of training; say at which"
            " step the gradient is wanted, such as step=0"
        )
    return Maximised(objective, 0 if step is None else step)
