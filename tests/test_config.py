import ast
import json
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import get_args

import pytest

import gdd.config
from gdd.config import (
    Config,
    ConfigError,
    DataConfig,
    EvaluateConfig,
    GanConfig,
    MatchingConfig,
    PoolConfig,
    PoolKind,
    PretrainConfig,
    RefineConfig,
    RunConfig,
    to_plain,
)
from gdd.config.checks import stable_hash

SECTIONS = {
    "data": DataConfig,
    "gan": GanConfig,
    "pretrain": PretrainConfig,
    "pool": PoolConfig,
    "refine": RefineConfig,
    "match": MatchingConfig,
    "evaluate": EvaluateConfig,
    "run": RunConfig,
}
NAN, INF = float("nan"), float("inf")

OUT_OF_RANGE = [
    ("data.val_fraction", (0.0, -0.1, 0.51, 1.0, NAN)),
    ("data.size", ((15, 32), (32, 15), (0, 0))),
    ("gan.width", (3, 0, -4)),
    ("gan.noise_dim", (0, -1)),
    ("gan.aux_weight", (-0.1, NAN)),
    ("gan.gradient_penalty", (-1.0,)),
    ("gan.r1", (-1.0,)),
    ("gan.r1_every", (0,)),
    ("gan.beta1", (-0.1, 1.0, NAN)),
    ("gan.beta2", (-0.1, 1.0)),
    ("gan.ema_decay", (-0.1, 1.0)),
    ("pretrain.steps", (0, -1)),
    ("pretrain.batch_size", (1, 0)),
    ("pretrain.lr", (0.0, -1e-4, NAN)),
    ("refine.pool.members", ((),)),
    ("refine.pool.weights", ((1.0,), (1.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (0.0, 0.0, 0.0))),
    ("matching.pool.main_probability", (-0.1, 1.1, NAN, None)),
    ("matching.pool.main_probability_end", (-0.1, 1.1, NAN)),
    ("matching.pool.main_only", (-1, NAN)),
    ("matching.pool.similar_depth", (0, -1)),
    ("matching.pool.various", ((),)),
    ("refine.pool.redraw_every", (0,)),
    ("refine.pool.steps_before", (-1,)),
    ("refine.pool.steps_between", (-1,)),
    ("refine.pool.max_accuracy", (0.0, 1.01, NAN)),
    ("refine.pool.batch_size", (1,)),
    ("refine.pool.lr", (0.0, -0.1)),
    ("refine.steps", (0,)),
    ("refine.batch_size", (1,)),
    ("refine.lr", (0.0, NAN)),
    ("refine.tau", (0.0, -1.0, NAN)),
    ("refine.weight", (-0.01, NAN)),
    ("matching.ipc", (0, -1, NAN)),
    ("matching.iterations", (0, -1)),
    ("matching.outer", (0, -1)),
    ("matching.inner", (0, -1)),
    ("matching.batch_real", (0,)),
    ("matching.batch_train", (0,)),
    ("matching.lr_image", (0.0, -0.1, NAN, INF)),
    ("matching.lr_network", (0.0, -0.1, NAN, INF)),
    ("evaluate.ipc", ((), (0,), (10, -1))),
    ("evaluate.protocols", ((),)),
    ("evaluate.archs", ((),)),
    ("evaluate.seeds", ((), (-1,), (0, -2))),
    ("evaluate.all_epochs", (0, -3)),
    ("evaluate.alpha", (-0.1, 1.1, NAN)),
    ("evaluate.temperature", (0.0, -1.0, NAN)),
    ("evaluate.select_alpha", ((-0.1,), (0.5, 1.1), (NAN,))),
    ("evaluate.select_temperature", ((0.0,), (1.0, -1.0), (NAN,), (INF,))),
    ("run.max_minutes", (0.0, -1.0)),
    ("run.log_every", (0,)),
    ("run.grid_every", (0,)),
    ("run.save_every", (0,)),
    ("run.keep", (0, -1)),
    ("run.snapshots", ((-1,), (0, 10, -1))),
    ("run.threads", (0, -1)),
    ("seed", (-1,)),
    ("name", ("", ".", "..", "a/b", "../a", "/a", "a/")),
]

ON_THE_EDGE = [
    ("data.val_fraction", 0.5),
    ("data.size", (16, 16)),
    ("gan.width", 4),
    ("gan.noise_dim", 1),
    ("gan.r1", 0.0),
    ("gan.aux_weight", 0.0),
    ("gan.gradient_penalty", 0.0),
    ("gan.beta1", 0.0),
    ("gan.ema_decay", 0.0),
    ("gan.r1_every", 1),
    ("pretrain.steps", 1),
    ("pretrain.batch_size", 2),
    ("refine.pool.weights", (0.0, 0.0, 0.1)),
    ("refine.pool.steps_before", 0),
    ("refine.pool.steps_between", 0),
    ("refine.pool.max_accuracy", 1.0),
    ("matching.pool.main_probability", 0.0),
    ("matching.pool.main_probability", 1.0),
    ("matching.pool.main_probability_end", None),
    ("matching.pool.main_probability_end", 0.0),
    ("matching.pool.main_probability_end", 1.0),
    ("matching.pool.main_only", 0),
    ("matching.pool.similar_depth", 1),
    ("matching.pool.various", ("mlp",)),
    ("refine.weight", 0.0),
    ("matching.ipc", 1),
    ("matching.iterations", 1),
    ("matching.outer", 1),
    ("matching.outer", None),
    ("matching.inner", 1),
    ("matching.inner", None),
    ("matching.batch_real", 1),
    ("matching.batch_train", 1),
    ("matching.lr_image", None),
    ("matching.lr_image", 1e-9),
    ("evaluate.alpha", 0.0),
    ("evaluate.alpha", 1.0),
    ("evaluate.all_epochs", 1),
    ("evaluate.ipc", (1,)),
    ("run.keep", 1),
    ("run.snapshots", ()),
    ("run.snapshots", (0,)),
    ("run.threads", 1),
    ("seed", 0),
    ("name", "a.b"),
]


def make(key: str, value: object) -> object:
    section, _, field = key.rpartition(".")
    return (SECTIONS[section] if section else Config)(**{field: value})


@pytest.mark.parametrize("part", [*SECTIONS.values(), Config])
def test_the_defaults_can_be_built(part):
    assert part() == part()


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_RANGE for value in values])
def test_an_out_of_range_value_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError) as error:
        make(key, value)
    assert str(error.value).startswith(f"{key} is {value!r}, expected ")


@pytest.mark.parametrize(("key", "value"), ON_THE_EDGE)
def test_the_ends_of_a_range_belong_to_it(key, value):
    assert getattr(make(key, value), key.rpartition(".")[2]) == value


def test_every_number_with_a_range_is_tried():
    # All fields but these are checked when the object is made; these are choices, paths, switches or names.
    free = {"data.name", "data.root", "data.channels", "data.download", "gan.loss", "gan.augment", "method", "score"}
    free |= {
        f"refine.{name}" for name in ("pretrained", "match", "standardize", "tau_mode", "discriminator", "augment")
    }
    free |= {f"evaluate.{name}" for name in ("sources", "recipe", "augment", "teacher", "teacher_arch", "kd_recipe")}
    free |= {f"run.{name}" for name in ("root", "overwrite", "precision", "tf32", "deterministic")}
    free |= {"matching.pool.kind", "matching.pool.main"}
    free |= {f"match.{name}" for name in ("objective", "distance", "inner_first", "augment", "init", "generator")}
    every = {f"{section}.{field.name}" for section, part in SECTIONS.items() for field in fields(part)}
    every |= {field.name for field in fields(Config)} - set(SECTIONS)
    assert every - free == {key for key, _ in OUT_OF_RANGE}


def test_settings_that_cannot_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"^refine\.tau is 3\.0"):
        RefineConfig(match="log_mse", tau=3.0)
    RefineConfig(match="log_mse")
    with pytest.raises(ConfigError, match=r"^evaluate\.augment is 'dsa'"):
        EvaluateConfig(recipe="dim", augment="dsa")
    EvaluateConfig(recipe="dim")
    for name in ("select_alpha", "select_temperature"):
        refusal = rf"^evaluate\.{name} is \(1\.0,\), expected empty without evaluate\.teacher$"
        with pytest.raises(ConfigError, match=refusal):
            EvaluateConfig(**{name: (1.0,)})
        EvaluateConfig(teacher="real", **{name: (1.0,)})


def test_a_generator_is_named_if_and_only_if_matching_starts_from_it():
    MatchingConfig(init="generator", generator=Path("runs/digits/refine"))
    with pytest.raises(ConfigError, match=r"^match\.generator is None, expected a path with init generator only$"):
        MatchingConfig(init="generator")
    for init in ("noise", "real"):
        with pytest.raises(ConfigError, match=r"^match\.generator is .*x.*, expected a path with init generator only$"):
            MatchingConfig(init=init, generator=Path("x"))


@pytest.mark.parametrize(
    ("key", "value"), [("distance", "cos"), ("distance", "mse"), ("outer", 2), ("inner", 3), ("inner_first", True)]
)
def test_embedding_matching_refuses_what_only_gradient_matching_has(key, value):
    with pytest.raises(ConfigError, match=rf"^match\.{key} is {value!r}, expected its default"):
        MatchingConfig(objective="embedding", **{key: value})
    MatchingConfig(objective="gradient", **{key: value})
    MatchingConfig(objective="embedding")


def test_the_kind_of_the_pool_follows_the_method_unless_named():
    assert Config().pool_kind == "members"
    assert Config(method="matching").pool_kind == "main"
    for method in ("skd", "matching"):
        for kind in get_args(PoolKind):
            assert Config(method=method, pool=PoolConfig(kind=kind)).pool_kind == kind


def test_candidates_keep_to_the_range_of_what_they_replace():
    for values in ((-0.1,), (0.5, 1.1), (NAN,)):
        with pytest.raises(ConfigError, match=r"^evaluate\.select_alpha is .* numbers in \[0, 1\]"):
            EvaluateConfig(teacher="set", select_alpha=values)
    for values in ((0.0,), (1.0, -1.0), (INF,)):
        with pytest.raises(ConfigError, match=r"^evaluate\.select_temperature is .* numbers above 0"):
            EvaluateConfig(teacher="set", select_temperature=values)
    EvaluateConfig(teacher="set", select_alpha=(0.0, 1.0), select_temperature=(0.1, 20.0))


def test_the_released_recipe_knows_temperature_0():
    EvaluateConfig(teacher="set", kd_recipe="released", temperature=0.0, select_temperature=(0.0, 1.0))
    with pytest.raises(ConfigError, match=r"^evaluate\.temperature is -1\.0"):
        EvaluateConfig(kd_recipe="released", temperature=-1.0)


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize("part", [*SECTIONS.values(), Config])
def test_every_part_is_frozen(part):
    made = part()
    for field in fields(part):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field.name, getattr(made, field.name))


def other(value: object) -> object:
    """Return another valid value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, Path):
        return value / "x"
    if isinstance(value, tuple):
        return (*value, *value)
    raise AssertionError(value)


OPTIONAL = {"threads": 1, "size": (16, 16), "channels": 1, "pretrained": Path("x"), "all_epochs": 1, "max_minutes": 1.0}
OPTIONAL |= {"kind": "main", "main_probability_end": 0.5, "outer": 1, "inner": 1, "lr_image": 0.1}
TOGETHER = {
    "members": {"members": ("mlp",)},
    "weights": {"weights": (1.0, 2.0, 1.0)},
    "sources": {"sources": ("x",)},
    "generator": {"generator": Path("x"), "init": "generator"},
    "snapshots": {"snapshots": (1,)},
    "select_alpha": {"select_alpha": (0.5,)},
    "select_temperature": {"select_temperature": (1.5,)},
}


@pytest.mark.parametrize(
    ("section", "field"),
    [(section, field.name) for section, part in SECTIONS.items() for field in fields(part)],
)
def test_the_hash_changes_with_any_value(section, field):
    # With a teacher, for without one there can be no candidates.
    default = Config(evaluate=EvaluateConfig(teacher="set"))
    part = getattr(default, section)
    value = getattr(part, field)
    change = TOGETHER.get(field) or {field: OPTIONAL[field] if value is None else other(value)}
    changed = replace(default, **{section: replace(part, **change)})
    assert stable_hash(changed) != stable_hash(default)
    assert stable_hash(getattr(changed, section)) != stable_hash(part)


def test_the_hash_changes_with_nothing_else():
    assert stable_hash(Config()) == stable_hash(Config(gan=GanConfig(), seed=0))
    assert stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
    assert stable_hash(Config()) == stable_hash(to_plain(Config()))
    assert len(stable_hash(Config())) == 16
    int(stable_hash(Config()), 16)


def test_the_hash_tells_parts_and_their_order():
    assert len({stable_hash(1, 2), stable_hash(2, 1), stable_hash(12), stable_hash([1, 2]), stable_hash("1", "2")}) == 5


def test_plain_values_are_json_and_come_back_the_same():
    config = Config(refine=RefineConfig(pretrained=Path("a/b")), data=DataConfig(size=(16, 24)))
    plain = to_plain(config)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["refine"]["pretrained"] == "a/b"
    assert plain["data"]["size"] == [16, 24]
    assert plain["data"]["channels"] is None
    assert set(plain) == {field.name for field in fields(Config)}
    assert {key for key, value in plain.items() if isinstance(value, dict)} == set(SECTIONS)


def test_every_field_is_documented():
    modules = [ast.parse(path.read_text()) for path in Path(gdd.config.__file__).parent.glob("*.py")]
    documented = {}
    for part in (node for module in modules for node in module.body if isinstance(node, ast.ClassDef)):
        for statement, after in zip(part.body, [*part.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign):
                text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
                documented[f"{part.name}.{ast.unparse(statement.target)}"] = bool(text and str(text).strip())
    parts = [part for part in vars(gdd.config).values() if isinstance(part, type) and is_dataclass(part)]
    expected = {f"{part.__name__}.{field.name}" for part in parts for field in fields(part)}
    assert set(documented) == expected
    # A section is documented by its own class.
    assert all(part.__doc__ for part in parts)
    assert {key for key, has_text in documented.items() if not has_text} <= {f"Config.{name}" for name in SECTIONS}
