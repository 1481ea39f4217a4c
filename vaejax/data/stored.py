"""What the arrays of an image set are held against when they are loaded: shapes, labels, and the
largest value that a pixel can have.
"""

import numpy as np

from vaejax.base.checks import LARGEST_COUNT, require_positive
from vaejax.data.dtypes import first_not_finite, native, require_real

Images = dict[str, np.ndarray]  # x_train, y_train, x_valid, ...

FAR_BELOW = 0.5  # of the usual maximum: no set that is stored as that has no brighter pixel


def checked_arrays(arrays: Images, where: str) -> Images:
    """The same, labels as a row of whole numbers; ValueError for images of several kinds, for
    numbers that are none, and for labels that are not one for each image.
    """
    checked = {}
    first = arrays["x_train"]
    for key, array in arrays.items():
        name = f"{where}: {key}"
        array = native(array)
        require_real(array.dtype, name)
        if key.startswith("y_"):
            checked[key] = _checked_labels(array, arrays.get(key.replace("y_", "x_")), name)
            continue
        if array.ndim < 2 or array.size == 0:
            raise ValueError(
                f"{name} has shape {array.shape}; images are [n, height, width], with channels"
                " last, and vectors [n, columns]"
            )
        if (array.shape[1:], array.dtype) != (first.shape[1:], native(first).dtype):
            raise ValueError(
                f"{name} has images {array.shape[1:]} of {array.dtype}, and x_train"
                f" {first.shape[1:]} of {first.dtype}; give all one shape and dtype"
            )
        place = first_not_finite(array)
        if place is not None:
            raise ValueError(f"{name} has a NaN or infinity, first at {place}; repair or remove it")
        checked[key] = array.astype(np.uint8) if array.dtype == np.bool_ else array
    return checked


def _checked_labels(labels: np.ndarray, images: np.ndarray | None, name: str) -> np.ndarray:
    """One whole number, from 0 to the largest count, for each image; a column of them is taken
    too.
    """
    if images is None:
        raise ValueError(f"{name} has labels of no images; give their images too")
    if labels.shape == (len(labels), 1):
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(
            f"{name} has shape {labels.shape} for {len(images)} images; give one whole number each"
        )
    in_range = (labels >= 0) & (labels <= LARGEST_COUNT)  # so that NaN is not
    wrong = labels[~(in_range & (labels == np.floor(labels)))]
    if wrong.size:
        raise ValueError(
            f"{name} has the label {wrong[0]}; give whole numbers from 0 on, below 2**31, or leave"
            " the labels out"
        )
    return labels.astype(np.int64) if labels.dtype.kind == "f" else labels


def settled_maximum(
    arrays: Images, where: str, name: str, usual: float | None, said: float | None
) -> float | None:
    """The largest value that a pixel can have: what was said, else 1 where no pixel is above 1,
    which booleans, bits and floats in [0, 1] are; else the usual one of the set. Where none is
    usual, other numbers are no pixels: None.

    ValueError where the pixels are not within it, or so far below that they have another: 4 bits,
    or percent.
    """
    images = [array for key, array in arrays.items() if key.startswith("x_")]
    low, high = min(float(x.min()) for x in images), max(float(x.max()) for x in images)
    if said is not None:
        require_positive(said, "maximum")
    elif usual is None and not 0 <= low <= high <= 1:
        return None
    if low < 0 or high == 0:
        raise ValueError(
            f"{where} has pixels in [{low:g}, {high:g}], and stored pixels are 0..maximum: shift"
            " and scale them in the file"
        )
    maximum = said if said is not None else 1 if high <= 1 or usual is None else usual
    if high > maximum:
        raise ValueError(
            f"{where} has pixels up to {high:g}, above {maximum:g}, {_whose(said, name)}:"
            f" {_remedy(high)}"
        )
    if said is None and 1 < high <= FAR_BELOW * maximum:
        raise ValueError(
            f"{where} has no pixel above {high:g}, far below {maximum:g}, {_whose(said, name)}:"
            f" {_remedy(high)}"
        )
    return maximum


def _whose(said: float | None, name: str) -> str:
    return f"the usual maximum of {name}" if said is None else "the maximum that was given"


def _remedy(high: float) -> str:
    return (
        f"say the largest value that a pixel can have, maximum={high:g} or --maximum {high:g} if it"
        " is that, or store them on the usual scale"
    )
