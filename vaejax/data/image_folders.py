"""A folder of PNG and JPEG files, in subfolders by split and by class."""

from pathlib import Path

import numpy as np

from vaejax.data.files import SPLITS
from vaejax.data.tables import classes_told

SUFFIXES = (".png", ".jpg", ".jpeg")
IGNORED = ("Thumbs.db", "desktop.ini")  # and what is hidden
MODES = {"1": "1", "L": "L", "RGB": "RGB", "P": "RGB", "I;16": "I;16"}  # of Pillow: as it is read


def read_image_folder(folder: Path) -> tuple[dict[str, np.ndarray], str]:
    """({x_train, y_train, x_valid, ...}, what the labels are): images [n, h, w] or [n, h, w, 3], in
    the order of their names, all of one size and mode.

    Subfolders named train, valid and test are the splits; those inside, or else those of the folder
    itself, are classes, numbered in their alphabetical order.
    """
    splits = {part: _by_class(place) for part, place in _splits(folder).items()}
    names = sorted({name for classes in splits.values() for name in classes if name is not None})
    arrays: dict[str, np.ndarray] = {}
    first = next(iter(_files(splits["train"])), None)
    if first is None:
        raise ValueError(f"{folder} holds no PNG or JPEG file")
    like = (first, read_image(first))
    for part, classes in splits.items():
        arrays[f"x_{part}"] = np.stack([image_like(like, path) for path in _files(classes)])
        if names:
            labels = [names.index(str(name)) for name, paths in classes.items() for _ in paths]
            arrays[f"y_{part}"] = np.array(labels)
    return arrays, classes_told(names) if names else ""


def _splits(folder: Path) -> dict[str, Path]:
    """{train: its folder, ...}; the whole folder is train where none is named."""
    inside = _entries(folder)
    parts = {SPLITS[path.name.lower()]: path for path in inside if path.name.lower() in SPLITS}
    if not parts:
        return {"train": folder}
    odd = next((path for path in inside if path.name.lower() not in SPLITS), None)
    if odd is not None:
        raise ValueError(
            f"{folder} holds the splits {', '.join(sorted(parts))}, and {odd.name} beside them;"
            " move it elsewhere"
        )
    if "train" not in parts or len(parts) < len(inside):
        names = ", ".join(path.name for path in inside)
        raise ValueError(f"{folder} holds {names}; there must be train, and each split once")
    return {part: parts[part] for part in ("train", "valid", "test") if part in parts}


def _by_class(folder: Path) -> dict[str | None, list[Path]]:
    """{class: its images}; {None: all of them} of a folder without classes."""
    inside = _entries(folder)
    folders = [path for path in inside if path.is_dir()]
    if folders and len(folders) < len(inside):
        odd = next(path for path in inside if not path.is_dir())
        raise ValueError(
            f"{folder} holds folders, which are classes, and the file {odd.name} beside them; move"
            " it into one of them, or elsewhere"
        )
    if not folders:
        return {None: _images_in(folder)}
    return {path.name: _images_in(path) for path in folders}


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder that holds nothing else."""
    inside = _entries(folder)
    odd = next((path for path in inside if path.suffix.lower() not in SUFFIXES), None)
    if odd is not None:
        kind = "a folder" if odd.is_dir() else "not a PNG or JPEG"
        remedy = "folders are classes, one deep" if odd.is_dir() else "convert it"
        raise ValueError(f"{odd} is {kind}: {remedy}, or move it elsewhere")
    if not inside:
        raise ValueError(f"{folder} holds no PNG or JPEG file; fill or remove it")
    return inside


def _entries(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name not in IGNORED
    )


def images_of(folder: Path) -> list[Path]:
    """The images of a folder and of its subfolders; ValueError if there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no PNG or JPEG file; fill or name another")
    return paths


def _files(classes: dict[str | None, list[Path]]) -> list[Path]:
    return [path for paths in classes.values() for path in paths]


def image_like(like: tuple[Path, np.ndarray], path: Path) -> np.ndarray:
    """The image, of the size and mode of the first one."""
    first, expected = like
    image = read_image(path)
    if (image.shape, image.dtype) != (expected.shape, expected.dtype):
        remedy = "make all of one size"
        if image.shape[:2] == expected.shape[:2]:
            remedy = "make all grey or all coloured, of equally many bits"
        raise ValueError(
            f"{path} is an image {image.shape} of {image.dtype}, and {first.name}"
            f" {expected.shape} of {expected.dtype}; {remedy}"
        )
    return image


def read_image(path: Path) -> np.ndarray:
    """[h, w] of grey, or [h, w, 3], upright as its camera held it."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            mode, image = file.mode, ImageOps.exif_transpose(file)
            if mode in MODES and "transparency" not in file.info:
                return np.asarray(image.convert(MODES[mode]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"{path} cannot be read as PNG or JPEG ({reason}); replace it") from None
    raise ValueError(
        f"{path} has the mode {mode} or is transparent; store it as grey or RGB, such as by"
        ' image.convert("RGB").save(path) of Pillow'
    )
