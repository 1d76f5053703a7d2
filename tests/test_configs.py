"""Every YAML of the project loads, states its facts and builds its networks; so does every row of the paper."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from settings import holds_only_differences

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.cli.suggest import Setting, config_of, suggest
from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.models import registry

ROOT = Path(__file__).parents[1]
SHAPES = {"digits": (1, 16, 16), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
ARCHS = {
    "MLP": "mlp",
    "ConvNet": "convnet3",
    "LeNet": "lenet",
    "AlexNet": "alexnet",
    "VGG11": "vgg11",
    "ResNet18": "resnet18",
}
POOLS = {
    "baseline": "main",
    "w/ KD": "main",
    "w/ model pool": "main+similar",
    "w/ model pool & KD": "main+similar",
    "total random": "total random",
    "w/ main model": "main+various",
    "w/ main model & similar": "main+similar",
}


def paper_rows() -> list[dict[str, str]]:
    """Return the cells of every row of docs/paper-2402.13007.md by their column; FLAGS are all of the row's command."""
    rows = []
    for section in (ROOT / "docs/paper-2402.13007.md").read_text().split("\n## ")[2:]:
        command = re.findall(r"```bash\n.* distill.py (.*?) FLAGS\n```", section.replace("\\\n", ""))[0]
        head, _, *body = [
            [cell.strip(" `") for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("|")
        ]
        rows += [dict(zip(head, [*cells[:-1], f"{command} {cells[-1]}"], strict=True)) for cells in body]
    return rows


PAPER = paper_rows()


@cache
def row_config(flags: str) -> Config:
    return parse_config(shlex.split(flags))


def check_networks(config: Config) -> None:
    channels, height, width = SHAPES[config.data.name]
    pipeline.check_networks(config, (channels, height, width), 10)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_loads_builds_and_has_the_name_of_its_file(path):
    config = parse_config(["--config", str(path)])
    assert config.name == path.stem
    check_networks(config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_its_command_machine_minutes_and_result(path):
    header = path.read_text().split("\n\n")[0]
    for word in (f"--config {path.relative_to(ROOT)}", "# machine: ", "# minutes: ", "# result: "):
        assert word in header
    assert "TBD" not in header


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_holds_only_differences(path):
    holds_only_differences(yaml.safe_load(path.read_text()) | {"name": path.stem}, to_plain(Config()) | {"name": None})


SKD = {"loss": "skd", "standardize": True, "tau": 2.0, "tau_mode": "divide", "balance": None, "pairing": "class"}


def refines_with_skd(config: Config) -> bool:
    """Tell whether a config refines as the paper of SKD says, with the pool of its three networks, drawn alike."""
    refine, pool = config.refine, config.refine.pool
    drawn = [registry.parse(name).base for name in pool.members], pool.weights, pool.ages
    weight = 0.001 if config.data.name == "mnist" else 0.01
    return (
        {key: getattr(refine, key) for key in SKD} == SKD
        and config.refine_weight == weight
        and drawn == (["convnet3", "resnet10", "resnet18"], (), ())
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_refines_with_skd_and_one_flag_makes_its_control(path):
    assert refines_with_skd(parse_config(["--config", str(path)]))
    control = parse_config(["--config", str(path), "--refine.loss", "none"])
    assert (control.refine.matches, control.refine_weight) == (False, 0)


def test_no_argument_refines_with_skd():
    assert refines_with_skd(parse_config([]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("count", [300, 3000])
def test_what_init_suggests_refines_with_skd(channels, on_gpu, count):
    spec = DatasetSpec("own", channels, 28, 28, ("a", "b"), (0.5,) * channels, (0.25,) * channels, flip=False)
    train, val = (Split(torch.empty(n, *spec.shape, dtype=torch.uint8), torch.arange(n) % 2) for n in (count, 400))
    own = Dataset(spec, train, val, None)  # type: ignore[arg-type]
    data = [Setting("name", "own", ""), Setting("data.name", "own", "")]
    config = config_of(suggest(data, own, on_gpu, 60.0, lambda config, stages: config.pretrain.steps / 100))
    assert refines_with_skd(config)
    pipeline.check_networks(config, spec.shape, spec.num_classes)
    widths = [registry.parse(name).width for name in config.refine.pool.members]
    if count > 2000:
        assert widths == ([128, 32, 32] if on_gpu else [32, 16, 16] if channels == 3 else [24, 8, 8])


def test_the_config_of_no_argument_is_digits():
    assert parse_config(["--config", str(ROOT / "configs/digits.yaml")]) == Config() == parse_config([])


def test_every_row_of_the_papers_tables_is_there_once():
    assert len(PAPER) == 42
    rows = {(cells["IPC"], cells["iterations"], cells["row"]) for cells in PAPER}
    assert rows == {(ipc, steps, row) for ipc in ("1", "10") for steps in ("1000", "2000", "3000") for row in POOLS}


@pytest.mark.parametrize("cells", PAPER, ids=lambda cells: "{IPC}-{iterations}-{row}".format(**cells))
def test_the_flags_of_a_row_are_what_its_cells_say(cells):
    config = row_config(cells["FLAGS"])
    assert (config.method, config.data.name) == ("matching", "cifar10")
    assert (str(config.matching.ipc), str(config.matching.iterations)) == (cells["IPC"], cells["iterations"])
    assert config.matching.pool.kind == cells["pool"] == POOLS[cells["row"]]
    has_kd = cells["row"].endswith("KD")
    assert config.evaluate.teacher == ("set" if has_kd else "none")
    assert bool(config.evaluate.select_temperature) == has_kd
    assert {ARCHS[name] for name in cells.keys() & ARCHS} == set(config.evaluate.archs) - (
        {"convnet3"} if has_kd else set()
    )
    published = [cells[name] for name in ARCHS if cells.get(name, "-") != "-"]
    assert len(published) == (6 if cells["row"] == "baseline" else 5)
    assert all(9 < float(accuracy) < 50 for accuracy in published)
    check_networks(config)


def test_rows_of_one_name_distil_one_set():
    distilling: dict[str, list[Config]] = {}
    for config in (row_config(cells["FLAGS"]) for cells in PAPER):
        distilling.setdefault(config.name, []).append(config)
    assert sorted(map(len, distilling.values())) == [1] * 12 + [2] * 6 + [3] * 6
    for first, *others in distilling.values():
        for other in others:
            assert (first.seed, first.data, first.matching) == (other.seed, other.data, other.matching)
