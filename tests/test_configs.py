"""Every YAML of the project loads, states its facts, and builds all its networks."""

from pathlib import Path

import pytest
import yaml

from gdd import pipeline
from gdd.cli import parse_config
from gdd.config import Config
from gdd.data.spec import DatasetSpec

ROOT = Path(__file__).parents[1]
SHAPES = {"digits": (1, 16, 16), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


PAPER = sorted((ROOT / "configs/paper-2402.13007").glob("*.yaml"))


def load(path: Path) -> Config:
    return parse_config(["--config", str(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_loads_and_builds(path):
    config = load(path)
    # Rows of the paper that score one set share the run that distils it.
    first = path.with_stem(config.name)
    assert first.exists()
    distils = ("seed", "method", "data", "pool", "match", "refine", "pretrain", "gan")
    assert [getattr(load(first), part) for part in distils] == [getattr(config, part) for part in distils]
    channels, height, width = SHAPES[config.data.name]
    names = tuple(map(str, range(10)))
    spec = DatasetSpec("x", channels, height, width, names, (0.5,) * channels, (0.5,) * channels, True)
    pipeline.check_networks(config, spec)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_its_command_machine_minutes_and_result(path):
    header = path.read_text().split("\n\n")[0]
    for word in (f"--config {path.relative_to(ROOT)}", "machine:", "minutes:", "result:"):
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


def test_every_row_of_the_papers_tables_has_a_config():
    ipcs, iterations = (1, 10), (1000, 2000, 3000)
    wanted = {
        f"{row}-{method}"
        for row in (f"{table}-ipc{ipc}-it{it}" for table in ("table4", "table5") for ipc in ipcs for it in iterations)
        for method in (
            ("dc", "pool", "dc-kd", "pool-kd")
            if row.startswith("table4")
            else ("total-random", "main-various", "main-similar")
        )
    }
    assert {path.stem for path in PAPER} == wanted


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_config_of_the_paper_is_what_its_name_says(path):
    config = load(path)
    table, ipc, iterations, method = path.stem.split("-", 3)
    kinds = {"dc": "main", "pool": "main+similar", "main-similar": "main+similar", "main-various": "main+various"}
    assert config.pool_kind == kinds.get(method.removesuffix("-kd"), "total random")
    assert (f"ipc{config.match.ipc}", f"it{config.match.iterations}") == (ipc, iterations)
    assert (config.evaluate.teacher == "set") == method.endswith("-kd")
    assert bool(config.evaluate.select_temperature) == method.endswith("-kd")
    assert ("convnet3" in config.evaluate.archs) == (table == "table4")
