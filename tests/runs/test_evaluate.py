"""evaluate.py on a run of train.py: its numbers, its resumption, and a page that stands alone, seen
in a browser where there is one.
"""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tests.lib.paths import EXPERIMENTS

TINY = [
    "--num-samples",
    "40",
    "--ais-size",
    "4",
    "--temperatures",
    "5",
    "--num-chains",
    "4",
    "--simulations",
    "64",
    "--eval-size",
    "60",
]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def script(name, *flags, folder):
    return subprocess.run(
        [sys.executable, str(EXPERIMENTS / f"{name}.py"), *flags],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def trained(folder, *flags):
    short = ["--num-steps", "60", "--hidden", "8", "--eval-samples", "5", "--out", "run", *flags]
    done = script("train", *short, folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with an evaluated run in it, and what evaluate.py printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    trained(folder)
    done = script("evaluate", "--run", "run", *TINY, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_numbers_fit_together(run):
    folder, printed = run
    result = json.loads(printed.strip().splitlines()[-1])
    kept = json.loads((folder / "run" / "evaluation.json").read_text())
    assert (
        result.items() <= kept.items()
        and result["examples"] == 60
        and result["step"] == 60
        and result["notes"] == []
    )
    assert result["iwae"]["40"]["mean"] > result["iwae"]["10"]["mean"] > result["elbo"]["mean"]
    assert result["marginal_kl"] + result["mutual_information"] == pytest.approx(
        result["rate"]["mean"], abs=0.5
    )
    assert sum(result["kl"]) == pytest.approx(result["rate"]["mean"], rel=1e-6)
    assert (
        0 <= result["precision"] <= 1
        and 0 <= result["recall"] <= 1
        and 0 <= result["calibration_p_value"] <= 1
    )
    names = {path.name for path in (folder / "run").iterdir()}
    assert {"config.json", "report.html", "evaluation.json", "evaluation-60-60-40-0.npz"} <= names


@pytest.mark.slow
def test_again_it_takes_what_it_has(run, tmp_path):
    """The weights are not drawn again: the file of the first call is as it was."""
    folder, printed = shutil.copytree(run[0], tmp_path / "copy"), run[1]
    path = folder / "run" / "evaluation-60-60-40-0.npz"
    before = path.stat().st_mtime_ns
    done = script(
        "evaluate", "--run", "run", *TINY, "--ais-size", "0", "--sample-size", "0", folder=folder
    )
    result, first = (json.loads(of.strip().splitlines()[-1]) for of in (done.stdout, printed))
    assert (
        result["iwae"] == first["iwae"]
        and "ais" not in result
        and path.stat().st_mtime_ns == before
    )


def test_the_page_needs_no_other_file(run):
    text = (run[0] / "run" / "report.html").read_text()
    assert (
        not re.findall(r'(?:src|href)="(?!data:)', text)
        and "http" not in text
        and "<script" not in text
    )
    assert text.count("data:image/png;base64,") == 6
    for quantity in (
        "ELBO",
        "IWAE-40",
        "AIS, lower bound",
        "gap of the sandwich",
        "mutual information",
        "recall",
        "jaxlib",
        "latent_dim",
    ):
        assert quantity in text


PROBE = """<script>document.title = JSON.stringify({
  pictures: [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().right]),
  cells: [...document.querySelectorAll("td")].map(c => [c.scrollWidth <= c.clientWidth + 1, c.getBoundingClientRect().right]),
  width: document.documentElement.scrollWidth})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_pictures_and_the_table_whole(run, tmp_path):
    """Every picture is decoded, every cell holds its text, and nothing is wider than the window."""
    text = (run[0] / "run" / "report.html").read_text()
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"{PROBE}</body>"))
    browser = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1040,2000",
    ]
    address = f"file://{tmp_path}/probe.html"
    shown = subprocess.run(
        [*browser, "--dump-dom", address], capture_output=True, text=True, timeout=120
    ).stdout
    found = json.loads(re.search("<title>(.*?)</title>", shown).group(1))
    assert len(found["pictures"]) == 6 and all(
        done and width > 100 and right <= 1040 for done, width, right in found["pictures"]
    )
    assert len(found["cells"]) >= 3 * 15 and all(
        whole and right <= 1040 for whole, right in found["cells"]
    )
    assert found["width"] <= 1040
    subprocess.run(
        [*browser, f"--screenshot={tmp_path}/page.png", address],
        capture_output=True,
        timeout=120,
        check=True,
    )
    from matplotlib.image import imread

    pixels = imread(tmp_path / "page.png")
    assert pixels.shape[:2] == (2000, 1040) and np.mean(pixels[..., :3] < 0.9) > 0.02


@pytest.mark.slow
def test_what_a_model_has_not_is_left_out_and_named(tmp_path):
    """A VampPrior is no diagonal normal, so the latent space has no closed forms; a sphere is no
    place for HMC.
    """
    trained(tmp_path, "--prior", "vamp:3")
    result = json.loads(
        script("evaluate", "--run", "run", *TINY, folder=tmp_path).stdout.strip().splitlines()[-1]
    )
    assert "diagonal normals" in result["notes"][0] and "ais" in result and "kl" not in result
    shutil.rmtree(tmp_path / "run")
    trained(tmp_path, "--prior", "sphere", "--encoder", "vmf", "--latent-dim", "3")
    result = json.loads(
        script("evaluate", "--run", "run", *TINY, folder=tmp_path).stdout.strip().splitlines()[-1]
    )
    assert any("AIS moves through R^d" in note for note in result["notes"]) and "ais" not in result


def test_mistakes_are_one_line(tmp_path):
    done = script("evaluate", "--run", "nothing", folder=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.strip()
        == "error: nothing holds no config.json, so it is no run of train.py; name the folder of"
        " one with --run"
    )
