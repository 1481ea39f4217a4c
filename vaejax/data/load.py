"""Data sets as arrays in memory, what the model sees of them, and the order in which training takes
them.

`load("mnist")` gives stored pixels in their own dtype; `pixels(dataset, "dynamic")` says how they
become x. The embedded digits (digits.npz) are the test part of "Optical Recognition of Handwritten
Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998, doi:10.24432/C50P49,
licence CC BY 4.0; 1,797 images of 8x8 pixels, 0..16, as scikit-learn ships them.
"""

import gzip
import importlib.util
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaejax.base.checks import unknown_name
from vaejax.data.base import Dataset, Split

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


FOLDER_VARIABLE, CACHE_VARIABLE = "VAEJAX_DATA", "VAEJAX_CACHE"


class Facts(NamedTuple):
    """What the arrays themselves do not say. `num_test` is 0 where a set brings its own test
    split.
    """

    maximum: float
    num_valid: int
    num_test: int = 0


FACTS = {
    "digits": Facts(16, 200, 300),
    "mnist": Facts(255, 10_000),
    "fashion_mnist": Facts(255, 10_000),
    "binarized_mnist": Facts(1, 10_000),
    "omniglot": Facts(255, 1_345),
    "cifar10": Facts(255, 5_000),
}


def load_dataset(name: str, folder: str | Path | None = None) -> Dataset:
    """The data set `name`: one of FACTS, or "tfds:NAME" for any image set of TensorFlow Datasets.

    Tried in order: the digits inside the package; `folder` (or $VAEJAX_DATA), for NAME.npz,
    NAME_packbits.npz or the four idx.gz files, there or in NAME/; for Fashion-MNIST the folder of
    Debian's dataset-fashion-mnist; what an earlier call decoded ($VAEJAX_CACHE, or
    ~/.cache/vaejax); TFDS. A split that the set does not bring is drawn with seed 0.
    """
    tfds_name = name.removeprefix("tfds:")
    if name == tfds_name and name not in FACTS:
        raise ValueError(unknown_name("data set", name, [*FACTS, "tfds:NAME"]))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", tfds_name):
        raise ValueError(
            f"data set {name!r}: a name is letters, digits, '_' and '-', with one '/config' at most"
        )
    if name == "digits":
        with np.load(str(files("vaejax.data") / "digits.npz"), allow_pickle=False) as stored:
            return _split(
                name, {"x_train": stored["images"], "y_train": stored["labels"]}, "the package"
            )
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    places = [Path(folder).expanduser()] if folder else []
    if name == "fashion_mnist":
        places.append(DEBIAN_FASHION_MNIST)
    for place in places if name == tfds_name else []:
        for path in (place / f"{name}.npz", place / f"{name}_packbits.npz", place / name, place):
            if path.suffix == ".npz" and path.exists():
                return _split(name, _read_npz(path), str(path))
            if (path / "train-images-idx3-ubyte.gz").exists():
                return _split(name, _read_idx_folder(path), str(path))
    cache = (
        Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vaejax").expanduser()
        / f"{tfds_name.replace('/', '-')}.npz"
    )
    if cache.exists():
        return _split(name, _read_npz(cache), f"TFDS, decoded in {cache}")
    arrays = _read_tfds(tfds_name, places)
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial_file = cache.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(partial_file, **arrays)  # pyright: ignore[reportArgumentType]
    partial_file.replace(cache)
    return _split(name, arrays, f"TFDS, decoded in {cache}")


def _split(name: str, arrays: dict[str, np.ndarray], source: str) -> Dataset:
    """Three splits out of x_train, x_valid, x_test and their labels, as far as they are there."""
    images = {
        part: arrays[f"x_{part}"] for part in ("train", "valid", "test") if f"x_{part}" in arrays
    }
    labels = {part: arrays.get(f"y_{part}") for part in images}
    facts = FACTS.get(name) or Facts(
        1 if images["train"].max() <= 1 else 255, len(images["train"]) // 10
    )
    held_out = {"valid": facts.num_valid, "test": facts.num_test or len(images["train"]) // 10}
    order = np.random.default_rng(0).permutation(len(images["train"]))
    drawn = []
    x, y = images["train"], labels["train"]
    for part in [part for part in ("valid", "test") if part not in images]:
        rows, order = order[: held_out[part]], order[held_out[part] :]
        images[part], labels[part] = x[rows], None if y is None else y[rows]
        images["train"], labels["train"] = x[order], None if y is None else y[order]
        drawn.append(part)
    sizes = " / ".join(str(len(images[part])) for part in ("train", "valid", "test"))
    how = (
        f"{' and '.join(drawn)} drawn from train with seed 0" if drawn else "as the set brings them"
    )
    splits = [Split(images[part], labels[part]) for part in ("train", "valid", "test")]
    return Dataset(
        name,
        *splits,
        maximum=facts.maximum,
        source=f"{source}; {sizes} train / valid / test, {how}",
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """x_train, y_train, ... or train, valid, test; images packed to bits by rows of 98 bytes are
    unpacked to 28x28.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key if key[1:2] == "_" else f"x_{key}": stored[key] for key in stored.files}
    if "x_train" not in arrays:
        raise ValueError(f"{path} holds {sorted(arrays)}; it needs x_train, or train")
    for key, array in arrays.items():
        if key.startswith("x_") and array.shape[1:] == (98,):
            arrays[key] = np.unpackbits(array, axis=1).reshape(-1, 28, 28)
        elif key.startswith("x_") and array.shape[1:] == (784,):
            arrays[key] = array.reshape(-1, 28, 28)
    return arrays


def _read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    names = {
        "x_train": "train-images-idx3",
        "y_train": "train-labels-idx1",
        "x_test": "t10k-images-idx3",
        "y_test": "t10k-labels-idx1",
    }
    return {key: _read_idx(folder / f"{stem}-ubyte.gz") for key, stem in names.items()}


def _read_idx(path: Path) -> np.ndarray:
    """Big-endian header: two zero bytes, type 8 (uint8), the number of axes, their lengths; then
    the bytes.
    """
    with gzip.open(path) as file:
        content = file.read()
    num_axes = content[3]
    shape = np.frombuffer(content, ">u4", num_axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if content[:3] != b"\0\0\x08" or values.size != shape.prod():
        raise ValueError(
            f"{path} is not an idx file of bytes: header {content[:4].hex()}, {values.size} values"
            f" for shape {tuple(shape)}"
        )
    return values.reshape(shape)


def _read_tfds(name: str, tried: list[Path]) -> dict[str, np.ndarray]:
    """Every example through `tfds.data_source`, which reads a prepared array_record without
    TensorFlow.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    if not Path(builder.data_dir).exists():
        if importlib.util.find_spec("tensorflow") is None:
            places = (
                ", ".join(str(place) for place in tried)
                or f"no folder given: see ${FOLDER_VARIABLE}"
            )
            raise FileNotFoundError(
                f"{name} is not here ({places}; TFDS has not prepared it). Put {name}.npz or its"
                " idx.gz files in a folder and name it, or prepare it once with TensorFlow: pip"
                " install 'vaejax[tfds-prepare]', then load it again"
            )
        builder.download_and_prepare()
    arrays = {}
    for part, split in {"train": "train", "valid": "validation", "test": "test"}.items():
        if split in builder.info.splits:
            source: Any = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
            examples = source.__getitems__(range(len(source)))
            if "image" not in examples[0]:
                raise ValueError(
                    f"tfds:{name} has the features {sorted(examples[0])}; load needs one named"
                    " 'image'"
                )
            images = np.stack([example["image"] for example in examples])
            arrays[f"x_{part}"] = images[..., 0] if images.shape[-1] == 1 else images
            if "label" in examples[0]:
                arrays[f"y_{part}"] = np.asarray([example["label"] for example in examples])
    return arrays
