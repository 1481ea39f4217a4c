"""What a published result is here: a row of a table, with its number, its frozen settings, and the
one method that computes it.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OneLayer(Row):
        num_samples: int
        num_steps: int = 600_000

        def compute(self, work: Work, seed: int) -> dict[str, float]:
            data, transform = vaejax.prepare_pixels(work.dataset("mnist", valid=400), "dynamic")
            ...
            steps = work.steps(self.num_steps)
            run = work.fit("vae", objective, params, cosine_adam(1e-3, steps), data.train.images,
                           key, num_steps=steps, batch_size=100, transform=transform)
            return work.evaluation(model, run.params, data.test.images, transform)

    TABLE = Table("iwae", "Burda et al. 2016, table 1", rows=(OneLayer(name="iwae-5", ...), ...))

    if __name__ == "__main__":
        run_table("iwae")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vaejax.base.checks import unknown_name
from vaejax.base.describe import description

if TYPE_CHECKING:
    from experiments.lib.work import Work


@dataclasses.dataclass(frozen=True)
class Published:
    """A number in print: of which unit, and where it was read. `value` is None where the paper has
    no number for the row.
    """

    value: float | None
    unit: str
    source: str


class Goal:
    """What counts as reached."""

    def is_met(self, ours: float, published: float | None) -> bool:
        raise NotImplementedError(f"{type(self).__name__}.is_met")


@dataclasses.dataclass(frozen=True)
class Within(Goal):
    """|ours - published| <= distance."""

    distance: float

    def is_met(self, ours, published):
        return published is not None and abs(ours - published) <= self.distance

    def __str__(self):
        return f"within {self.distance:g}"


@dataclasses.dataclass(frozen=True)
class AtMost(Goal):
    """ours <= limit."""

    limit: float

    def is_met(self, ours, published):
        return ours <= self.limit

    def __str__(self):
        return f"at most {self.limit:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One published number and how it is computed: derive, add the settings as fields, and write
    `compute`.

    measure  the name, among what `compute` gives, of the number that is held against the published
    versus   other rows of the table, from which the difference is given example by example
    note     what was chosen otherwise than in the paper, and why
    """

    name: str
    published: Published
    reached: Goal | None = None
    num_seeds: int = 1
    measure: str = "nll"
    versus: tuple[str, ...] = ()
    note: str = ""

    def compute(self, work: Work, seed: int) -> dict[str, Any]:
        """{name: number} of this row with this seed; all that takes time goes through `work`."""
        raise NotImplementedError(f"{type(self).__name__}.compute")

    def train_together(self, works: Mapping[int, Work]) -> None:
        """Trains the seeds in one program, for `compute` to go on from; see `trained_row`."""
        raise ValueError(f"the seeds of {self.name} are trained one after another, not together")


def settings_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """Of the description of a row, the fields that decide its numbers: not what is said of it."""
    said = {field.name for field in dataclasses.fields(Row)}
    return {name: part for name, part in described.items() if name not in said}


def by_names(thing: Any) -> Any:
    """The description of a value, its classes and functions by name alone: a record says which
    revision computed it, and a row goes on where its code changed under the same settings.
    """
    return _without_code(description(thing))


def _without_code(described: Any) -> Any:
    if isinstance(described, list):
        return [_without_code(part) for part in described]
    if not isinstance(described, Mapping):
        return described
    names = {kind: described[kind] for kind in ("type", "function") if kind in described}
    if names and "class" not in described:
        return names
    parts = {name: _without_code(part) for name, part in described.items()}
    if isinstance(parts.get("class"), Mapping):
        parts["class"] = parts["class"]["type"]
    return parts


Records = Mapping[str, Mapping[str, Any]]  # {row: what results/TABLE/ROW.json holds}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one paper. `columns` are other numbers of the rows to show, {name: heading}."""

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""

    def __post_init__(self):
        names = [row.name for row in self.rows]
        unknown = {name for row in self.rows for name in row.versus} - {*names}
        if len({*names}) < len(names) or unknown:
            raise ValueError(f"table {self.name}: rows {names}, compared with {sorted(unknown)}")

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(unknown_name("row", name, [row.name for row in self.rows]))

    def claims(self, records: Records) -> list[str]:
        """Sentences on what the recorded rows say together, such as an ordering; override."""
        return []
