from pathlib import Path

import pytest
import torch
from checkpoints import assert_same, files
from torch import nn

from gdd.config import ConfigError
from gdd.runtime import checkpoint


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
