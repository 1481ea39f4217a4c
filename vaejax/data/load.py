"""Data sets of images, as arrays in memory, from wherever they lie.

`load_dataset("mnist")` gives stored pixels in their own dtype; `prepare_pixels(dataset, "dynamic")`
says how they become x. The embedded digits (digits.npz) are the test part of "Optical Recognition
of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998,
doi:10.24432/C50P49, licence CC BY 4.0; 1,797 images of 8x8 pixels, 0..16, as scikit-learn ships
them.
"""

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaejax.base.checks import unknown_name
from vaejax.data.base import Dataset, Split
from vaejax.data.files import idx_files, read_idx_folder, read_npz
from vaejax.data.prepared import load_prepared
from vaejax.data.stored import checked_arrays, settled_maximum

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE = "VAEJAX_DATA"


class Facts(NamedTuple):
    """What the arrays themselves do not say: the largest value that a pixel can have, and how many
    images are held out. `num_test` is 0 where a set brings its own test split.
    """

    maximum: float
    num_valid: int
    num_test: int = 0
    size: tuple[int, int] | None = None  # of an image that is stored as a row


Stored = tuple[dict[str, np.ndarray], str]  # x_train, y_train, x_test, ..., and where they were

FACTS = {
    "digits": Facts(16, 200, 300),
    "mnist": Facts(255, 10_000, size=(28, 28)),
    "fashion_mnist": Facts(255, 10_000, size=(28, 28)),
    "binarized_mnist": Facts(1, 10_000, size=(28, 28)),
    "omniglot": Facts(255, 1_345, size=(28, 28)),
    "cifar10": Facts(255, 5_000),
}


def load_dataset(
    name: str, folder: str | Path | None = None, *, maximum: float | None = None
) -> Dataset:
    """The data set `name`: one of FACTS, or "tfds:NAME" for any image set of TensorFlow Datasets.

    Tried in order: the digits inside the package; `folder` (or $VAEJAX_DATA), for NAME.npz or
    NAME_packbits.npz there or in a folder NAME/, or for the four idx files in NAME/ or NAME/raw/;
    for Fashion-MNIST the folder of Debian's dataset-fashion-mnist; TFDS, through a file that keeps
    what was decoded once ($VAEJAX_CACHE, or ~/.cache/vaejax). A split that the set does not bring
    is drawn with seed 0. `Dataset.source` says where it was.

    `maximum` is the largest value that a pixel can have. Else it is 1 where none is above 1
    (booleans, bits, floats), else that of FACTS, and ValueError where the pixels contradict it.

    >>> digits = vaejax.load_dataset("digits")
    >>> digits.train.images.shape, digits.maximum
    ((1297, 8, 8), 16)
    """
    tfds_name = name.removeprefix("tfds:")
    _require_name(name, tfds_name)
    places = _places(name, folder)
    stored = _in_package(name) or (_in_places(name, places) if name == tfds_name else None)
    arrays, source = stored or load_prepared(tfds_name, _how_to_get(name, places))
    arrays = checked_arrays(arrays, source)
    facts = FACTS.get(name)
    size = len(arrays["x_train"])
    if facts is None:
        facts = Facts(255, size // 10, size // 10)
    largest = settled_maximum(arrays, source, name, facts.maximum, maximum)
    return _in_three_splits(name, arrays, source, facts, largest)


def _require_name(name: str, tfds_name: str) -> None:
    """Raises ValueError for a name that is unknown, or that could lead out of a folder."""
    if name == tfds_name and name not in FACTS:
        raise ValueError(unknown_name("data set", name, [*FACTS, "tfds:NAME"]))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", tfds_name):
        raise ValueError(
            f"data set {name!r}: a name is letters, digits, '_' and '-', with one '/config' at most"
        )


# Where a data set may lie: each gives its arrays and says where they were, or gives None.


def _in_package(name: str) -> Stored | None:
    if name != "digits":
        return None
    with np.load(str(files("vaejax.data") / "digits.npz"), allow_pickle=False) as stored:
        return {"x_train": stored["images"], "y_train": stored["labels"]}, "the package"


def _places(name: str, folder: str | Path | None) -> list[Path]:
    """The folders to look in; ValueError for one that is named and is none."""
    named = folder or os.environ.get(FOLDER_VARIABLE)
    places = [Path(named).expanduser().absolute()] if named else []
    for place in places:
        if not place.is_dir():
            origin = "" if folder else f" (${FOLDER_VARIABLE})"
            raise ValueError(f"data folder {str(named)!r}{origin} is no folder; name one")
    return [*places, DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else places


def _in_places(name: str, places: list[Path]) -> Stored | None:
    for place in places:
        own = _own_folders(place, name)
        for folder in (place, *own):
            for path in (folder / f"{name}.npz", folder / f"{name}_packbits.npz"):
                if path.is_file():
                    packed = path.stem.endswith("_packbits") or name.startswith("binarized")
                    return _in_shape(read_npz(path, packed=packed), name), str(path)
        for folder in own:
            if "x_train" in idx_files(folder):
                return read_idx_folder(folder), str(folder)
    return None


def _own_folders(place: Path, name: str) -> list[Path]:
    """Those that the set has for itself: their names say so, as MNIST/raw/ and fashion-mnist/ do.
    The idx files of all sets have the same names.
    """
    inside = sorted(place.iterdir()) if place.is_dir() else []
    own = [path for path in (place, *inside) if path.is_dir() and _plain(path.name) == _plain(name)]
    if place.name == "raw" and _plain(place.parent.name) == _plain(name):
        own.append(place)
    return [folder for path in own for folder in (path, path / "raw")]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _in_shape(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Images that are stored as rows of as many pixels as those of the set have."""
    size = FACTS[name].size
    rows = None if size is None else (size[0] * size[1],)
    return {
        key: x.reshape(-1, *size) if size and key[0] == "x" and x.shape[1:] == rows else x
        for key, x in arrays.items()
    }


def _how_to_get(name: str, places: list[Path]) -> str:
    """The sentences of the error for a set that is nowhere."""
    prepare = "prepare it once with TensorFlow: pip install 'vaejax[tfds-prepare]', and again"
    if name not in FACTS:
        return f"To have it, {prepare}"
    looked = ", ".join(str(place) for place in places) or f"no folder given: see ${FOLDER_VARIABLE}"
    bare = [str(place) for place in places if idx_files(place)]
    if bare:
        looked += f"; the idx files in {bare[0]} do not say of which set they are: move them to"
        looked += f" {name}/ there"
    debian = "apt-get install dataset-fashion-mnist (Debian, Ubuntu); or put "
    put = debian if name == "fashion_mnist" else "put "
    idx = f", or its idx files in {name}/," if FACTS[name].size else ""
    return (
        f"Looked in: {looked}. To have it, {put}{name}.npz{idx} in a folder and name that; or"
        f" {prepare}"
    )


def _in_three_splits(
    name: str, arrays: dict[str, np.ndarray], source: str, facts: Facts, maximum: float
) -> Dataset:
    """Out of x_train, x_valid, x_test and their labels: what is not there is drawn from train."""
    x, y = arrays["x_train"], arrays.get("y_train")
    held_out = {"valid": facts.num_valid, "test": facts.num_test or len(x) // 10}
    brought = {
        part: Split(arrays[f"x_{part}"], arrays.get(f"y_{part}"))
        for part in held_out
        if f"x_{part}" in arrays
    }
    drawn = {part: size for part, size in held_out.items() if part not in brought}
    _require_enough(source, len(x), drawn)
    order, splits = np.random.default_rng(0).permutation(len(x)), dict(brought)
    for part, size in drawn.items():
        rows, order = order[:size], order[size:]
        splits[part] = Split(x[rows], None if y is None else y[rows])
    if drawn:
        splits["train"] = Split(x[order], None if y is None else y[order])
        origin = f"{' and '.join(drawn)} drawn from train with seed 0"
    else:
        splits["train"], origin = Split(x, y), "as the set brings them"
    sizes = " / ".join(str(len(splits[part].images)) for part in ("train", "valid", "test"))
    source = f"{source}; {sizes} train / valid / test, {origin}"
    if maximum != facts.maximum:
        source += f"; pixels 0..{maximum:g}"
    return Dataset(name, **splits, maximum=maximum, source=source)


def _require_enough(source: str, size: int, drawn: dict[str, int]) -> None:
    """Raises ValueError for a set that leaves no image to a split."""
    if sum(drawn.values()) >= size or 0 in drawn.values():
        parts = " and ".join(f"{max(count, 1)} for {part}" for part, count in drawn.items())
        raise ValueError(
            f"{source} has {size} training images, of which {parts} would be held out; bring"
            f" {' and '.join(f'x_{part}' for part in drawn)} in the file, or more images"
        )
