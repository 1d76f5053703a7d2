"""Scoring itself: eval mode, every test image, no trace in the network."""

import pytest
import torch

from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.evaluation import student
from gdd.models import registry


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_score_does_not_depend_on_the_test_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In train mode, batch norm would see the batch's own statistics, and would keep them."""
    monkeypatch.setattr(student, "TEST_BATCH", batch)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 1, 16, 16), dtype=torch.uint8, generator=draw)
    normalize = Normalizer((0.5,), (0.3,))
    torch.manual_seed(0)
    network = registry.build("convnet3-bn-w8", (1, 16, 16), 4).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    answers = network(normalize.from_u8(images)).argmax(1)
    labels = torch.where(torch.arange(20) < 13, answers, (answers + 1) % 4)
    network.train()
    assert student.count_correct(network, Split(images, labels), normalize) == 13
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
