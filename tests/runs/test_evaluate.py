"""`vaejax evaluate`: its numbers, its resumption, and a page that stands alone, seen in a browser
where there is one.
"""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from shutil import ignore_patterns

import numpy as np
import pytest

from tests.lib.paths import EXPERIMENTS
from tests.lib.processes import ended, ran, started
from tests.lib.runs import files_in, made_run, vaejax_command, vaejax_here
from vaejax.distributions.base import NotKnownError
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.evaluate import Evaluated, attempt, evaluate_run, of_training
from vaejax.runs.lock import claimed
from vaejax.runs.parts import EvaluateConfig, EvaluationPart, LeftOutError, Subject

TINY = [
    "--eval-samples",
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


def trained(folder, *flags):
    short = ["--num-steps", "60", "--hidden", "8", "--eval-samples", "5", "--out", "run"]
    vaejax_here("train", *short, *flags, folder=folder)


def evaluated(folder, *flags):
    """What `vaejax evaluate` prints of the run."""
    return vaejax_here("evaluate", "--run", "run", *TINY, *flags, folder=folder)


def last_line(printed):
    return json.loads(printed.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with an evaluated run in it, and what `evaluate` printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    trained(folder)
    return folder, evaluated(folder)


def without_evaluation(run, folder):
    """The trained run, copied."""
    shutil.copytree(run[0] / "run", folder / "run", ignore=ignore_patterns("evaluation*"))


def assert_same_numbers(numbers, expected):
    """The bounds to the bit, the others but for rounding."""
    for name in ("elbo", "iwae", "effective_samples", "unreliable"):
        assert numbers[name] == expected[name]
    for name in ("ais", "sandwich_gap", "rate"):
        assert numbers[name]["mean"] == pytest.approx(expected[name]["mean"], rel=1e-4, abs=1e-4)
    assert numbers.keys() == expected.keys()


def test_devices_share_an_evaluation(run, tmp_path):
    without_evaluation(run, tmp_path)
    result = last_line(evaluated(tmp_path, "--devices", "3"))
    assert_same_numbers(result, last_line(run[1]))


@pytest.mark.slow
def test_processes_share_an_evaluation(run, tmp_path):
    """The first writes and prints; a refusal is of all, and nothing changes."""
    without_evaluation(run, tmp_path)
    command = ["-m", "vaejax", "evaluate", "--run", "run", *TINY, "--distributed"]
    before = files_in(tmp_path)
    refused = ended(started([*command, "--devices", "1"], 2, 1, tmp_path))
    assert [process.status for process in refused] == [2, 2]
    assert all("takes all 2 devices of all processes" in process.err for process in refused)
    assert files_in(tmp_path) == before
    first, second = ran(command, 2, folder=tmp_path)
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert json.loads(first.out.splitlines()[-1]).items() <= kept.items()
    assert "report.html" in first.out and "report.html" not in second.out
    assert_same_numbers(json.loads(first.out.splitlines()[-1]), last_line(run[1]))


def test_the_numbers_fit_together(run):
    folder, printed = run
    result = last_line(printed)
    kept = json.loads((folder / "run" / "evaluation.json").read_text())
    assert result.items() <= kept.items() and result["notes"] == []
    assert result["examples"] == 60 and result["step"] == 60
    assert result["iwae"]["40"]["mean"] > result["iwae"]["10"]["mean"] > result["elbo"]["mean"]
    split = result["marginal_kl"] + result["mutual_information"]
    assert split == pytest.approx(result["rate"]["mean"], abs=0.5)
    assert sum(result["kl"]) == pytest.approx(result["rate"]["mean"], rel=1e-6)
    for share in ("precision", "recall", "calibration_p_value"):
        assert 0 <= result[share] <= 1
    names = {path.name for path in (folder / "run").iterdir()}
    assert {"config.json", "report.html", "evaluation.json", "evaluation-60-60-40-0.jsonl"} <= names


@pytest.mark.slow
def test_again_it_takes_what_it_has(run, tmp_path):
    """The weights are not drawn again: the file of the first call is as it was. By the script of
    the experiments, which is the same command.
    """
    folder, printed = shutil.copytree(run[0], tmp_path / "copy"), run[1]
    path = folder / "run" / "evaluation-60-60-40-0.jsonl"
    before = path.stat().st_mtime_ns
    parts = ["--ais-size", "0", "--sample-size", "0"]
    command = [sys.executable, str(EXPERIMENTS / "evaluate.py"), "--run", "run", *TINY, *parts]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    result, first = last_line(done.stdout), last_line(printed)
    assert result["iwae"] == first["iwae"] and "ais" not in result
    assert result["notes"] == [
        "AIS is left out: ais_size = 0",
        "the comparison of samples is left out: sample_size = 0",
    ]
    assert path.stat().st_mtime_ns == before


def test_the_page_needs_no_other_file(run):
    text = (run[0] / "run" / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "http" not in text and "<script" not in text
    assert text.count("data:image/png;base64,") == 6
    quantities = "ELBO|IWAE-40|AIS, lower bound|gap of the sandwich|mutual information|recall"
    for quantity in (*quantities.split("|"), "jaxlib", "latent_dim"):
        assert quantity in text


PROBE = """<script>document.title = JSON.stringify({
  pictures: [...document.images].map(
    i => [i.complete, i.naturalWidth, i.getBoundingClientRect().right]),
  cells: [...document.querySelectorAll("th, td")].map(
    c => [c.scrollWidth <= c.clientWidth + 1, c.getBoundingClientRect().right]),
  readings: document.querySelectorAll(".reading").length,
  width: document.documentElement.scrollWidth})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("window", [1040, 500])
def test_a_browser_shows_the_pictures_and_the_table_whole(run, tmp_path, window):
    """Every picture is decoded, every cell holds its text, and nothing is wider than the window."""
    text = (run[0] / "run" / "report.html").read_text()
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"{PROBE}</body>"))
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars"
    browser = [CHROMIUM, *flags.split(), f"--window-size={window},2000"]
    address = f"file://{tmp_path}/probe.html"
    shown = subprocess.run(
        [*browser, "--dump-dom", address], capture_output=True, text=True, timeout=120
    ).stdout
    page = json.loads(re.search("<title>(.*?)</title>", shown).group(1))
    assert len(page["pictures"]) == 6
    for done, width, right in page["pictures"]:
        assert done and width > 100 and right <= window
    assert len(page["cells"]) >= 3 * 15 and page["readings"] * 3 == len(page["cells"])
    assert all(whole and right <= window for whole, right in page["cells"])
    assert page["width"] <= window
    picture = [*browser, f"--screenshot={tmp_path}/page.png", address]
    subprocess.run(picture, capture_output=True, timeout=120, check=True)
    from matplotlib.image import imread

    pixels = imread(tmp_path / "page.png")
    assert pixels.shape[:2] == (2000, window) and np.mean(pixels[..., :3] < 0.9) > 0.02


@pytest.mark.slow
def test_what_a_model_has_not_is_left_out_and_named(tmp_path):
    """A VampPrior is no product, so no latent has a KL of its own, but all else is there; a sphere
    is no place for HMC.
    """
    trained(tmp_path, "--prior", "vamp:3")
    result = last_line(evaluated(tmp_path))
    assert result["notes"] == [] and "ais" in result
    assert result["kl"] is None and len(result["information"]) == 2
    split = result["marginal_kl"] + result["mutual_information"]
    assert split == pytest.approx(result["rate"]["mean"], abs=0.5)
    text = (tmp_path / "run" / "report.html").read_text()
    assert "what each latent tells" in text and text.count("data:image/png;base64,") == 6
    shutil.rmtree(tmp_path / "run")
    trained(tmp_path, "--prior", "sphere", "--encoder", "vmf", "--latent-dim", "3")
    result = last_line(evaluated(tmp_path, "--sample-size", "5"))
    assert any("AIS moves through R^d" in note for note in result["notes"]) and "ais" not in result
    assert any("20 are the fewest" in note for note in result["notes"])


def raised(error):
    def part():
        raise error

    return part


def test_only_what_a_model_has_not_becomes_a_note():
    notes = []
    for error in (LeftOutError("no HMC here"), NotKnownError("no mean"), ImportError("no extra")):
        assert attempt("AIS", raised(error), notes) is None
    assert notes[1] == "AIS is left out: no mean" and len(notes) == 3
    for error in (TypeError("a fault"), ValueError("a mistake")):
        with pytest.raises(type(error), match=str(error)):
            attempt("AIS", raised(error), notes)
    assert len(notes) == 3


def subject(config):
    return Subject(TrainConfig(), 20, None, None, np.zeros((5, 8, 8)), None)


def elbo(*given):
    return EvaluationPart([("ELBO", "-1", "")], {"elbo": {"error": float("nan")}})


def test_what_has_been_found_is_written_before_what_may_fail(tmp_path, monkeypatch, capsys):
    """Another part, then a picture."""
    out, module = made_run(tmp_path / "run"), "vaejax.runs.evaluate"
    monkeypatch.setattr(f"{module}.subject_of", subject)
    monkeypatch.setattr(f"{module}.bounds", elbo)
    monkeypatch.setattr(f"{module}.both_sides", lambda *_: raised(MemoryError("too little"))())
    config = EvaluateConfig(str(out), sample_size=0)
    with pytest.raises(MemoryError):
        evaluate_run(config)

    def kept():
        return json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)

    assert kept()["elbo"] == {"error": None} and kept()["not_finite"] == {"elbo.error": "nan"}
    assert kept()["notes"] == ["AIS failed, and what was to follow is missing: too little"]
    assert not (out / "report.html").exists()

    monkeypatch.setattr(f"{module}.both_sides", lambda *_: raised(LeftOutError("no HMC"))())
    monkeypatch.setattr(f"{module}.latents", lambda *_: EvaluationPart([], {"rate": 2.0}))
    (out / "curves.png").mkdir()  # which can be no picture
    result = evaluate_run(config)
    assert result["rate"] == kept()["rate"] == 2.0 and result["notes"] == kept()["notes"]
    left_out, samples, result_json, *missing = result["notes"][:5]
    assert left_out == "AIS is left out: no HMC"
    assert samples == "the comparison of samples is left out: sample_size = 0"
    assert result_json.startswith("what training said of its pictures is not known: ")
    assert missing == [
        f"{name}.png is not there: training draws it" for name in ("samples", "reconstructions")
    ]
    not_drawn = result["notes"][5:]
    names = [re.match("the picture '(.*?)' is not drawn: ", note).group(1) for note in not_drawn]
    assert names == ["bounds", "what each latent tells", "curves"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1 and "is not drawn" in page  # latent.png
    assert not any(path.name.endswith(".lock") for path in out.iterdir())
    capsys.readouterr()


def test_pictures_that_the_page_has_not_are_said(tmp_path):
    """By what training said of each, and of which step those are that it has."""
    out = made_run(tmp_path / "run")
    result = {"step": 10, "pictures": {"curves": "curves.png is not drawn: no ink"}}
    (out / "result.json").write_text(json.dumps(result))
    config = EvaluateConfig(str(out))
    evaluation = Evaluated(config, subject(config), {}, {}, [])
    assert of_training(evaluation) == {"latent": out / "latent.png"}
    assert evaluation.notes == [
        "samples.png is not there: training draws it",
        "reconstructions.png is not there: training draws it",
        "curves.png is not drawn: no ink",
        "the pictures that training drew are of step 10",
    ]
    (out / "latent.png").unlink()
    (out / "result.json").unlink()
    evaluation.notes.clear()
    assert of_training(evaluation) == {}
    assert "result.json" in evaluation.notes[0] and len(evaluation.notes) == 5


def test_two_evaluations_of_one_run(tmp_path):
    out = made_run(tmp_path / "run")
    before = files_in(out)
    with claimed(out, "evaluation"), pytest.raises(ValueError, match="run is in use by process"):
        evaluate_run(EvaluateConfig(str(out)))
    assert files_in(out) == before


@pytest.mark.parametrize(
    "change",
    [
        {"eval_samples": 1},
        {"ais_size": -1},
        {"num_chains": 0},
        {"temperatures": 0},
        {"eval_size": 0},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} = .*must be"):
        check_config(dataclasses.replace(EvaluateConfig("run"), **change))


def test_mistakes_are_one_line(tmp_path):
    done = vaejax_command("evaluate", "--run", "nothing", folder=tmp_path)
    message = "error: nothing holds no config.json, so it is not a run; name the folder of one"
    assert done.returncode == 2 and done.stderr.strip() == message
