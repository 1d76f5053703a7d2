"""What the tests of checkpoints and other stored files share."""

from pathlib import Path

import torch


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        same = torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        assert same, key


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
