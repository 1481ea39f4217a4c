"""The function whose gradient is measured."""

from vaejax.objectives.base import Maximised, Objective, require_objective


def differentiated(objective: Objective, step: int | None) -> Maximised:
    """(params, xs, key) -> what the objective maximises at a step of training.

    TypeError for a plain function; ValueError for a weight that moves with a step that is missing.
    """
    require_objective(objective)
    if step is None and objective.schedules:
        names = ", ".join(name for name, _ in objective.schedules)
        raise ValueError(
            f"{names} of {type(objective).__name__} moves with the step of training; say at which"
            " step the gradient is wanted, such as step=0"
        )
    return Maximised(objective, 0 if step is None else step)
