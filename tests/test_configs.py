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
from gdd.cli import suggest
from gdd.cli.main import parse_config
from gdd.config import Config, RecipeConfig, stable_hash, to_plain
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


def paper_tables() -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return what docs/paper-2402.13007.md says: the command of each set by its name, and the cells of every row.

    A row's `command`, of its section, is that which scores its set.
    """
    commands: dict[str, str] = {}
    rows = []
    for section in (ROOT / "docs/paper-2402.13007.md").read_text().split("\n## ")[2:]:
        command = re.findall(r"```bash\n.* (?:distill|evaluate).py (.*?)\n```", section.replace("\\\n", ""))[0]
        head, _, *body = [
            [cell.strip(" `") for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("|")
        ]
        if head[0] == "name":
            commands |= {name: command.replace("FLAGS", flags) for name, *_, flags in body}
            continue
        for cells in body:
            row = dict(zip(head, cells, strict=True))
            rows.append({**row, "command": command.replace("NAME", row["set"].split("/")[1])})
    return commands, rows


DISTILLING, PAPER = paper_tables()


@cache
def row_config(flags: str) -> Config:
    return parse_config(shlex.split(flags))


def config_of(name: str) -> Config:
    return row_config(f"--config {ROOT / 'configs' / name}.yaml")


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


SKD = {
    "loss": "skd",
    "standardize": True,
    "standardize_over": "classes",
    "tau": 2.0,
    "tau_mode": "divide",
    "balance": None,
    "pairing": "class",
}


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
    assert (control.refine.guided, control.refine_weight) == (False, 0)


def test_no_argument_refines_with_skd():
    assert refines_with_skd(parse_config([]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("count", [300, 3000])
def test_what_init_suggests_refines_with_skd(channels, on_gpu, count):
    spec = DatasetSpec("own", channels, 28, 28, ("a", "b"), (0.5,) * channels, (0.25,) * channels, flip=False)
    train, val = (Split(torch.empty(n, *spec.shape, dtype=torch.uint8), torch.arange(n) % 2) for n in (count, 400))
    own = Dataset(spec, train, val, None)  # type: ignore[arg-type]
    data = [suggest.Setting("name", "own", ""), suggest.Setting("data.name", "own", "")]
    config = suggest.config_of(
        suggest.suggest(data, own, on_gpu, 60.0, lambda config, stages: config.pretrain.steps / 100)
    )
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
def test_the_set_of_a_row_is_what_its_cells_say(cells):
    _, name, *place = cells["set"].split("/")
    made = row_config(DISTILLING[name])
    assert (made.name, made.method, made.data.name, made.score) == (name, "matching", "cifar10", False)
    assert str(made.matching.ipc) == cells["IPC"]
    assert made.matching.pool.kind == cells["pool"] == POOLS[cells["row"]]
    stored = {made.matching.iterations: ["matching"]}
    stored |= {count: ["matching", f"set-{count:08d}.safetensors"] for count in made.run.snapshots}
    assert stored[int(cells["iterations"])] == place
    check_networks(made)

    scored = row_config(cells["command"])
    assert {cells["set"], f"runs/{name}/matching"} < {*scored.evaluate.sources}
    assert len(scored.evaluate.sources) == len(stored) == 3
    assert (scored.name, scored.data) == (made.name, made.data)  # or its folder of scores would be another's
    has_kd = cells["row"].endswith("KD")
    assert scored.evaluate.teacher == ("set" if has_kd else "none")
    assert bool(scored.evaluate.select_temperature) == has_kd
    # All images are distilled where none is needed to choose on.
    assert (made.data.val_fraction > 0) == has_kd
    assert not scored.evaluate.ceiling
    assert {ARCHS[name] for name in cells.keys() & ARCHS} == set(scored.evaluate.archs) - (
        {"convnet3"} if has_kd else set()
    )
    published = [cells[name] for name in ARCHS if cells.get(name, "-") != "-"]
    assert len(published) == (6 if cells["row"] == "baseline" else 5)
    assert all(9 < float(accuracy) < 50 for accuracy in published)
    check_networks(scored)


def test_every_set_is_distilled_once_and_scored():
    assert {*DISTILLING} == {cells["set"].split("/")[1] for cells in PAPER}
    made = [row_config(command) for command in DISTILLING.values()]
    assert len({stable_hash(config.matching, config.data) for config in made}) == len(made) == 12


PUBLISHED = ("paper-2402.13007", "paper-2501.04202", "mnist", "fashion_mnist", "cifar10-gm", "cifar10-gm-dsa")


@pytest.mark.parametrize("name", [*PUBLISHED, "cifar10-gm-pool"])
def test_published_settings_train_on_all_images(name):
    assert config_of(name).data.val_fraction == 0


@pytest.mark.parametrize(
    ("name", "images", "resnet"),
    [
        ("paper-2501.04202", 50_000, "resnet18-bn-w32"),
        ("mnist", 60_000, "resnet18-bn"),
        ("fashion_mnist", 60_000, "resnet18-bn"),
    ],
)
def test_skd_as_published_has_dims_lengths_and_students(name, images, resnet):
    """gen_condense.py, pool_match.py and validate.py: epochs of whole batches of all images."""
    config = config_of(name)
    pretrain, refine, pool = config.pretrain, config.refine, config.refine.pool
    assert (pretrain.steps, pretrain.batch_size, pretrain.lr) == (150 * (images // 128), 128, 1e-4)
    assert (refine.steps, refine.batch_size, refine.lr) == (100 * (images // 64), 64, 5e-6)
    assert (pool.redraw_every, pool.steps_before, pool.steps_between) == (images // 64, 16, 16)
    assert pool.members == ("convnet3", resnet.replace("18", "10"), resnet)
    assert (config.gan.arch, config.gan.width, config.gan.loss, config.gan.beta2) == ("dim", 196, "wgan-gp", 0.9)
    assert config.evaluate.archs == ("convnet3", resnet, "alexnet-bn", "vgg11-bn")
    assert (config.evaluate.recipe, config.evaluate.protocols) == (RecipeConfig(name="dim"), ("stream",))


def test_dims_resnets_have_its_numbers_of_weights():
    for name, count in {"resnet10-bn-w32": 1_228_970, "resnet18-bn-w32": 2_797_610}.items():
        with torch.device("meta"):
            assert sum(weights.numel() for weights in registry.build(name, (3, 32, 32), 10).parameters()) == count
