"""A table of numbers in a text file, as spreadsheets write it: a row is an example."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_table(path: Path, label: str | None = None) -> tuple[dict[str, np.ndarray], str]:
    """({x_train: float64 [n, columns], y_train: the label column}, what the first line and the
    labels are taken for).

    The first line may name the columns; every other cell is a finite number, but for those of the
    column `label`, by its name or its number from 1 on: whole numbers, or names, whose classes are
    numbered in their alphabetical order. ValueError names the line and the column of what is
    neither.
    """
    delimiter = DELIMITERS[path.suffix.lower()]
    names, header = _columns(path, delimiter)
    number = None if label is None else _number_of(label, names, header, path)
    if len(list(islice(_lines(path, delimiter), 2))) <= bool(header):
        raise ValueError(f"{path} has no row of numbers")
    classes: dict[str, int] = {}  # in the order of their rows

    def code_of(cell: str) -> int:
        return classes.setdefault(cell.strip(), len(classes))

    try:
        values = np.loadtxt(
            path,
            delimiter=delimiter,
            skiprows=header,
            converters=None if number is None else {number: code_of},
            comments=None,
            quotechar='"',
            ndmin=2,
            encoding="utf-8-sig",
        )
    except ValueError as error:
        _raise_for_cell(path, delimiter, names, header, number)
        raise ValueError(f"{path} is not a table of numbers ({error})") from None
    if not np.isfinite(values).all():
        _raise_for_cell(path, delimiter, names, header, number)
    unnamed = "" if header else "no line of names, so the first line is an example"
    if number is None:
        return {"x_train": values}, unnamed
    labels, told = _labels(values[:, number].astype(np.int64), list(classes), path)
    images = np.delete(values, number, axis=1)
    if images.shape[1] == 0:
        raise ValueError(f"{path} has no column but the labels {names[number]!r}")
    return {"x_train": images, "y_train": labels}, "; ".join(filter(None, (unnamed, told)))


def _labels(codes: np.ndarray, classes: list[str], path: Path) -> tuple[np.ndarray, str]:
    """The labels of rows whose cells are classes[code], and what each means where it is a name."""
    numbers = [_number(cell) for cell in classes]
    if None not in numbers:
        return np.array(numbers)[codes], ""
    blank = [cell for cell in classes if not cell.strip()]
    if blank:
        raise ValueError(f"{path} has a row without a label; give it one, or leave it out")
    names = sorted(classes)
    order = np.array([names.index(cell) for cell in classes])
    return order[codes], classes_told(names)


def classes_told(names: list[str]) -> str:
    """Which number is which class, in words."""
    shown = ", ".join(f"{number} is {name}" for number, name in enumerate(names[:10]))
    return f"labels: {shown}{', ...' if len(names) > 10 else ''}"


def _columns(path: Path, delimiter: str) -> tuple[list[str], int]:
    """(the names of the columns, the number of the line that has them); their numbers from 1 on,
    and 0, where none has.
    """
    line, first = next(_lines(path, delimiter), (1, []))
    if not any(cell.strip() for cell in first):
        raise ValueError(f"{path} is empty: its first line has no cell")
    are_numbers = [_number(cell) is not None for cell in first]
    has_header = not any(are_numbers)
    names = first if has_header else [str(number) for number in range(1, len(first) + 1)]
    blank = next((i for i, name in enumerate(names, 1) if not name.strip()), None)
    if has_header and blank is not None:
        raise ValueError(
            f"{path}: column {blank} has no name; is it an index, as pandas writes it? Write the"
            " table anew, by to_csv(index=False)"
        )
    if len(first) > 1 and first == [str(number) for number in range(len(first))]:
        raise ValueError(
            f"{path} starts with 0, 1, ..., which are an example, or numbers of columns as pandas"
            " writes them: name the columns, or leave that line out"
        )
    bare = [name.strip() for name in names]
    twice = next((name for i, name in enumerate(bare) if name in bare[:i]), None)
    if twice is not None:
        raise ValueError(f"{path} names the column {twice!r} twice; name each once")
    return names, line if has_header else 0


def _number_of(label: str, names: list[str], header: int, path: Path) -> int:
    if label not in names:
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        kind = "" if header else " (it names none, so they are numbered)"
        raise ValueError(f"label = {label!r}: {path} has the columns {known}{kind}; name one")
    return names.index(label)


def _raise_for_cell(
    path: Path, delimiter: str, names: list[str], header: int, label: int | None
) -> None:
    """Raises ValueError for the first line of another length, or the first cell that is no finite
    number.
    """
    rows = _lines(path, delimiter)
    if header:
        next(rows)
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line} has {len(row)} columns, and the first line {len(names)};"
                f" columns are separated by {delimiter!r}"
            )
        for i, cell in enumerate(row):
            number = _number(cell)
            if i != label and (number is None or not np.isfinite(number)):
                shown = repr(cell) if cell.strip() else "empty"
                remedy = "" if label is not None else ", or, if it is the label, --label"
                raise ValueError(
                    f"{path}, line {line}, column {names[i]!r} is {shown}, not a finite"
                    f" number; give one, or leave out the row or the column{remedy}"
                )


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(its number from 1 on, its cells) of every line that has some."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table in UTF-8 ({error}); save it as text") from None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
