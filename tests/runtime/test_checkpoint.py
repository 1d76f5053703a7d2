import pickle
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from checkpoints import assert_same, files
from pickles import Touch
from torch import nn

from gdd.config import ConfigError
from gdd.rng import seeded
from gdd.runtime import checkpoint


class Counter:
    """A state of numbers, text, lists and tensors, like the pool's."""

    def __init__(self, **values):
        self.values = values

    def state_dict(self):
        return self.values

    def load_state_dict(self, state_dict):
        self.values = state_dict


def network(seed: int, inputs: int = 6) -> nn.Module:
    with seeded(seed, "test"):
        return nn.Sequential(nn.Linear(inputs, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def make_states(seed: int, inputs: int = 6, steps: int = 2):
    model = network(seed, inputs)
    adam = torch.optim.Adam(model.parameters(), lr=0.1 * (seed + 1))
    for _ in range(steps):
        adam.zero_grad()
        model(torch.arange(3.0 * inputs).view(3, inputs)).square().sum().backward()
        adam.step()
    return {"model": model, "adam": adam, "counter": Counter(uses=[seed, 2], name="a", mean=torch.tensor([0.5]))}


def tensors_in(value, path=""):
    """Yield every leaf of a nested state with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{path}/{index}")
    else:
        yield path, value


def leaves(states):
    return dict(tensors_in({name: state.state_dict() for name, state in states.items()}))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path, 7, make_states(0), keep=2)


class TestRoundTrip:
    def test_everything_comes_back_bit_for_bit(self, stored):
        states = make_states(1, steps=0)
        assert checkpoint.load(stored, states) == 7
        assert_same(leaves(states), leaves(make_states(0)))

    def test_a_part_of_the_states_can_be_read(self, stored):
        only = {"model": network(1)}
        checkpoint.load(stored, only)
        assert_same(leaves(only), leaves({"model": make_states(0)["model"]}))


class TestAtomicity:
    @pytest.mark.parametrize("fails", [True, False])
    def test_the_old_file_stands_until_the_new_one_is_whole(self, tmp_path, fails):
        path = tmp_path / "file"
        path.write_text("old")

        def write(temporary: Path) -> None:
            assert temporary.parent == tmp_path  # a rename is atomic within one file system only
            temporary.write_text("new")
            assert path.read_text() == "old"
            if fails:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            checkpoint.write_atomically(path, write)
        assert path.read_text() == ("old" if fails else "new")
        assert files(tmp_path) == {"file"}

    def test_a_state_that_cannot_be_saved_leaves_the_old_checkpoint(self, stored):
        before = stored.read_bytes()
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            checkpoint.save(stored.parent, 7, {"bad": Counter(function=lambda: None)}, keep=2)
        assert stored.read_bytes() == before
        assert files(stored.parent) == {stored.name}


class TestKeep:
    @pytest.mark.parametrize("keep", [1, 2, 5])
    def test_the_newest_stay(self, tmp_path, keep):
        for step in (5, 10, 15, 20):
            checkpoint.save(tmp_path, step, {"counter": Counter(step=step)}, keep)
        assert checkpoint.steps(tmp_path) == [5, 10, 15, 20][-keep:]
        for step in checkpoint.steps(tmp_path):
            counter = Counter()
            assert checkpoint.load(checkpoint.path_at(tmp_path, step), {"counter": counter}) == step
            assert counter.values == {"step": step}

    def test_other_files_are_neither_counted_nor_removed(self, tmp_path):
        others = {"checkpoint-1.pt", "checkpoint-00000001.pt.bak", ".checkpoint-00000001.pt.9.tmp", "config.json"}
        for name in others:
            (tmp_path / name).touch()
        assert checkpoint.steps(tmp_path) == []
        for step in (2, 1):
            checkpoint.save(tmp_path, step, {}, keep=2)
        assert checkpoint.steps(tmp_path) == [1, 2]
        assert files(tmp_path) == others | {"checkpoint-00000001.pt", "checkpoint-00000002.pt"}

    def test_a_missing_folder_has_no_steps(self, tmp_path):
        assert checkpoint.steps(tmp_path / "nothing") == []


class TestDamage:
    @pytest.mark.parametrize("tenth", [*range(10), "all but a byte"])
    def test_a_truncated_file_is_refused_by_name(self, stored, tenth):
        whole = stored.read_bytes()
        stored.write_bytes(whole[: -1 if isinstance(tenth, str) else len(whole) * tenth // 10])
        with pytest.raises(ConfigError, match=stored.name):
            checkpoint.load(stored, make_states(0))

    @pytest.mark.parametrize("fiftieth", range(50))
    def test_a_flipped_byte_is_refused_or_without_effect(self, stored, fiftieth):
        damaged = bytearray(stored.read_bytes())
        damaged[len(damaged) * fiftieth // 50] ^= 0xFF
        stored.write_bytes(damaged)
        states = make_states(1)
        try:
            checkpoint.load(stored, states)
        except ConfigError as error:
            assert stored.name in str(error)  # noqa: PT017
        else:  # padding between the parts
            assert_same(leaves(states), leaves(make_states(0)))

    def test_a_flipped_byte_in_the_zip_directory_is_refused(self, stored):
        damaged = bytearray(stored.read_bytes())
        damaged[damaged.rindex(b"PK\x05\x06")] ^= 0xFF
        stored.write_bytes(damaged)
        with pytest.raises(ConfigError, match=stored.name):
            checkpoint.load(stored, make_states(1))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"checkpoint-00000003\.pt does not exist"):
            checkpoint.load(checkpoint.path_at(tmp_path, 3), {})

    @pytest.mark.parametrize("content", [{}, [], 3, {"schema": 1, "step": 2}, {"states": {}}])
    def test_a_torch_file_of_other_content_is_refused(self, tmp_path, content):
        path = tmp_path / "checkpoint-00000001.pt"
        torch.save(content, path)
        with pytest.raises(ConfigError, match=path.name):
            checkpoint.load(path, {})

    @pytest.mark.parametrize("schema", [checkpoint.SCHEMA - 1, checkpoint.SCHEMA + 1, "1", None])
    def test_another_schema_is_refused(self, tmp_path, schema):
        path = tmp_path / "checkpoint-00000001.pt"
        torch.save({"schema": schema, "step": 1, "states": {}}, path)
        with pytest.raises(ConfigError, match=f"schema {schema}, this version reads {checkpoint.SCHEMA}"):
            checkpoint.load(path, {})

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: {"pool": Counter()}, r"no state named 'pool', only \['adam', 'counter', 'model'\]"),
            (lambda: make_states(0, inputs=5), r"'model' does not fit this configuration .*another network"),
            (lambda: {"model": nn.Linear(6, 4)}, "'model' does not fit"),
            (lambda: {"adam": torch.optim.Adam(nn.Linear(6, 4).parameters())}, "'adam' does not fit"),
        ],
        ids=["missing", "shapes", "network", "optimizer"],
    )
    def test_other_states_than_those_stored_are_refused_by_name(self, stored, make, message):
        with pytest.raises(ConfigError, match=message):
            checkpoint.load(stored, make())

    def test_another_network_of_the_same_shape_is_refused(self, stored):
        before = network(1)
        other = nn.Sequential(before[0], before[1], nn.Linear(4, 2))
        checkpoint.load(stored, {"model": other})  # the same layers
        other[1] = nn.BatchNorm1d(4, momentum=0.5)
        assert other.state_dict().keys() == before.state_dict().keys()
        with pytest.raises(ConfigError, match=r"'model' does not fit .*another network"):
            checkpoint.load(stored, {"model": other})


class TestManifest:
    @pytest.mark.parametrize("change", ["value", "type", "shape", "name"])
    def test_what_does_not_agree_with_it_is_refused(self, stored, change):
        content = torch.load(stored, weights_only=True)
        weights = content["states"]["model"]
        weights |= {
            "value": {"0.bias": weights["0.bias"] + 1},
            "type": {"0.bias": weights["0.bias"].double()},
            "shape": {"0.bias": weights["0.bias"].view(2, 2)},
            "name": {"0.offset": weights["0.bias"]},
        }[change]
        torch.save(content, stored)
        with pytest.raises(checkpoint.Damaged, match="'model' is not what its manifest says"):
            checkpoint.load(stored, make_states(0))

    def test_networks_of_one_shape_that_changed_places_are_refused(self, stored, tmp_path):
        """Two generators of one size have the same names and shapes; only the hashes tell."""
        checkpoint.save(tmp_path, 1, {"one": network(0), "two": network(1)}, keep=2)
        path = checkpoint.path_at(tmp_path, 1)
        content = torch.load(path, weights_only=True)
        states = content["states"]
        states["one"], states["two"] = states["two"], states["one"]
        torch.save(content, path)
        with pytest.raises(checkpoint.Damaged, match="'one' is not what its manifest says"):
            checkpoint.load(path, {"one": network(2), "two": network(3)})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, zipped):
    mark, path = tmp_path / "ran", tmp_path / "checkpoint-00000001.pt"
    states = {"counter": {"uses": Touch(mark)}}
    torch.save({"schema": checkpoint.SCHEMA, "step": 1, "states": states}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConfigError, match=path.name):
        checkpoint.load(path, {"counter": Counter()})
    assert not mark.exists()
    pickle.loads(pickle.dumps(Touch(mark)))
    assert mark.exists()


class TestJson:
    def test_values_come_back(self, tmp_path):
        values = {"a": [1, None, "ä"], "b": 0.1}
        checkpoint.write_json(tmp_path / "x.json", values)
        assert checkpoint.read_json(tmp_path / "x.json") == values

    @pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1', b"\xff\xfe\x00"])
    def test_damage_and_a_missing_file_are_refused(self, tmp_path, content):
        if content is not None:
            (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"x\.json"):
            checkpoint.read_json(tmp_path / "x.json")


TENSORS = {
    "images": torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2),
    "labels": torch.tensor([0, 1]),
    "soft": torch.tensor([[0.1, -2.0]], dtype=torch.float16),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 4),
}
METADATA = {"kind": "set", "names": ["ä", 'b"c'], "nested": {"seed": 1, "none": None, "lr": 0.1}}


class TestTensors:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "set.safetensors"
        checkpoint.save_tensors(path, TENSORS, METADATA)
        return path

    def test_tensors_and_metadata_come_back(self, path):
        tensors, metadata = checkpoint.load_tensors(path)
        assert metadata == METADATA
        assert_same(tensors, TENSORS)
        assert {name: value.dtype for name, value in tensors.items()} == {n: v.dtype for n, v in TENSORS.items()}
        assert files(path.parent) == {path.name}

    def test_views_and_parameters_can_be_stored(self, tmp_path):
        path = tmp_path / "x.safetensors"
        base = torch.arange(12.0).view(3, 4)
        weight = nn.Parameter(base.clone())
        checkpoint.save_tensors(path, {"transposed": base.t(), "weight": weight}, {})
        tensors, _ = checkpoint.load_tensors(path)
        assert torch.equal(tensors["transposed"], base.t())
        assert torch.equal(tensors["weight"], base)

    @pytest.mark.parametrize("tenth", range(10))
    def test_a_truncated_file_is_refused(self, path, tenth):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ConfigError, match=path.name):
            checkpoint.load_tensors(path)

    @pytest.mark.parametrize(("name", "message"), [("x.safetensors", r"x\.safetensors does not exist"), (".", "")])
    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path, name, message):
        with pytest.raises(ConfigError, match=message or tmp_path.name):
            checkpoint.load_tensors(tmp_path / name)
