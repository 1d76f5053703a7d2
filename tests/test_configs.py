"""Every YAML of the project loads, states its facts, and builds all its networks."""

from pathlib import Path

import pytest
import yaml

from gdd import stages
from gdd.cli import parse_config
from gdd.config import Config
from gdd.data.spec import DatasetSpec

ROOT = Path(__file__).parents[1]
SHAPES = {"digits": (1, 16, 16), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_loads_and_builds(path):
    config = parse_config(["--config", str(path)])
    assert config.name == path.stem
    channels, height, width = SHAPES[config.data.name]
    names = tuple(map(str, range(10)))
    spec = DatasetSpec("x", channels, height, width, names, (0.5,) * channels, (0.5,) * channels, True)
    stages.check_networks(config, spec)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_its_command_machine_minutes_and_result(path):
    header = path.read_text().split("\n\n")[0]
    for word in (f"--config configs/{path.name}", "machine:", "minutes:", "result:"):
        assert word in header
    assert "TBD" not in header


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_holds_only_differences(path):
    def differs(given: dict, default: object) -> None:
        for key, value in given.items():
            inner = getattr(default, key)
            if isinstance(value, dict):
                differs(value, inner)
            else:
                assert value != (list(inner) if isinstance(inner, tuple) else inner), key

    given = yaml.safe_load(path.read_text()) or {}
    differs({key: value for key, value in given.items() if key != "name"}, Config())


def test_the_config_of_no_argument_is_digits():
    assert parse_config(["--config", str(ROOT / "configs/digits.yaml")]) == Config() == parse_config([])
