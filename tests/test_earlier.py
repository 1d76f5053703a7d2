"""What earlier versions have stored is read by the names of now: a generator refined without SKD is not called SKD."""

import json
from pathlib import Path
from typing import Any

import pytest
from generators import untrained

from gdd.config import Config, earlier, read_as, to_plain
from gdd.evaluation import sources
from gdd.report import card, replicates, runs
from gdd.report.page import settings_in_words
from gdd.sampling import generator_file, sample

SKD, CONTROL = {"loss": "skd", "weight": 0.01}, {"loss": "skd", "weight": 0.0, "balance": None}


def stored(refine: dict[str, Any], stage: str = "refine", method: str = "skd") -> dict[str, Any]:
    """Return what a file of before `refine.loss none` says of its origin."""
    config = to_plain(Config())
    config |= {"method": "skd", "refine": {**config["refine"], **refine}}
    return {"method": method, "stage": stage, "seed": 0, "seconds": 1.5, "config": config}


@pytest.mark.parametrize(
    ("refine", "made_by", "loss"),
    [
        (CONTROL, "gan", "none"),
        (SKD, "gan + skd", "skd"),
        ({"loss": "features", "weight": 0.0, "balance": 0.5}, "gan + features", "features"),
        ({"loss": "log_mse", "weight": 1.0}, "gan + log_mse", "log_mse"),
    ],
)
def test_an_origin_says_which_loss_ran(refine, made_by, loss):
    renamed = earlier.current_origin(stored(refine))
    config = read_as(Config, renamed["config"])
    assert (renamed["method"], config.refine.loss, config.refine.method) == (made_by, loss, made_by)
    assert (config.method, config.refine.balance) == ("generator", refine.get("balance"))
    assert earlier.current_origin(renamed) == renamed


def test_what_says_no_loss_has_no_method_and_what_is_not_refined_keeps_its_own():
    assert earlier.current_origin({"method": "skd", "stage": "refine"})["method"] is None  # a set of samples
    kept = [{"method": "skd"}, {"method": "gan", "stage": "pretrain"}, {"method": "gan + skd", "stage": "refine"}, {}]
    assert [earlier.current_origin(one) for one in kept] == kept
    of_0_1_0 = {"method": "skd", "stage": "refine", "config": {"refine": {"match": "kl", "weight": 0.01}}}
    assert earlier.current_origin(of_0_1_0)["method"] == "gan + skd"
    for odd in (3, [], {"loss": []}, {"loss": None, "weight": "x"}, {"weight": 0, "balance": []}):
        earlier.current_origin({"method": "skd", "stage": "refine", "config": {"refine": odd}})


@pytest.fixture
def control(tmp_path: Path, dataset) -> Path:
    """The folder of an earlier stage whose weight was 0."""
    origin = stored(CONTROL)
    folder = generator_file.save(tmp_path, untrained(dataset.spec), dataset.spec, origin).parent
    (folder / "config.json").write_text(json.dumps({"fingerprint": "f", "config": origin["config"]}))
    return folder


def test_cards_pages_and_names_of_an_earlier_generator_say_what_ran(control, tmp_path):
    text = card.write(control).read_text()
    assert "**Method:** gan\n" in text
    assert "refine.loss none" in text
    assert "skd" not in text.lower()
    page = dict(settings_in_words(runs.read_stage(control, "digits/refine")))
    assert page["Loss"] == "adversarial, non-saturating"
    source = sources.read(str(control))
    assert sources.generator_name(source.provenance) == "refined generator (no guiding loss)"
    assert replicates.changed(source.provenance) == {"refine.loss": "none"}
    assert sample.sample_set(generator_file.load(control), 1, seed=0).provenance["method"] == "gan"


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("gan", "refined generator (no guiding loss)"),
        ("gan + skd", "refined generator (SKD)"),
        ("gan + gradient", "refined generator (class gradients)"),
        ("gan + another", "refined generator"),
        (None, "refined generator"),
    ],
)
def test_a_refined_generator_is_called_by_its_loss(loss, name):
    assert sources.generator_name({"stage": "refine", "method": loss}) == name
    assert sources.generator_name({"stage": "pretrain", "method": loss}) == "pretrained generator"
    assert sources.generator_name({"stage": "matching", "method": loss}) is None
