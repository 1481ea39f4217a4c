"""Sets are fetched from an address, held against their checksums, and found by `load_dataset`."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.lib.files import write_idx_set
from tests.lib.paths import SHARED, needs_mnist
from vaejax.data.fetch import FETCHED, GIT, Published, fetch_dataset, fetch_files
from vaejax.data.files import AMAT, IDX
from vaejax.data.load import found_at, load_dataset

GREY = np.random.default_rng(0).integers(0, 256, (10_020, 4, 4)).astype(np.uint8)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address at which it is served; no data folder, and an empty cache."""
    monkeypatch.delenv("VAEJAX_DATA", raising=False)
    monkeypatch.setenv("VAEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_set_is_fetched_once_and_then_found(served, tmp_path):
    folder, address = served
    write_idx_set(folder, GREY, GREY[:6])
    files = {path.name: digest(path) for path in folder.iterdir()}
    assert set(files) == set(FETCHED["mnist"].files)
    place = tmp_path / "cache" / "data" / "mnist"
    paths = fetch_files(Published(address, files), place)
    assert found_at("mnist") == str(place)
    np.testing.assert_array_equal(load_dataset("mnist").test.images, GREY[:6])
    for path in folder.iterdir():
        path.unlink()
    assert fetch_files(Published(address, files), place) == paths  # without the address


def test_another_file_than_its_checksum_says_is_refused(served, tmp_path):
    folder, address = served
    write_idx_set(folder, GREY, GREY[:6])
    with pytest.raises(ValueError, match="hash"):
        fetch_dataset("mnist", tmp_path, mirror=address)
    assert found_at("mnist", tmp_path) is None


def test_the_name_that_git_gives_a_file(served, tmp_path):
    """`git hash-object` of "hello\\n" is this; of any other contents it is another."""
    folder, address = served
    (folder / "a").write_text("hello\n")
    files = {"a": GIT + "ce013625030ba8dba906f756967f9e9ca394464a"}
    assert fetch_files(Published(address, files), tmp_path / "good")
    (folder / "a").write_text("hullo\n")
    with pytest.raises(ValueError, match=rf"its checksum is {GIT}\w+, and not {GIT}"):
        fetch_files(Published(address, files), tmp_path / "bad")
    assert not (tmp_path / "bad" / "a").exists()


def test_offline_the_message_says_which_file_to_put_where(served, tmp_path):
    with pytest.raises(OSError, match=r"put train-images-idx3-ubyte.gz in .*mnist by hand"):
        fetch_dataset("mnist", tmp_path, mirror="http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"unknown data set to fetch 'mnits'; did you mean mnist"):
        fetch_dataset("mnits")
    with pytest.raises(FileNotFoundError, match=r"vaejax data --fetch omniglot; or put .*chardata"):
        load_dataset("omniglot", tmp_path)


def write_amat(path, images):
    lines = [" ".join(map(str, row)) for row in images.reshape(len(images), -1).tolist()]
    path.write_text("\n".join(lines) + "\n")


def test_binarised_mnist_as_it_is_published(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (7, 28, 28)).astype(np.uint8)
    for name, rows in zip(AMAT.values(), (bits[:4], bits[4:6], bits[6:]), strict=True):
        write_amat(tmp_path / name, rows)
    dataset = load_dataset("binarized_mnist", tmp_path)
    parts = (dataset.train, dataset.valid, dataset.test)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), bits)
    assert dataset.maximum == 1
    (tmp_path / AMAT["x_test"]).write_text("0 1 2\n")
    with pytest.raises(ValueError, match="it has no lines of 784 bits"):
        load_dataset("binarized_mnist", tmp_path)
    (tmp_path / AMAT["x_test"]).unlink()
    with pytest.raises(ValueError, match="has no binarized_mnist_test.amat"):
        load_dataset("binarized_mnist", tmp_path)


@needs_mnist
def test_the_checksum_of_binarised_mnist_is_that_of_its_bits():
    """Found anew: the published text of the test images, made of their bits."""
    with np.load(SHARED / "binarized_mnist_packbits.npz") as packed:
        bits = np.unpackbits(packed["test"], axis=1)
    text = np.full((len(bits), 2 * 784), ord(" "), np.uint8)
    text[:, ::2], text[:, -1] = bits + ord("0"), ord("\n")
    expected = FETCHED["binarized_mnist"].files[AMAT["x_test"]]
    assert hashlib.sha256(text.tobytes()).hexdigest() == expected


def test_omniglot_as_it_is_published(tmp_path):
    """A column for each image, its pixels column by column."""
    images = np.random.default_rng(0).random((1_500, 28, 28))
    columns = images.transpose(0, 2, 1).reshape(1_500, 784).T
    path = tmp_path / "chardata.mat"
    scipy.io.savemat(path, {"data": columns, "testdata": columns[:, :3]})
    dataset = load_dataset("omniglot", tmp_path)
    np.testing.assert_array_equal(dataset.test.images, images[:3])
    assert [len(dataset.train.images), len(dataset.valid.images)] == [155, 1_345]
    assert dataset.maximum == 1
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="cut off or damaged"):
        load_dataset("omniglot", tmp_path)


def test_checksums_are_those_that_tfds_carries():
    """TFDS has the same files at the same addresses, with their SHA-256."""
    import tensorflow_datasets

    home = Path(tensorflow_datasets.__file__).parent
    for name, published in FETCHED.items():
        if name == "omniglot":  # TFDS has the images of 105x105
            continue
        tables = home / "url_checksums" / f"{name}.txt", home / "datasets" / name / "checksums.tsv"
        text = next(table for table in tables if table.exists()).read_text()
        rows = {line.split("\t")[0]: line.split("\t")[2] for line in text.splitlines()}
        for file, checksum in published.files.items():
            assert rows[f"{published.address}/{file}"] == checksum
    assert [f"{stem}-idx{n}-ubyte.gz" for stem, n in IDX.values()] == list(FETCHED["mnist"].files)
