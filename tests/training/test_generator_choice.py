"""Which averaged generator a stage keeps, and its batch norms' statistics."""

from pathlib import Path
from typing import Any

import pytest
import torch
from generators import as_stored
from steps import CLASSES, SPEC, configured, run_stage, states
from torch import Tensor

from gdd import rng
from gdd.config import Config, DataConfig, GanConfig
from gdd.config.gan import ProxyConfig
from gdd.data.pixels import Normalizer, u8_to_pm1
from gdd.data.splits import Split
from gdd.models.gan import BatchNorm, DimGenerator, Generator
from gdd.sampling import generator_file
from gdd.training.distil import distil
from gdd.training.generator_choice import GeneratorChoice, Proxy, with_own_statistics


def generator(seed: int = 0) -> DimGenerator:
    with rng.seeded(seed, "a generator"):
        return DimGenerator(SPEC.shape, CLASSES, 4, 8)


def test_statistics_are_those_of_its_own_images() -> None:
    plain = generator()
    found = with_own_statistics(plain, seed=0)
    seen: list[Tensor] = []
    first = next(module for module in plain.modules() if isinstance(module, BatchNorm))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    plain.train()
    for index in range(20):
        random = rng.Draws(0, rng.STATISTICS_NOISE, index)
        noise = random.normal(200, 8)
        plain(noise, random.integers(CLASSES, 200))
    values = torch.cat(seen).double()
    axes = (0, *range(2, values.ndim))
    norm = next(module for module in found.modules() if isinstance(module, BatchNorm))
    torch.testing.assert_close(norm.running_mean.double(), values.mean(axes), rtol=1e-4, atol=1e-5)
    # The mean of the batches' own variances lacks what their means vary, a two-hundredth at most.
    torch.testing.assert_close(norm.running_var.double(), values.var(axes), rtol=2e-2, atol=1e-5)
    assert not any(module.training for module in found.modules())
    assert norm.momentum == 0.1


def test_statistics_change_nothing_else_and_do_not_depend_on_what_was_there() -> None:
    plain = generator()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    found = with_own_statistics(plain, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in found.named_parameters())
    for module in plain.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.fill_(7.0)
            module.running_var.fill_(7.0)
    again = with_own_statistics(plain, seed=0)
    names = [name for name, _ in found.named_buffers() if "running" in name]
    assert names
    assert all(torch.equal(again.state_dict()[name], found.state_dict()[name]) for name in names)


class Painter(Generator):
    """Images of one grey level per class, whatever the noise; the levels are right or swapped."""

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.num_classes, self.noise_dim = len(levels), 2
        self.levels = torch.nn.Parameter(torch.tensor(levels))

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.levels[labels].view(-1, 1, 1, 1).expand(-1, *SPEC.shape) + 0.05 * noise[:, :1, None, None]


def painted(levels: list[float]) -> Split:
    labels = torch.arange(30) % len(levels)
    images = torch.tensor(levels)[labels].view(-1, 1, 1, 1).expand(-1, *SPEC.shape)
    return Split(((images + 1) * 127.5).round().to(torch.uint8), labels)


def proxy(val: Split, **own: Any) -> Proxy:
    values = {"arch": "convnet3-nonorm-w4", "steps": 60, "batch_size": 12, "seed": 0, **own}
    return Proxy(val, Normalizer(SPEC.mean, SPEC.std), **values)


def test_a_proxy_of_right_labels_is_right_and_one_of_swapped_ones_is_wrong() -> None:
    judge = proxy(painted([-0.9, 0.0, 0.9]))
    assert judge.accuracy(Painter([-0.9, 0.0, 0.9])) == 1
    assert judge.accuracy(Painter([0.9, 0.0, -0.9])) <= 1 / 3 + 1e-6


def test_a_proxy_that_answers_with_nan_knows_nothing() -> None:
    """Were nan a class, it would know the images of the first."""
    assert proxy(painted([-0.9, 0.0, 0.9]), steps=2).accuracy(Painter([torch.nan] * 3)) == 0


def test_a_proxy_repeats_itself() -> None:
    assert u8_to_pm1(painted([-1.0, 1.0]).images_u8).abs().eq(1).all()
    judge = proxy(painted([-0.1, 0.1]), steps=3)
    assert judge.accuracy(generator()) == judge.accuracy(generator())


def chosen_of(folder: Path) -> dict[str, Any]:
    return generator_file.load(folder).provenance["chosen"]


def test_the_best_average_of_all_steps_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.2, 0.5, 0.9, 0.3, 0.9, 0.1])  # of two averages after steps 2, 4 and 5
    monkeypatch.setattr(Proxy, "accuracy", lambda self, generator: next(shares))
    gan = {"ema_decays": (0.5, 0.9), "proxy": ProxyConfig(every=2, arch="convnet3-w4")}
    run_stage(distil, configured(gan=gan, pretrain={"steps": 5}), tmp_path)
    assert chosen_of(tmp_path) == {"step": 4, "ema_decay": 0.5, "accuracy": 0.9}  # the first of equals
    weights = states(tmp_path)[3]["average"]
    for name, value in generator_file.load(tmp_path).generator.named_parameters():
        assert torch.equal(value, as_stored(weights[f"module.{name}"]))
    (tmp_path / "resumed").mkdir()
    for name in ("config.json", "checkpoint-00000004.pt"):  # what was chosen before a stop counts after it
        (tmp_path / "resumed" / name).hardlink_to(tmp_path / name)
    shares = iter([0.1, 0.8])
    run_stage(distil, configured(gan=gan, pretrain={"steps": 5}), tmp_path / "resumed")
    assert chosen_of(tmp_path / "resumed") == chosen_of(tmp_path)


def test_averages_follow_their_own_decays(tmp_path: Path) -> None:
    gan = {"ema_decays": (0.5, 0.9), "proxy": ProxyConfig(every=9, steps=1, batch_size=6, arch="convnet3-w4")}
    first, second = run_stage(distil, configured(gan=gan), tmp_path)
    for name, decay in (("average", 0.5), ("average 0.9", 0.9)):
        for place, before in first[name].items():
            if place.endswith(("weight", "bias")):
                now = second["generator"][place.removeprefix("module.")]
                torch.testing.assert_close(second[name][place], decay * before + (1 - decay) * now)


def test_without_validation_images_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(ValueError, match=r"a number above 0 with gan\.proxy\.every"):
        Config(gan=GanConfig(proxy=ProxyConfig(every=2)), data=DataConfig(val_fraction=0.0))


def test_a_proxys_classes_take_turns_though_a_batch_has_fewer() -> None:
    """Batches of two of three classes: after 60 steps all three are known."""
    assert proxy(painted([-0.9, 0.0, 0.9]), batch_size=2).accuracy(Painter([-0.9, 0.0, 0.9])) == 1


def test_without_a_proxy_the_last_average_is_kept(make_gan: Any) -> None:
    gan = make_gan()
    choice = GeneratorChoice(gan, 0)
    assert choice.observe(1, 1) == {}
    kept, how = choice.generator()
    assert how == {}
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), gan.average.module.parameters(), strict=True))
