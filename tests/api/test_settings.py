"""Keyword arguments are the settings of a YAML file; what is none is refused by its name."""

from pathlib import Path

import pytest

from gdd.api.settings import config_of
from gdd.cli.main import parse_config
from gdd.config import Config, ConfigError


def test_nothing_given_is_every_default():
    assert config_of({}) == Config()


def test_settings_are_those_of_the_flags():
    flags = ["--seed", "3", "--evaluate.archs", "[mlp, lenet]", "--evaluate.recipe.name", "dsa", "--run.root", "out"]
    settings = {
        "seed": 3,
        "evaluate": {"archs": ["mlp", "lenet"], "recipe": {"name": "dsa"}},
        "run": {"root": Path("out")},
    }
    assert config_of(settings) == parse_config(flags)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sede": 1}, "sede is no setting, expected seed"),
        ({"pretrain": {"step": 1}}, "pretrain.step is no setting, expected steps"),
        ({"evaluate": {"recipe": {"xyz": 1}}}, "evaluate.recipe.xyz is no setting, expected name, epochs"),
        ({"pretrain": 3}, "pretrain is 3, expected a mapping of steps"),
        ({"pretrain": {"steps": 0}}, "pretrain.steps is 0, expected"),
        ({"evaluate": {"archs": ["convent3"]}}, "evaluate.archs: .*convent3"),
        ({"refine": {"pretrained": "nowhere"}}, "nowhere"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_of(settings, distilled=True)
