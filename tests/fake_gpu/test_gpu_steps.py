"""No step mixes devices, asks CUDA for what it lacks, copies or waits more often than it does today.

`python tests/fake_gpu/hot_steps.py` prints the table of all, operations included.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from card import CLASSES, CUDA, card
from dtypes import Dtypes
from hot_steps import STEPS, Accelerator, gan_of, measured

from gdd.cli import summary
from gdd.config import Config
from gdd.models import registry
from gdd.runtime import checkpoint, execution
from gdd.runtime import device as machine
from gdd.runtime.execution import EAGER, Execution
from gdd.training.gan import GanTrainer
from gdd.training.together import Stacked

# What a step copies between CPU and card, and for what the host waits, at most; none where it is not listed. A draw of
# the CPU is a copy, and so is a list that indexes. To be brought down, never up.
COPIES = {
    "generator, dim ns": 3,
    "generator, dim wgan-gp": 3,
    "generator, residual hinge": 3,
    "generator, residual hinge, augmented": 9,
    "discriminator, dim ns": 2,
    "discriminator, dim ns, R1": 2,
    "discriminator, dim wgan-gp": 3,
    "discriminator, residual hinge": 2,
    "discriminator, residual hinge, R1": 2,
    "discriminator, residual hinge, augmented": 8,
    "refine, skd, living": 6,
    "refine, skd, ages": 6,
    "refine, log_mse, living": 6,
    "refine, log_mse, ages": 6,
    "refine, features, living": 9,  # another real batch, by which features are standardized
    "refine, features, ages": 9,
    "refine, gradient, living": 6,
    "refine, gradient, ages": 6,
    "refine, skd, optimal pairs": 9,
    "refine, skd, balanced": 6,
    "lesson, augmented": 3,
    "student, alexnet bn, DropPath": 3,
    "student, alexnet bn, DropPath, stack": 5,
    "student, resnet10 bn, DropPath": 3,
    "student, resnet10 bn, DropPath, stack": 5,
    "student, convnet3, DSA": 1,
    "student, convnet3, DSA, stack": 2,
    "student, convnet3, average": 1,
    "student, convnet3, average, stack": 1,
    "student, convnet3, stream": 2,
    "student, convnet3, stream, stack": 4,
    "matching, images": 9,
    "matching, images, bn": 9,
    "matching, images, DSA": 15,
    "matching, images, embedding": 7,
    "matching, network": 1,
    "matching, network, DSA": 2,
    "matching, statistics": 3,
    "sampling, dim, set": 9,
    "sampling, residual, stream": 2,
}
READS = {
    "refine, skd, living": 2,
    "refine, log_mse, living": 2,
    "refine, features, living": 22,
    "refine, features, ages": 20,
    "refine, gradient, living": 18,
    "refine, gradient, ages": 16,
    "refine, skd, optimal pairs": 2,
    "lesson, convnet3": 2,
    "lesson, resnet18 bn": 2,
    "lesson, augmented": 2,
    "lesson, up to an accuracy": 3,
    "student, convnet3, stream": 1,
    "student, convnet3, stream, stack": 2,
    "test pass": 2,
    "sampling, dim, set": 3,
}


# Of layers that shorter ones have too.
LONG = {"student, resnet18, stack", "student, resnet34", "student, resnet50", "student, vgg11, stack"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in STEPS]
)
def test_a_step_stays_on_the_card(name: str) -> None:
    found = measured(name)
    assert found["operations"] > 0
    assert found["copies"] <= COPIES.get(name, 0)
    assert found["reads"] <= READS.get(name, 0)


def test_limits_are_of_steps() -> None:
    assert {*COPIES, *READS} <= {*STEPS}


class TestCard:
    """The stand-in itself can fail."""

    def test_a_mix_of_devices(self) -> None:
        with card(), pytest.raises(RuntimeError, match=r"cuda:0.*cpu|same device"):
            torch.nn.Linear(2, 2)(torch.zeros(1, 2, device=CUDA))

    def test_what_it_does_not_know(self) -> None:
        with card(), pytest.raises(Exception, match="geqrf"):
            torch.geqrf(torch.zeros(3, 3, device=CUDA).logical_not().float())

    def test_copies_reads_and_operations_are_counted(self) -> None:
        with card() as counting:
            there = torch.arange(6.0).to(CUDA)  # a copy
            there = there.square() + 1  # two operations
            torch.cuda.synchronize()  # a read
            assert float(there.sum()) == 1  # an operation and a read
            assert (there > 2).cpu().tolist() == [False] * 6  # an operation, a copy and a read
            there[there > 2]  # two operations and a read
            there[[0, 1]]  # an operation and a copy
        assert dict(counting.counted) == {"operations": 7, "copies": 3, "reads": 4}

    def test_gradients_are_those_of_torchs_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import engine

        def gradients() -> list[torch.Tensor]:
            x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
            y = torch.tensor([0.5, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
            value = ((x * y).tanh() @ x.T).square().sum() + (x + y).exp().mean()
            (first,) = torch.autograd.grad(value, x, create_graph=True)
            unused = torch.autograd.grad(first.square().sum(), (x, y, x.new_zeros(1, requires_grad=True)), None, True,
                                         allow_unused=True)  # fmt: skip
            (first.square().sum() + value).backward()
            return [first.detach(), *unused, x.grad, y.grad]

        wanted = gradients()
        monkeypatch.setattr(torch.autograd, "_engine_run_backward", engine.run_backward)
        for one, other in zip(gradients(), wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


@pytest.mark.parametrize("fused", [True, False])
def test_a_stage_goes_on_from_another_precision(fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused Adam counts its steps on the card, the other one on the CPU; a checkpoint is on the CPU."""
    before, after = (EAGER, Execution("bfloat16")) if fused else (Execution("bfloat16"), EAGER)
    gan = gan_of(before, Accelerator(torch.device("cpu")))
    step(gan, torch.device("cpu"))
    path = checkpoint.save(tmp_path, 1, gan.states(), 1)
    content = checkpoint._read(path)  # in a block with fake tensors torch reads no values
    monkeypatch.setattr(checkpoint, "_read", lambda _: content)
    with card():
        gan = gan_of(after, Accelerator())
        gan.start_from(path)
        counts = [state["step"] for state in gan.opt_d.state.values()]
        assert {(count.device.type, count.dtype) for count in counts} == {("cuda" if fused else "cpu", torch.float32)}
        assert all(group["fused"] is after.fused for group in gan.opt_d.param_groups)
        step(gan, CUDA)


def step(gan: GanTrainer, device: torch.device) -> None:
    labels = (torch.arange(6) % CLASSES).to(device)
    fake = gan.generate(1, labels)
    gan.update_generator(1e-3, fake, torch.ones_like(fake))
    gan.update_discriminator(1, 1e-3, torch.zeros(6, 3, 16, 16, device=device), labels, penalised=False)


def test_no_gradient_of_dims_networks_lacks_a_deterministic_kernel() -> None:
    """torch names those of pools over whole maps, of resampling and of padding (use_deterministic_algorithms)."""
    with card() as counting:
        gan = gan_of(EAGER, Accelerator())
        step(gan, CUDA)
    assert not {"adaptive_max_pool2d_backward", "max_pool2d_with_indices_backward"} & {*counting.names}


def test_a_cards_speed_is_that_of_a_product_that_keeps_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(call: Callable[[], torch.Tensor], device: torch.device) -> machine.Taken:
        return machine.Taken(1.0, 2.0) if call().shape == (8192, 8192) else machine.Taken(1e9, 1e9)

    monkeypatch.setattr(machine, "taken", taken)
    with card():
        assert machine.matrix_product(CUDA, torch.bfloat16) == 8192**3 / 1e9
        assert summary.speed(Config(), CUDA) == (0.4 * 2 * 8192**3, 0.4 * 2 * 8192**3, 2)


def test_on_a_card_networks_are_in_bfloat16() -> None:
    with card():
        assert execution.resolve("auto", CUDA) == "bfloat16"


@pytest.mark.parametrize("arch", ["convnet3-w8", "convnet3-ln-w4", "convnet3-gn-w4", "resnet10-bn-w4", "vit-w8-d1"])
def test_stacked_students_multiply_in_bfloat16_and_their_norms_count_in_float32(arch: str) -> None:
    """On a CPU autocast does not reach a convolution under vmap; on a card it does."""
    chosen = Execution("bfloat16")
    with card():
        networks = [chosen.place(registry.build(arch, (3, 16, 16), CLASSES).to(CUDA)) for _ in range(2)]
        stacked = Stacked(networks).train()
        with Dtypes() as seen:
            answer = chosen(stacked, torch.zeros(2, 6, 3, 16, 16, device=CUDA))
    assert answer.dtype == torch.float32
    assert {*seen.products} == {torch.bfloat16}
    assert {*seen.statistics} == {torch.float32}
