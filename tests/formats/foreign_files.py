"""What the tests of other projects' files share."""

import pytest
import torch

from gdd import rng
from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec

GREY = DatasetSpec("grey", 1, 6, 4, ("cat", "dog", "eel"), (0.1307,), (0.3081,), False)
COLOUR = DatasetSpec("colour", 3, 6, 4, ("cat", "dog", "eel"), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), True)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def normalised(spec: DatasetSpec, count: int = 6, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(count, *spec.shape, generator=rng.generator(seed, "test"))


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def dc_file(path, images, labels=LABELS, **others):
    return saved(path, {"data": [[images, labels]], "accs_all_exps": {"ConvNet": []}, **others})


def mtt_files(folder, labels, images=None):
    images = normalised(GREY) if images is None else images
    return saved(folder / "images.pt", images), saved(folder / "labels.pt", labels)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(ConfigError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)
