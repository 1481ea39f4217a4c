"""What users hand over: taken where it is evidently arrays, else refused by the line to type."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest
import scipy.sparse
from jax.experimental import sparse

import vaejax
from tests.lib.cases import cases
from tests.lib.training import KEY, OBJECTIVE, PARAMS, PIXELS, XS, fit
from tests.lib.trees import assert_same_bits
from vaejax.data.foreign import as_arrays
from vaejax.data.sources import as_data, as_source, read

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def stand_in(full_name, **members):
    """An object of a class that says it is another library's."""
    module, name = full_name.rsplit(".", 1)
    return type(name, (), {"__module__": module, **members})()


class Tensor:
    """An array of another library, on the host or on a device of its own."""

    def __init__(self, array, on_host=True):
        self.array, self.on_host = array, on_host

    def __array__(self, dtype=None, copy=None):
        if not self.on_host:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")
        return self.array


REFUSED = {
    "a data frame": (stand_in("pandas.core.frame.DataFrame"), r"x\.to_numpy\(np\.float32\)"),
    "one of a subclass": (
        type("Own", (type(stand_in("pandas.core.frame.DataFrame")),), {})(),
        r"to_numpy",
    ),
    "polars": (stand_in("polars.dataframe.frame.DataFrame"), r"x\.to_numpy\(\)\.astype"),
    "sparse": (scipy.sparse.csr_array(ROWS), r"csr_array, .* x\.toarray\(\)"),
    "sparse of jax": (sparse.BCOO.fromdense(jnp.asarray(ROWS)), r"BCOO, .* x\.todense\(\)"),
    "a DataLoader": (
        stand_in("torch.utils.data.dataloader.DataLoader", __iter__=lambda self: iter(())),
        r"vaejax\.RandomAccess\(loader\.dataset, lambda item: np\.asarray\(item\[0\]\)\)",
    ),
    "a torch data set": (stand_in("torch.utils.data.dataset.TensorDataset"), "RandomAccess"),
    "tf.data": (
        stand_in("tensorflow.python.data.ops.dataset_ops.DatasetV2"),
        r"np\.stack\(list\(x\.as_numpy_iterator\(\)\)\)",
    ),
    "a tensor of another device": (Tensor(ROWS, on_host=False), r"x\.detach\(\)\.cpu\(\)"),
    "a generator": ((row for row in ROWS), r"generator, .* np\.stack\(list\(x\)\)"),
    "a map": (map(abs, ROWS), r"np\.stack\(list\(x\)\)"),
    "values of a dict": ({"a": ROWS}.values(), r"np\.stack\(list\(x\)\)"),
    "a set": ({1.0, 2.0}, r"np\.stack\(list\(x\)\)"),
    "a range": (range(3), r"vaejax\.RandomAccess"),
    "a list of images": (list(ROWS), r"list of 3 .* np\.stack\(x\) if each is an example"),
    "a list of lists of arrays": ([[ROWS], [ROWS]], r"list of 2 .* np\.stack"),
    "a list of names": (["a.png", "b.png"], "list of 2 of type str"),
    "a ragged list": ([[1.0, 2.0], [3.0]], "rows of different lengths"),
    "a name": ("mnist", r"'mnist', of type str and not .* vaejax\.load_dataset"),
    "a data set in three splits": (vaejax.load_dataset("digits"), r"give x\.train\.images"),
    "one of its splits": (vaejax.load_dataset("digits").train, r"give x\.images"),
    "a masked array": (np.ma.masked_array(ROWS, ROWS > 4), r"1 of 6 numbers masked.* x\.filled"),
    "nothing known": (object(), r"of type object, which is not an array: .*vaejax\.RandomAccess"),
    "dates": (np.array(["2020-01-01"] * 3, "M8[s]"), r"x - x\.min\(\)"),
    "fields": (np.zeros(3, [("a", "f4"), ("b", "f4")]), r"for name in x\.dtype\.names"),
    "times": (np.arange(3).astype("m8[s]"), r'x / np\.timedelta64\(1, "s"\)'),
    "random keys": (jax.random.split(jax.random.key(0), 3), r"dtype key<fry>, random keys"),
    "complex": (ROWS + 1j, r"np\.stack\(\[x\.real, x\.imag\], -1\)"),
    "objects": (np.array([ROWS, ROWS[:2], None], object), r"np\.stack\(rows\)"),
}
TAKEN = {
    "a list of lists": ROWS.tolist(),
    "another library's tensor": Tensor(ROWS),
    "big-endian": ROWS.astype(">f4"),
    "no mask": np.ma.masked_array(ROWS),
    "a mask of nothing": np.ma.masked_array(ROWS, ROWS > 99),
    "a matrix": np.asmatrix(ROWS),
    "bfloat16": ROWS.astype(jnp.bfloat16),
    "of JAX": jnp.asarray(ROWS),
    "not contiguous": np.asfortranarray(ROWS),
}


@pytest.mark.parametrize("case", cases(REFUSED))
def test_what_is_no_array_is_refused_by_the_line_to_type(case):
    """At the top, and as a part of an example."""
    data, line = case
    for whole in (data, {"x": data, "y": ROWS}):
        with pytest.raises((TypeError, ValueError), match=line) as error:
            as_source(whole, "xs")
        assert "\n" not in str(error.value) and str(error.value).startswith("xs ")


@pytest.mark.parametrize("data", cases(TAKEN))
def test_what_is_evidently_an_array_is_taken(data):
    source = as_source({"x": data})
    np.testing.assert_array_equal(source.block(0, 3)["x"].astype(np.float32), ROWS)
    assert source.block(0, 3)["x"].dtype.isnative
    jax.device_put(as_arrays(data, "data"))


def test_arrays_and_trees_of_them_are_left_as_they_are():
    array = jnp.asarray(ROWS)
    tree = {"x": ROWS, "y": (array, None)}
    assert as_data(tree)["x"] is ROWS and as_data(tree)["y"][0] is array


class OnDisk:
    """As h5py's: slices, and rows in increasing order, each once."""

    __module__ = "h5py._hl.dataset"
    shape = (6, 2)
    array = np.arange(12.0).reshape(6, 2)

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            assert (np.diff(rows) > 0).all()
        return self.array[rows]


def test_an_array_on_disk_is_a_source():
    source = as_source(OnDisk())
    assert isinstance(source, vaejax.Source) and len(source) == 6
    rows = np.array([4, 0, 5, 4])
    np.testing.assert_array_equal(read(source, rows), OnDisk.array[rows])
    np.testing.assert_array_equal(source.block(2, 5), OnDisk.array[2:5])


ITEMS = {
    "a generator": ((row for row in ROWS), r"generator, which has no __len__: .* list\(x\)"),
    "a set": ({1.0, 2.0}, "set, which has no __getitem__"),
    "a data frame": (
        stand_in("pandas.core.frame.DataFrame"),
        r"x\[0\] is not a row: give x.to_numpy",
    ),
    "sparse": (scipy.sparse.csr_array(ROWS), r"x\.toarray"),
}


@pytest.mark.parametrize("case", cases(ITEMS))
def test_what_gives_no_example_by_its_number(case):
    items, line = case
    with pytest.raises(TypeError, match=line):
        vaejax.RandomAccess(items)


def test_items_are_pictures_tensors_and_numbers_of_one_shape():
    pictures = [PIL.Image.fromarray(np.full((2, 3), level, np.uint8)) for level in (1, 2)]
    items = read(vaejax.RandomAccess([(p, Tensor(ROWS), 7) for p in pictures]), np.arange(2))
    np.testing.assert_array_equal(items[0][:, 0, 0], [1, 2])
    np.testing.assert_array_equal(items[1], [ROWS, ROWS])
    ragged = vaejax.RandomAccess([{"x": ROWS}, {"x": ROWS[:2]}])
    with pytest.raises(ValueError, match=r"2 shapes, such as {'x': \(2, 2\)} and {'x': \(3, 2\)}"):
        read(ragged, np.arange(2))


def test_a_mask_in_one_item_of_a_source_is_seen():
    items = [np.ma.masked_array(ROWS[0]), np.ma.masked_array(ROWS[1], [True, False])]
    with pytest.raises(ValueError, match="1 of 2 numbers masked"):
        read(vaejax.RandomAccess(items), np.arange(2))


@pytest.mark.slow
def test_fit_takes_them_to_the_same_bits():
    """Lists, the other byte order, NumPy's counts."""
    xs = XS[:64].astype(np.float32)
    expected = fit(data=xs, num_steps=2)
    for data in (xs.tolist(), xs.astype(">f4"), Tensor(xs)):
        assert_same_bits(fit(data=data, num_steps=2).params, expected.params)
    counts = {"num_steps": np.int64(2), "batch_size": np.int64(32)}
    assert_same_bits(fit(data=xs, **counts).params, expected.params)


def test_fit_refuses_at_the_door_what_it_does_not_take():
    xs = XS[:64]
    with pytest.raises(TypeError, match=r"np\.stack"):
        fit(data=list(xs))
    with pytest.raises(TypeError, match=r"validation is a list .*np\.stack"):
        vaejax.Validation(list(xs))
    with pytest.raises(TypeError, match=r"x\.toarray"):
        seeds = jax.tree.map(lambda leaf: leaf[None], PARAMS)
        vaejax.fit_seeds(
            OBJECTIVE,
            seeds,
            optax.adam(1e-3),
            scipy.sparse.csr_array(xs.reshape(64, -1)),
            KEY[None],
            num_steps=1,
            batch_size=2,
            transform=PIXELS,
        )
