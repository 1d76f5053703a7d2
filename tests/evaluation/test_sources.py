"""Sources: refused before anything is trained, and completed by a floor and a ceiling."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scoring import Evaluate

from gdd.config import ConfigError, EvaluateConfig
from gdd.data.readers import Dataset, open_dataset
from gdd.evaluation import grid
from gdd.evaluation.recipe import Conditions
from gdd.evaluation.sources import CEILING, FLOOR, complete, read
from gdd.formats import plain
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, sample, set_file

Store = Callable[..., str]


@pytest.fixture
def store(generator: Path, tmp_path: Path) -> Store:
    """Store a set drawn from the generator, with some of its fields changed, and return its path."""

    def call(name: str, ipc: int = 2, seed: int = 0, **changes: object) -> str:
        synthetic = sample.sample_set(generator_file.load(generator), ipc, seed)
        path = tmp_path / name / set_file.FILE
        set_file.save(path, dataclasses.replace(synthetic, **changes))  # type: ignore[arg-type]
        return str(path)

    return call


def test_mistakes_are_named(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path, store: Store
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("nonsense")
    renamed = dataclasses.replace(dataset.spec, class_names=tuple("abcdefghij"))
    labels = torch.arange(10).repeat_interleave(2)
    mistakes: list[tuple[str, tuple[str, ...], dict[str, object]]] = [
        ("no-such-folder does not exist", ("no-such-folder",), {}),
        ("source real:some is unknown, expected", ("real:some",), {}),
        ("1000 images per class are asked for", (), {"ipc": (1000,)}),
        ("129 images per class are asked for, but class", ("real:fraction=1",), {}),
        *(
            (f"the source is {text}, expected a share above 0 and at most 1", (text,), {})
            for text in map("real:fraction={}".format, (0, -0.1, 1.5, "nan", "5%", ""))
        ),
        ("the source is real:fraction, expected a share", ("real:fraction",), {}),
        ("are the same real:fraction", ("real:fraction=0.05", "real:fraction=5e-2"), {}),
        ("unknown network 'mpl'", (), {"archs": ("mpl",)}),
        ("are the same generator", (str(generator), str(generator / generator_file.FILE)), {}),
        ("holds neither generator.safetensors nor set.safetensors", (str(tmp_path / "empty"),), {}),
        ("is damaged", (str(tmp_path / "text.safetensors"),), {}),
        ("has the classes a, b", (store("renamed", spec=renamed),), {}),
        ("says 2 images per class but", (store("unequal", labels=labels.clamp(max=8)),), {}),
    ]
    for sentence, texts, settings in mistakes:
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            evaluate(*texts, **settings)


def test_a_fraction_is_as_many_random_real_images_of_each_class(evaluate: Evaluate, dataset: Dataset) -> None:
    assert len(dataset.train.labels) == 1293
    rows = evaluate("real:fraction=0.05", "real:fraction=0.02", archs=("mlp-w16", "mlp-w8"), ipc=(6,), seeds=(0, 1))
    of = {
        kind: {(row.ipc, row.arch, row.seed): row for row in rows if row.kind == kind}
        for kind in ("real:fraction", FLOOR)
    }
    assert {ipc for ipc, _, _ in of["real:fraction"]} == {6, 3}  # 1293 images in ten classes
    for key, floor in of[FLOOR].items():
        row = of["real:fraction"][key]
        assert (row.source, row.distinct_images_seen, row.method) == ("real:fraction=0.05", 60, "real")
        assert (row.correct, row.train_loss) == (floor.correct, floor.train_loss)
    assert of["real:fraction"][6, "mlp-w8", 0].train_loss != of["real:fraction"][6, "mlp-w8", 1].train_loss


def test_exported_sets_are_scored_as_the_set_is(evaluate: Evaluate, store: Store, tmp_path: Path) -> None:
    path = store("set")
    plain.export_folder(set_file.load(path), tmp_path / "out")
    plain.export_npz(set_file.load(path), tmp_path / "out.npz")
    scores = [
        (row.correct, row.train_loss, row.ipc, row.source_hash)
        for place in (path, tmp_path / "out", tmp_path / "out.npz")
        for row in evaluate(str(place), folder=f"of{Path(place).suffix}")
        if row.kind == "set"
    ]
    assert len(scores) == 3
    assert len(set(scores)) == 1


SELECTING = {"teacher": "set", "teacher_arch": "mlp-w8", "select_alpha": (0.2, 0.8)}


@pytest.mark.parametrize(
    ("provenance", "sentence"),
    [
        ({}, "the origin of {path} is unknown, so nothing can be selected on this validation part"),
        ({"method": "theirs"}, "the origin of {path} is unknown"),
        ({"data": "0123456789abcdef"}, "{path} was made with another validation part"),
    ],
    ids=["nothing known", "only the method", "other data"],
)
def test_nothing_is_selected_for_what_may_have_seen_the_validation_part(
    provenance: dict[str, str], sentence: str, evaluate: Evaluate, store: Store
) -> None:
    path = store("theirs", provenance=provenance)
    with pytest.raises(ConfigError, match=re.escape(sentence.format(path=path))):
        evaluate(path, **SELECTING)
    assert len(evaluate(path)) == 3


def test_of_replicates_each_is_asked(dataset: Dataset) -> None:
    """They share a name, and it does not matter in which order they come."""
    ours, theirs = (SimpleNamespace(label="skd", kind="generator", provenance={"data": data}) for data in "ox")
    conditions = Conditions.of(EvaluateConfig(**SELECTING), dataset.spec)  # type: ignore[arg-type]
    stand_in = SimpleNamespace(val=dataset.val, fingerprint="o")
    for order in ([ours, theirs], [theirs, ours]):
        jobs = [SimpleNamespace(source=source) for source in order]
        with pytest.raises(ConfigError, match="skd was made with another validation part"):
            grid._require_held_out(jobs, conditions, stand_in)  # type: ignore[arg-type]
    grid._require_held_out([SimpleNamespace(source=ours)], conditions, stand_in)  # type: ignore[arg-type, list-item]


def test_real_images_and_sets_of_this_training_part_are_selected_for(
    evaluate: Evaluate, dataset: Dataset, store: Store
) -> None:
    rows = evaluate(store("ours", provenance={"data": dataset.fingerprint}), "real:random", "real:all", **SELECTING)
    assert all(row.validation_accuracy is not None for row in rows)


def test_without_validation_images_all_are_trained_on_and_nothing_is_selected(evaluate: Evaluate) -> None:
    digits = open_dataset("digits", Path("data"), val_fraction=0)
    everything = evaluate(data=digits)[-1]
    assert everything.images == 1438 == len(digits.train.labels)
    with pytest.raises(ConfigError, match=r"^data\.val_fraction is 0, so there are no images"):
        evaluate(data=digits, folder="selected", **SELECTING)


def test_run_folder_is_its_final_set_or_its_generator_and_read_once(
    generator: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(store("match", provenance={"method": "gradient matching"}))
    path.with_name("set-00000100.safetensors").write_bytes(Path(store("snapshot", seed=1)).read_bytes())
    opened = []
    load = checkpoint.load_tensors
    monkeypatch.setattr(checkpoint, "load_tensors", lambda file: opened.append(file) or load(file))
    matched, drawn = read(str(path.parent), "matched"), read(str(generator))
    assert opened == [path, generator / generator_file.FILE] == [matched.path, drawn.path]
    assert (matched.label, matched.kind, matched.stored_ipc) == ("matched", "set", 2)
    assert matched.hash == set_file.load(path).hash
    assert (drawn.label, drawn.kind, drawn.stored_ipc) == (str(generator), "generator", None)


def test_only_stored_sets_of_different_ipc_share_a_name(dataset: Dataset, generator: Path, store: Store) -> None:
    one, two, other = (read(store(f"{ipc}-{seed}", ipc, seed), "set") for ipc, seed in ((1, 0), (2, 0), (2, 1)))
    assert [source.stored_ipc for source in complete([one, two], (5,), dataset)[0][1:3]] == [1, 2]
    for named in ([two, other], [one, read(str(generator), "set")]):
        with pytest.raises(ConfigError, match="two sources are called 'set'"):
            complete(named, (5,), dataset)


def test_floors_are_where_something_is_scored(dataset: Dataset, generator: Path, store: Store) -> None:
    stored, drawn = read(store("set")), read(str(generator))
    for named, expected in (([stored], (2,)), ([drawn], (5, 7)), ([stored, drawn], (2, 5, 7)), ([], (5, 7))):
        assert complete(named, (7, 5), dataset)[1] == expected


def test_ceiling_can_be_left_out_unless_named(dataset: Dataset) -> None:
    for named, expected in (([], [FLOOR]), ([read(CEILING, "all")], [FLOOR, CEILING])):
        sources, _ = complete(named, (1,), dataset, ceiling=False)
        assert [source.kind for source in sources] == expected
        assert {source.hash for source in sources} == {dataset.fingerprint}
