"""Data sets as arrays in memory, what the model sees of them, and the order in which training takes them.

`load("mnist")` gives stored pixels in their own dtype; `pixels(dataset, "dynamic")` says how they become x. The embedded digits
(digits.npz) are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository 1998, doi:10.24432/C50P49, licence CC BY 4.0; 1,797 images of 8x8 pixels, 0..16, as scikit-learn ships them.
"""

import difflib
import gzip
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.supports import BINARY, COUNTS, REAL, Support
from vaejax.types import Key, PyTree

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE, CACHE_VARIABLE = "VAEJAX_DATA", "VAEJAX_CACHE"


class Split(NamedTuple):
    images: np.ndarray
    labels: np.ndarray | None = None


class Dataset(NamedTuple):
    """Stored pixels 0..maximum in three splits. `source` says where they came from and how they were split."""

    name: str
    train: Split
    valid: Split
    test: Split
    maximum: float
    source: str


class Facts(NamedTuple):
    """What the arrays themselves do not say. `num_test` is 0 where a set brings its own test split."""

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


def load(name: str, folder: str | Path | None = None) -> Dataset:
    """The data set `name`: one of FACTS, or "tfds:NAME" for any image set of TensorFlow Datasets.

    Tried in order: the digits inside the package; `folder` (or $VAEJAX_DATA), for NAME.npz, NAME_packbits.npz or the four
    idx.gz files, there or in NAME/; for Fashion-MNIST the folder of Debian's dataset-fashion-mnist; what an earlier call
    decoded ($VAEJAX_CACHE, or ~/.cache/vaejax); TFDS. A split that the set does not bring is drawn with seed 0.
    """
    tfds_name = name.removeprefix("tfds:")
    if name == tfds_name and name not in FACTS:
        raise ValueError(unknown("data set", name, [*FACTS, "tfds:NAME"]))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", tfds_name):
        raise ValueError(f"data set {name!r}: a name is letters, digits, '_' and '-', with one '/config' at most")
    if name == "digits":
        with np.load(str(files("vaejax") / "digits.npz"), allow_pickle=False) as stored:
            return _split(name, {"x_train": stored["images"], "y_train": stored["labels"]}, "the package")
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
    cache = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vaejax").expanduser() / f"{tfds_name.replace('/', '-')}.npz"
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
    images = {part: arrays[f"x_{part}"] for part in ("train", "valid", "test") if f"x_{part}" in arrays}
    labels = {part: arrays.get(f"y_{part}") for part in images}
    facts = FACTS.get(name) or Facts(1 if images["train"].max() <= 1 else 255, len(images["train"]) // 10)
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
    how = f"{' and '.join(drawn)} drawn from train with seed 0" if drawn else "as the set brings them"
    splits = [Split(images[part], labels[part]) for part in ("train", "valid", "test")]
    return Dataset(name, *splits, maximum=facts.maximum, source=f"{source}; {sizes} train / valid / test, {how}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """x_train, y_train, ... or train, valid, test; images packed to bits by rows of 98 bytes are unpacked to 28x28."""
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
    names = {"x_train": "train-images-idx3", "y_train": "train-labels-idx1", "x_test": "t10k-images-idx3", "y_test": "t10k-labels-idx1"}
    return {key: _read_idx(folder / f"{stem}-ubyte.gz") for key, stem in names.items()}


def _read_idx(path: Path) -> np.ndarray:
    """Big-endian header: two zero bytes, type 8 (uint8), the number of axes, their lengths; then the bytes."""
    with gzip.open(path) as file:
        content = file.read()
    num_axes = content[3]
    shape = np.frombuffer(content, ">u4", num_axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if content[:3] != b"\0\0\x08" or values.size != shape.prod():
        raise ValueError(f"{path} is not an idx file of bytes: header {content[:4].hex()}, {values.size} values for shape {tuple(shape)}")
    return values.reshape(shape)


def _read_tfds(name: str, tried: list[Path]) -> dict[str, np.ndarray]:
    """Every example through `tfds.data_source`, which reads a prepared array_record without TensorFlow."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    if not Path(builder.data_dir).exists():
        if importlib.util.find_spec("tensorflow") is None:
            places = ", ".join(str(place) for place in tried) or f"no folder given: see ${FOLDER_VARIABLE}"
            raise FileNotFoundError(
                f"{name} is not here ({places}; TFDS has not prepared it). Put {name}.npz or its idx.gz files in a folder and name it, "
                "or prepare it once with TensorFlow: pip install 'vaejax[tfds-prepare]', then load it again"
            )
        builder.download_and_prepare()
    arrays = {}
    for part, split in {"train": "train", "valid": "validation", "test": "test"}.items():
        if split in builder.info.splits:
            source: Any = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
            examples = source.__getitems__(range(len(source)))
            if "image" not in examples[0]:
                raise ValueError(f"tfds:{name} has the features {sorted(examples[0])}; load needs one named 'image'")
            images = np.stack([example["image"] for example in examples])
            arrays[f"x_{part}"] = images[..., 0] if images.shape[-1] == 1 else images
            if "label" in examples[0]:
                arrays[f"y_{part}"] = np.asarray([example["label"] for example in examples])
    return arrays


Policy = Literal["dynamic", "static", "threshold", "none"]


@value
class Pixels:
    """What the model sees of one stored image: x in {0, 1}, or in [0, 1] under the policy "none". `Pixels(255)(x, key)`.

    dynamic: x ~ Bernoulli(stored / maximum), afresh from the key. threshold: stored / maximum > 1/2. none: stored / maximum.
    """

    maximum: float
    policy: Policy = "dynamic"

    def __call__(self, stored: ArrayLike, key: Key) -> jax.Array:
        x = jnp.asarray(stored, jnp.float32) / self.maximum
        if self.policy == "dynamic":
            return jax.random.bernoulli(key, x).astype(x.dtype)
        return (x > 0.5).astype(x.dtype) if self.policy == "threshold" else x


def pixels(dataset: Dataset, policy: Policy = "dynamic", seed: int = 0) -> tuple[Dataset, Pixels]:
    """(data set, transform) under a binarisation policy; only "static", drawn here once from `seed`, changes what is stored.

    Results under "static" and "dynamic" are not comparable: say which.
    """
    if policy not in get_args(Policy):
        raise ValueError(unknown("binarisation", policy, list(get_args(Policy))))
    if dataset.maximum == 1:
        return dataset, Pixels(1, "none")
    if policy != "static":
        return dataset, Pixels(dataset.maximum, policy)
    generator = np.random.default_rng(seed)
    drawn = [
        Split((generator.random(images.shape) < images / dataset.maximum).astype(np.uint8), labels)
        for images, labels in (dataset.train, dataset.valid, dataset.test)
    ]
    source = f"{dataset.source}; binarised once with seed {seed}"
    return Dataset(dataset.name, *drawn, maximum=1, source=source), Pixels(1, "none")


def support_of(model: Any) -> Support | Mapping[str, Support]:
    """Which data a model is for: its likelihood's, or {name: its factor's} of a graph; any finite number, where it does not say."""
    supports = getattr(model, "supports", None)
    return getattr(getattr(model, "likelihood", None), "support", REAL) if supports is None else supports


def check_data(
    data: PyTree, support: Support | Mapping[str, Support] = REAL, transform: Callable | None = None, name: str = "data"
) -> None:
    """Raises ValueError for data that a likelihood with this support cannot have: on the host, before anything compiles."""
    if isinstance(support, Mapping):
        if isinstance(data, Mapping) and transform is None:
            for part, of_part in support.items():
                if part in data:
                    check_data(data[part], of_part, None, f"{name}[{part!r}]")
        support = REAL if isinstance(data, Mapping) or len(support) > 1 else next(iter(support.values()))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    if not leaves or any(leaf.ndim == 0 or leaf.size == 0 for leaf in leaves):
        raise ValueError(f"{name} is empty: shapes {[leaf.shape for leaf in leaves]}; give arrays with a leading axis of examples")
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(f"{name} has arrays of different lengths, {[len(leaf) for leaf in leaves]}; give one row per example in each")
    for leaf in leaves:
        if leaf.dtype.kind not in "biuf":
            raise ValueError(f"{name} has dtype {leaf.dtype}; give real numbers")
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            row = int(np.argwhere(~np.isfinite(leaf))[0][0])
            raise ValueError(f"{name} has a NaN or infinity, first in row {row}; remove or repair such rows")
    x = leaves[0]
    low, high = x.min(), x.max()
    if isinstance(transform, Pixels):
        if low < 0 or high > transform.maximum:
            raise ValueError(f"{name} has values in [{low}, {high}], outside 0..{transform.maximum:g}; give the maximum that is theirs")
        if transform.policy == "none" and not support.contains(x, transform.maximum):
            remedy = {
                BINARY: "choose a binarisation, one of dynamic, static or threshold, or a likelihood of grey pixels, such as "
                "ContinuousBernoulli or Gaussian",
            }.get(support, f"these are multiples of 1/{transform.maximum:g}: give the likelihood num_levels={transform.maximum + 1:g}")
            raise ValueError(f"{name} is grey and this likelihood is for {support.description}: {remedy}")
    elif transform is None and not support.contains(x):
        maximum = 255 if high > 1 else 1
        remedy = {
            BINARY: f"give transform=vaejax.Pixels({maximum}, policy) with policy dynamic or threshold, or binarise the data yourself",
            COUNTS: "round them, or choose a likelihood of real numbers, such as Gaussian",
        }.get(support, f'give transform=vaejax.Pixels({maximum}, "none"), which scales stored pixels, or scale the data yourself')
        raise ValueError(f"{name} has values in [{low:g}, {high:g}], and this likelihood is for {support.description}: {remedy}")


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The message for a name that is not in the table: the nearest known ones first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}"


def batch_rows(key: Key, size: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """[stop - start, batch_size] rows of the data for steps start..stop: a function of (key, step) alone.

    Batches are cut from one endless sequence of permutations, one an epoch, so that every epoch takes every example once.
    The shuffle is the host's: NumPy permutes 60,000 rows in 1 ms, `jax.random.permutation` takes tens on a CPU.
    """
    seed = tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())
    first, last = start * batch_size, stop * batch_size
    epochs = range(first // size, -(-last // size))
    rows = np.concatenate([_permutation(seed, epoch, size) for epoch in epochs])
    offset = epochs.start * size
    return rows[first - offset : last - offset].reshape(-1, batch_size)


@lru_cache(maxsize=4)
def _permutation(seed: tuple[int, ...], epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(size).astype(np.int32)
