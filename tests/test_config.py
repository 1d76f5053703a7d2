"""Settings: their types and ranges, what excludes what, and what a fingerprint counts."""

import json
import math
from dataclasses import FrozenInstanceError, fields, is_dataclass
from functools import reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import ValidationError
from settings import nested, types_by_key

import gdd.config
from gdd.cli.main import parse_config
from gdd.config import (
    Config,
    ConfigError,
    DataConfig,
    EvaluateConfig,
    counted,
    did_you_mean,
    read_as,
    stable_hash,
    to_plain,
)

TYPES = types_by_key()
SECTIONS = [getattr(gdd.config, name) for name in dir(gdd.config) if name.endswith("Config")]
MOST = 2**63 - 1

# Keys; the ends of their range, which belong to it; values beyond an end; what is expected instead.
NUMBERS = [
    ("seed matching.pool.main_only", (0, MOST), (-1,), "a number of at least 0"),
    ("refine.pool.steps_before refine.pool.steps_between", (0, MOST), (-1,), "a number of at least 0"),
    ("pretrain.warmup refine.warmup", (0, 499), (-1,), "a number of at least 0"),
    ("pretrain.steps refine.steps refine.pool.redraw_every", (1, MOST), (0, -1), "a number of at least 1"),
    ("matching.ipc matching.iterations matching.outer", (1, MOST), (0, -1), "a number of at least 1"),
    ("matching.inner matching.batch_real matching.batch_train", (1, MOST), (0, -1), "a number of at least 1"),
    ("matching.pool.similar_depth evaluate.all_epochs gan.r1_every", (1, MOST), (0, -1), "a number of at least 1"),
    ("run.log_every run.grid_every run.save_every", (1, MOST), (0, -1), "a number of at least 1"),
    ("evaluate.recipe.epochs evaluate.recipe.steps", (1, MOST), (0, -1), "a number of at least 1"),
    ("evaluate.recipe.batch_size run.keep run.threads run.workers", (1, MOST), (0, -1), "a number of at least 1"),
    ("pretrain.batch_size refine.batch_size refine.pool.batch_size", (2, MOST), (1, 0), "a number of at least 2"),
    ("gan.width", (4, 2**20), (3, 0, -4), "a number of at least 4"),
    ("gan.noise_dim", (1, 2**20), (0, -1), "a number of at least 1"),
    ("gan.width gan.noise_dim", (), (2**20 + 1,), "a number of at most 1048576"),
    ("pretrain.lr refine.lr refine.pool.lr refine.tau", (1e-300, 1e300), (0.0, 0, -1e-4), "a number above 0"),
    ("matching.lr_image matching.lr_network run.max_minutes", (1e-300, 1e300), (0.0, 0, -1), "a number above 0"),
    (
        "refine.balance evaluate.recipe.lr evaluate.recipe.label_temperature",
        (1e-300, 1e300),
        (0.0, 0, -1),
        "a number above 0",
    ),
    ("gan.aux_weight gan.gradient_penalty gan.r1", (0, 1e300), (-0.01, -1), "a number of at least 0"),
    (
        "refine.weight",
        (None, 1e-300, 1e300),
        (0.0, 0, -0.01),
        "a number above 0; refine.loss none goes on with the adversarial loss alone",
    ),
    ("gan.beta1 gan.beta2", (0.0, 0.999), (-0.1,), "a number of at least 0"),
    ("gan.beta1 gan.beta2", (), (1.0, 1), "a number below 1"),
    ("gan.ema_decays", ([0.0], [0.999]), ([-0.1],), "numbers of at least 0"),
    ("ensemble.steps", (1, MOST), (0,), "a number of at least 1"),
    ("ensemble.batch_size", (2, MOST), (1,), "a number of at least 2"),
    ("ensemble.lr", (1e-300, 1e300), (0.0, -1.0), "a number above 0"),
    ("gan.ema_decays", (), ([1.1],), "numbers of at most 1"),
    ("gan.ema_decays", (), ([1.0],), "numbers below 1"),
    ("gan.ema_decays", (), ([],), "no fewer than 1 values"),
    ("gan.proxy.every", (0, MOST), (-1,), "a number of at least 0"),
    ("gan.proxy.steps", (1, MOST), (0,), "a number of at least 1"),
    ("gan.proxy.batch_size", (2, MOST), (1,), "a number of at least 2"),
    ("pretrain.lr_discriminator refine.lr_discriminator", (None, 1e-300, 1e300), (0.0, -1.0), "a number above 0"),
    ("evaluate.recipe.weight_decay", (0, 1e300), (-0.01, -1), "a number of at least 0"),
    ("evaluate.recipe.average", (), (1.0, 1), "a number below 1"),
    ("evaluate.recipe.average", (0.0, 0.999), (-0.1,), "a number of at least 0"),
    *(
        (f"evaluate.recipe.keep_{name}", (None,), *beyond)
        for name in ("decrement", "minimum", "final")
        for beyond in (((-0.1,), "a number of at least 0"), ((1.1, 2), "a number of at most 1"))
    ),
    ("evaluate.recipe.keep_period", (None,), (0.0, -1), "a number above 0"),
    ("evaluate.recipe.keep_period", (), (1.1,), "a number of at most 1"),
    ("matching.pool.main_probability evaluate.alpha", (0.0, 1), (-0.1,), "a number of at least 0"),
    ("matching.pool.main_probability_end", (0.0, 1), (-0.1,), "a number of at least 0"),
    ("evaluate.temperature", (1e-300, 1e300), (-0.1,), "a number of at least 0"),
    ("matching.pool.main_probability evaluate.alpha", (), (1.1, 2), "a number of at most 1"),
    ("matching.pool.main_probability_end refine.pool.max_accuracy", (), (1.1, 2), "a number of at most 1"),
    ("refine.pool.max_accuracy", (1e-9, 1), (0, -1), "a number above 0"),
    ("data.val_fraction", (0, 1e-9, 0.5), (-0.1,), "a number of at least 0"),
    ("data.val_fraction", (), (0.51, 1), "a number of at most 0.5"),
    ("data.size", ([16, 16],), ([15, 32], [32, 0]), "numbers of at least 16"),
    ("evaluate.ipc", ([1], [1, MOST]), ([0], [10, -1]), "numbers of at least 1"),
    ("evaluate.seeds", ([0], [0, MOST]), ([-1], [0, -2]), "numbers of at least 0"),
    ("run.snapshots", ([], [0], [MOST]), ([-1], [0, 10, -1]), "numbers of at least 0"),
    ("refine.pool.weights", ([], [0, 0, 0.1]), ([1, -1, 1],), "numbers of at least 0"),
    ("refine.pool.ages", ([], [1], [3, 40]), ([0, 4],), "numbers of at least 1"),
    ("evaluate.select_alpha", ([],), ([-0.1], [0.5, -1]), "numbers of at least 0"),
    ("evaluate.select_alpha", (), ([0.5, 1.1],), "numbers of at most 1"),
    ("evaluate.select_temperature", ([],), ([1.0, -1.0],), "numbers of at least 0"),
    ("evaluate.ipc evaluate.seeds run.snapshots", (), ([2**63], [1, 10**30]), f"numbers of at most {MOST}"),
]
OTHERS = [
    ("evaluate.ipc evaluate.seeds evaluate.archs evaluate.protocols", (), ([],), "no fewer than 1 values"),
    ("refine.pool.members matching.pool.various ensemble.archs", (["mlp"],), ([],), "no fewer than 1 values"),
    ("data.size", (), ([16, 16, 16],), "no more than 2 values"),
    (
        "name",
        ("a.b", "é"),
        ("", ".", "..", "a/b", "../a", "/a", "a/", "\x1b[2J", "x" * 256),
        "a plain folder name without slashes, of at most 255 bytes",
    ),
]


def cases(rows: list[tuple[str, tuple, tuple, str]], are_refused: bool) -> list[tuple]:
    return [
        (key, value, expected) if are_refused else (key, value)
        for keys, ends, beyond, expected in rows
        for key in keys.split()
        for value in (beyond if are_refused else ends)
    ]


def refusal(key: str, value: object) -> str:
    with pytest.raises(ConfigError) as error:
        read_as(Config, nested({key: value}))
    return str(error.value)


def value_of(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


def kinds(key: str) -> tuple[Any, ...]:
    """Return what a setting may be: int, NoneType, tuple, Literal, ..."""
    kind = TYPES[key]
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(get_origin(part) or part for part in parts)


@pytest.mark.parametrize(("key", "value", "expected"), cases(NUMBERS + OTHERS, are_refused=True))
def test_a_value_out_of_range_is_refused_by_its_key(key, value, expected):
    said = refusal(key, value)
    assert said.startswith(f"{key} is ")
    assert said.endswith(f", expected {expected}")


def test_a_sentence_shows_the_value_as_it_was_written():
    assert refusal("gan.width", 3) == "gan.width is 3, expected a number of at least 4"
    assert refusal("data.size", [15, 32]) == "data.size is [15, 32], expected numbers of at least 16"
    assert refusal("refine.pool.weights", [1, 2]).startswith("refine.pool.weights is [1.0, 2.0], expected 3 numbers")
    assert refusal("matching.generator", "a/b").startswith("matching.generator is 'a/b', expected")
    assert refusal("gan.noise_dim", None) == "gan.noise_dim is null, expected a whole number"
    assert len(refusal("name", "x" * 10_000)) < 150


@pytest.mark.parametrize(("key", "value"), cases(NUMBERS + OTHERS, are_refused=False))
def test_the_ends_of_a_range_belong_to_it(key, value):
    read = value_of(read_as(Config, nested({key: value})), key)
    assert (list(read) if isinstance(read, tuple) else read) == value


def test_every_number_with_a_range_is_tried():
    def holds_numbers(kind: Any) -> bool:
        is_choice = get_origin(kind) is Literal
        return kind in (int, float) or (not is_choice and any(map(holds_numbers, get_args(kind))))

    numbers = {key for key, kind in TYPES.items() if holds_numbers(kind)}
    for are_refused in (True, False):
        assert {key for key, *_ in cases(NUMBERS, are_refused)} == numbers


WRONG = {
    int: (True, 3.5, 3.0, "3", [1], 2**63, 10**400, -(10**30)),
    float: (True, "0.5", [0.5], math.nan, math.inf, -math.inf),
    bool: (0, 1, "true"),
    str: (3, True, ["x"]),
    Path: (3, True),
    Literal: ("", "x", 7),
    tuple: (3, "x", {}, [None], [[]]),
}


@pytest.mark.parametrize("key", TYPES)
def test_a_value_of_another_type_is_refused_by_its_key(key):
    kind, *optional = kinds(key)
    assert optional in ([], [NoneType])
    for value in (*WRONG[kind], *([] if optional else [None])):
        assert refusal(key, value).startswith((f"{key} is ", f"{key}.0 is ")), value
    if optional:
        assert value_of(read_as(Config, nested({key: None})), key) is None


@pytest.mark.parametrize("section", [field.name for field in fields(Config) if is_dataclass(field.type)])
def test_a_section_is_no_null_and_no_value(section):
    for value in (None, 3, [], "x"):
        assert refusal(section, value).endswith("expected keys with their values")


@pytest.mark.parametrize("key", [key for key in TYPES if "." in key])
def test_a_section_built_directly_checks_its_values_alike(key):
    part, name = type(value_of(Config(), key.rpartition(".")[0])), key.rpartition(".")[2]
    for value in (math.nan, math.inf, object()):
        with pytest.raises(ValidationError) as error:
            part(**{name: value})
        assert isinstance(error.value, ValueError)
    assert part() == part()


LOG_MSE, EMBEDDING = {"refine.loss": "log_mse"}, {"matching.objective": "embedding"}
# Settings that hold together; one more that does not fit them; what is expected of it.
EXCLUSIVE = [
    (LOG_MSE, "refine.tau", 3.0, "its default 2.0 with loss log_mse"),
    (LOG_MSE, "refine.tau_mode", "multiply", "its default divide with loss log_mse"),
    (LOG_MSE, "refine.standardize", False, "its default True with loss log_mse"),
    (EMBEDDING, "matching.distance", "cos", "its default dc with objective embedding"),
    (EMBEDDING, "matching.outer", 2, "its default None with objective embedding"),
    (EMBEDDING, "matching.inner", 3, "its default None with objective embedding"),
    (EMBEDDING, "matching.inner_first", True, "its default False with objective embedding"),
    (
        {"evaluate.recipe.epochs": 3},
        "evaluate.recipe.steps",
        3,
        "null with evaluate.recipe.epochs: either decides the length",
    ),
    (
        {"evaluate.teacher": "set", "evaluate.select_alpha": [0.5]},
        "data.val_fraction",
        0.0,
        "a number above 0 with evaluate.select_alpha",
    ),
    (
        {"evaluate.teacher": "set", "evaluate.select_temperature": [0.5]},
        "data.val_fraction",
        0.0,
        "a number above 0 with evaluate.select_temperature",
    ),
    ({}, "evaluate.select_alpha", [0.5], "empty without evaluate.teacher"),
    ({}, "evaluate.select_temperature", [1.5], "empty without evaluate.teacher"),
    ({}, "evaluate.temperature", 0.0, "numbers above 0 (or 0 with kd_recipe released)"),
    (
        {"evaluate.teacher": "set"},
        "evaluate.select_temperature",
        [0.0, 1.0],
        "numbers above 0 (or 0 with kd_recipe released)",
    ),
    ({"matching.init": "real"}, "matching.generator", "x", "a path with init generator only"),
    ({"matching.init": "noise"}, "matching.generator", "x", "a path with init generator only"),
    *(
        ({}, "refine.pool.weights", weights, "3 numbers of at least 0 that are not all 0, one per member")
        for weights in ([1.0], [1.0] * 4, [0.0] * 3)
    ),
    ({"pretrain.steps": 9}, "pretrain.warmup", 9, "fewer than pretrain.steps, 9"),
    ({"refine.steps": 9}, "refine.warmup", 10, "fewer than refine.steps, 9"),
    ({}, "gan.ema_decays", [0.9, 0.99], "one decay without gan.proxy.every"),
    ({"gan.proxy.every": 5}, "gan.ema_decays", [0.9, 0.9], "different decays"),
    ({"refine.loss": "none"}, "refine.weight", 0.01, "null with refine.loss none"),
    ({"refine.loss": "none"}, "refine.balance", 0.5, "null with refine.loss none"),
    ({"refine.balance": 0.5}, "refine.weight", 0.01, "null with refine.balance"),
    ({"gan.proxy.every": 5}, "data.val_fraction", 0.0, "a number above 0 with gan.proxy.every"),
    ({}, "refine.pool.ages", [40, 3], "different ascending numbers"),
    ({}, "refine.pool.ages", [3, 3], "different ascending numbers"),
    ({"refine.pool.ages": [3]}, "refine.pool.redraw_every", 9, "its default 200 with ages"),
    ({"refine.pool.ages": [3]}, "refine.pool.steps_before", 0, "its default 16 with ages"),
    ({"refine.pool.ages": [3]}, "refine.pool.steps_between", 0, "its default 1 with ages"),
    (
        {"refine.loss": "features", "refine.balance": 1.0},
        "refine.pairing",
        "optimal",
        "its default class with loss features",
    ),
    ({"refine.loss": "gradient"}, "refine.tau", 3.0, "its default 2.0 with loss gradient"),
    *(
        ({}, f"evaluate.recipe.keep_{name}", 0.5, "null without evaluate.recipe.drop_path phases")
        for name in ("period", "decrement", "minimum", "final")
    ),
    ({"method": "matching", "run.snapshots": [1000]}, "run.snapshots", [0, 1001], "at most matching.iterations, 1000"),
]
ENDS = [{"decrement": 0, "minimum": 0.0, "final": 0.0}, {"period": 1, "decrement": 1.0, "minimum": 1, "final": 1}]
TOGETHER = [
    *(
        {
            "evaluate.recipe.drop_path": "phases",
            **{f"evaluate.recipe.keep_{name}": value for name, value in ends.items()},
        }
        for ends in ENDS
    ),
    {"refine.tau": 3.0, "refine.tau_mode": "multiply", "refine.standardize": False},
    {"matching.distance": "mse", "matching.outer": 2, "matching.inner": 3, "matching.inner_first": True},
    {"evaluate.recipe.augment": "crop", "evaluate.recipe.name": "dim", "evaluate.recipe.steps": 9},
    {"data.val_fraction": 0.0, "evaluate.teacher": "set"},
    {"evaluate.teacher": "real", "evaluate.select_alpha": [0.0, 1.0], "evaluate.select_temperature": [0.1, 20.0]},
    {"evaluate.teacher": "set", "evaluate.kd_recipe": "released", "evaluate.select_temperature": [0.0, 1.0]},
    {"evaluate.kd_recipe": "released", "evaluate.temperature": 0.0},
    {"matching.init": "generator", "matching.generator": "runs/digits/refine"},
    {"refine.pool.members": ["mlp"], "refine.pool.weights": [2.0]},
    {"run.snapshots": [5000]},
    {"refine.loss": "none", "refine.tau": 3.0, "refine.pairing": "optimal", "refine.pool.members": ["mlp"]},
    {"gan.ema_decays": [0.9, 0.99], "gan.proxy.every": 5},
]


@pytest.mark.parametrize(("held", "key", "value", "expected"), EXCLUSIVE)
def test_settings_that_exclude_each_other_are_refused(held, key, value, expected):
    read_as(Config, nested(held))
    with pytest.raises(ConfigError) as error:
        read_as(Config, nested(held | {key: value}))
    assert str(error.value) == f"{key} is {value!r}, expected {expected}"


@pytest.mark.parametrize("held", TOGETHER, ids=lambda held: next(iter(held)))
def test_settings_that_belong_together_are_taken(held):
    plain = to_plain(read_as(Config, nested(held)))
    assert all(reduce(dict.__getitem__, key.split("."), plain) == value for key, value in held.items())


def test_the_earlier_name_of_a_method_is_taken_for_that_of_now():
    assert read_as(Config, {"method": "skd"}) == Config() == Config(method="skd") == parse_config(["--method", "skd"])


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("mnist", {}, 0.001),
        ("fashion_mnist", {}, 0.01),
        ("digits", {"loss": "features"}, 0.01),
        ("mnist", {"weight": 0.5}, 0.5),
        ("mnist", {"balance": 1.0}, 0),
        ("mnist", {"loss": "none"}, 0),
    ],
)
def test_lambda_is_that_of_the_paper_unless_it_is_said(name, settings, expected):
    assert read_as(Config, {"data": {"name": name}, "refine": settings}).refine_weight == expected


def test_a_generator_to_start_from_must_be_named():
    said = refusal("matching.init", "generator")
    assert said == "matching.generator is null, expected a path with init generator only"


def test_the_sentence_begins_with_the_name_of_the_whole():
    assert issubclass(ConfigError, ValueError)
    for kind, values, said in (
        (DataConfig, {"size": [16]}, "spec.size.1 is missing"),
        (tuple[int, ...], [1, "x"], "spec.1 is 'x', expected a whole number"),
        (int, "{", "spec is '{', expected a whole number"),
        (str, "\udcff", "spec cannot be read (Invalid JSON: lone leading surrogate in hex escape at line 1 column 7)"),
    ):
        with pytest.raises(ConfigError) as error:
            read_as(kind, values, "spec")
        assert str(error.value) == said


def test_the_nearest_name_is_proposed():
    assert did_you_mean("ConvNet", ["mlp", "convnet3"]) == "; did you mean 'convnet3'?"
    assert did_you_mean("x", ["mlp", "convnet3"]) == ""


@pytest.mark.parametrize("part", SECTIONS)
def test_every_section_is_frozen_and_documented(part):
    for field in fields(part):
        with pytest.raises(FrozenInstanceError):
            setattr(part(), field.name, None)
    assert part.__doc__


def test_plain_values_are_json_and_come_back_the_same():
    config = Config(
        data=DataConfig(root=Path("a/b"), size=(16, 24)), evaluate=EvaluateConfig(seeds=(3,), archs=("mlp", "lenet"))
    )
    plain = to_plain(config)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (plain["data"]["root"], plain["data"]["size"], plain["data"]["channels"]) == ("a/b", [16, 24], None)
    assert read_as(Config, plain) == config != Config()
    assert read_as(Config, {}) == read_as(Config, to_plain(Config()) | {"unknown": 1}) == Config()


def with_another(key: str) -> Config:
    """Return the default config with another value under a key, whatever the value: no check sees it."""
    config, (*sections, name) = Config(), key.split(".")
    object.__setattr__(reduce(getattr, sections, config), name, "another")
    return config


@pytest.mark.parametrize("key", TYPES)
def test_the_hash_changes_with_any_value(key):
    assert stable_hash(with_another(key)) != stable_hash(Config())


def test_the_hash_changes_with_nothing_else():
    assert stable_hash(Config()) == stable_hash(to_plain(Config())) == stable_hash(Config(data=DataConfig(), seed=0))
    assert stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
    assert len({stable_hash(1, 2), stable_hash(2, 1), stable_hash(12), stable_hash([1, 2]), stable_hash("1", "2")}) == 5
    assert len(stable_hash(Config())) == len(f"{int(stable_hash(Config()), 16):016x}") == 16


WITHOUT_EFFECT = {"name", "method", "score", "refine.pretrained", "matching.generator", "ensemble.teaches"}
WITHOUT_EFFECT |= {key for key in TYPES if key.startswith(("data.", "run."))}
WITHOUT_EFFECT -= {"run.precision", "run.compile", "run.tf32", "run.deterministic"}


def test_every_field_counts_but_those_declared_without_effect():
    default = counted(Config())
    assert {key for key in TYPES if counted(with_another(key)) == default} == WITHOUT_EFFECT
    data = {key for key in TYPES if key.startswith("data.")}
    ignored = {key for key in data if counted(with_another(key).data) == counted(DataConfig())}
    assert ignored == {"data.root", "data.download", "data.label"}  # the images and labels that are read count instead


def test_sections_that_have_no_part_in_a_result_do_not_count():
    every, without = counted(Config()), counted(Config(), ("gan", "refine"))
    assert without == {name: value for name, value in every.items() if name not in ("gan", "refine")}
    assert set(every["refine"]["pool"]) == {field.name for field in fields(Config().refine.pool)}
    assert counted(Config().refine, ("pool",)) == {
        key: value for key, value in every["refine"].items() if key != "pool"
    }
