"""Image sets of TensorFlow Datasets, decoded once into a file that says what it is made from."""

import difflib
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from vaejax.base.files import absolute_path, whole
from vaejax.data.files import DAMAGE

CACHE_VARIABLE = "VAEJAX_CACHE"
ORIGIN = "_decoded_from"
CATALOG = "https://www.tensorflow.org/datasets/catalog"


def load_prepared(name: str, missing: str) -> tuple[dict[str, np.ndarray], str]:
    """(arrays, where they were) of a set of TFDS: from the file that an earlier call wrote, if that
    is whole and of this name, configuration, version and preparation; else decoded now.

    `missing` is what to do where the set is not prepared and cannot be prepared here.
    """
    builder = _builder(name)
    record = origin_of(builder)
    cache = cache_folder() / (re.sub(r"[^\w.-]", "@", f"{'/'.join(record['set'])}") + ".npz")
    source = f"TFDS {'/'.join(record['set'])}, decoded in {cache}"
    arrays = read_kept(cache, record)
    if arrays is not None:
        return arrays, source
    if not record["prepared"]:
        if importlib.util.find_spec("tensorflow") is None:
            raise FileNotFoundError(f"{name} is not here: TFDS has not prepared it. {missing}")
        builder.download_and_prepare()
        record = origin_of(builder)
    arrays = _decoded(builder, name)
    try:
        write_kept(cache, record, arrays)
    except OSError as error:  # a folder that is read alone costs the next call its time, no more
        source = f"TFDS {'/'.join(record['set'])}, not kept in {cache} ({error.strerror})"
    return arrays, source


def cache_folder() -> Path:
    """Where vaejax keeps what it has fetched or decoded."""
    return absolute_path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vaejax")


def is_prepared(name: str) -> bool:
    """Whether TFDS has prepared a set on this machine."""
    return bool(origin_of(_builder(name))["prepared"])


def origin_of(builder: Any) -> dict[str, Any]:
    """What a decoded file depends on: name, configuration and version, and the digest of what TFDS
    says of its preparation, "" where there is none.
    """
    config = builder.builder_config
    names = [builder.name, *([] if config is None else [config.name]), str(builder.version)]
    info = Path(builder.data_dir) / "dataset_info.json"
    prepared = hashlib.sha256(info.read_bytes()).hexdigest() if info.is_file() else ""
    return {"set": names, "prepared": prepared}


def write_kept(cache: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """In one move, so that a kill leaves no half of it."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    members: dict[str, Any] = {
        **arrays,
        ORIGIN: np.array(json.dumps({**record, "digest": _digest(arrays)})),
    }
    with whole(cache) as partial:
        np.savez_compressed(partial, **members)


def read_kept(cache: Path, record: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """What a file of decoded images holds; None if it is absent, damaged or of something else.

    Where TFDS has the set no longer, its preparation is not compared.
    """
    if not cache.is_file():
        return None
    try:
        with np.load(cache, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        kept = json.loads(str(arrays.pop(ORIGIN)))
        digest = kept.pop("digest")
    except (*DAMAGE, OSError, AttributeError, TypeError):
        return None
    if not record["prepared"]:
        kept["prepared"] = ""
    return arrays if kept == record and digest == _digest(arrays) else None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _builder(name: str) -> Any:
    """The builder of a set; ValueError with the nearest names for one that is unknown."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0].lower(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(f'tfds:{other}' for other in near)}? " if near else ""
        raise ValueError(f"unknown data set 'tfds:{name}'; {hint}{CATALOG} lists them") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tfds:{name} needs the module {error.name}: pip install 'vaejax[tfds-prepare]'"
        ) from None
    except (ValueError, AssertionError) as error:  # such as an unknown configuration
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"tfds:{name}: {reason}; {CATALOG} lists configurations") from None


def _decoded(builder: Any, name: str) -> dict[str, np.ndarray]:
    """Every example through `as_data_source`, which reads a prepared array_record without
    TensorFlow.
    """
    arrays = {}
    for part, split in {"train": "train", "valid": "validation", "test": "test"}.items():
        if split not in builder.info.splits:
            continue
        source = builder.as_data_source(split)
        examples = source.__getitems__(range(len(source)))
        if "image" not in examples[0]:
            raise ValueError(
                f"tfds:{name} has the features {sorted(examples[0])}; load_dataset needs one named"
                " 'image'"
            )
        shapes = {np.shape(example["image"]) for example in examples}
        if len(shapes) > 1:
            raise ValueError(
                f"tfds:{name} has images of {len(shapes)} sizes, such as"
                f" {' and '.join(map(str, sorted(shapes)[:2]))}; load_dataset needs all of one"
            )
        images = np.stack([example["image"] for example in examples])
        arrays[f"x_{part}"] = images[..., 0] if images.shape[-1] == 1 else images
        labels = np.asarray([example["label"] for example in examples if "label" in example])
        if labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(images):
            arrays[f"y_{part}"] = labels
    if "x_train" not in arrays:
        raise ValueError(
            f"tfds:{name} has the splits {', '.join(builder.info.splits)}; load_dataset needs train"
        )
    return arrays
