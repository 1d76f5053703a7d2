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

# Kernels of a step, roughly; a change may add a tenth. A step that a graph replays waits for none of them.
OPERATIONS = {
    "generator, dim ns": 381,
    "generator, dim wgan-gp": 383,
    "generator, residual hinge": 562,
    "generator, residual hinge, augmented": 779,
    "discriminator, dim ns": 486,
    "discriminator, dim ns, R1": 1194,
    "discriminator, dim wgan-gp": 1303,
    "discriminator, residual hinge": 723,
    "discriminator, residual hinge, R1": 1187,
    "discriminator, residual hinge, augmented": 916,
    "refine, skd, living": 374,
    "refine, skd, ages": 374,
    "refine, log_mse, living": 314,
    "refine, log_mse, ages": 314,
    "refine, features, living": 634,
    "refine, features, ages": 634,
    "refine, gradient, living": 686,
    "refine, gradient, ages": 686,
    "refine, skd, optimal pairs": 405,
    "refine, skd, balanced": 379,
    "lesson, convnet3": 80,
    "lesson, resnet18 bn": 230,
    "lesson, augmented": 247,
    "lesson, up to an accuracy": 86,
    "student, mlp": 45,
    "student, mlp, stack": 69,
    "student, lenet": 66,
    "student, lenet, stack": 106,
    "student, alexnet": 72,
    "student, alexnet, stack": 117,
    "student, vgg11": 148,
    "student, vgg11, stack": 256,
    "student, vit": 191,
    "student, vit, stack": 225,
    "student, convnet": 74,
    "student, convnet, stack": 125,
    "student, convnet3": 74,
    "student, convnet3, stack": 125,
    "student, resnet10": 180,
    "student, resnet10, stack": 326,
    "student, resnet18": 284,
    "student, resnet18, stack": 518,
    "student, resnet34": 492,
    "student, resnet50": 694,
    "student, resnet10 bn": 144,
    "student, resnet10 bn, stack": 268,
    "student, resnet10 bn, float32": 128,
    "student, resnet10 bn, float32, stack": 252,
    "student, alexnet bn, float32": 67,
    "student, alexnet bn, float32, stack": 153,
    "student, alexnet bn, DropPath": 505,
    "student, alexnet bn, DropPath, stack": 807,
    "student, resnet10 bn, DropPath": 592,
    "student, resnet10 bn, DropPath, stack": 875,
    "student, convnet3, in batches": 76,
    "student, convnet3, in batches, stack": 131,
    "student, convnet3, DSA": 193,
    "student, convnet3, DSA, stack": 376,
    "student, convnet3, DC's augmentation": 693,
    "student, convnet3, DC's augmentation, stack": 1365,
    "student, convnet3, average": 76,
    "student, convnet3, average, stack": 127,
    "student, convnet3, teacher": 99,
    "student, convnet3, teacher, stack": 169,
    "student, convnet3, stream": 300,
    "student, convnet3, stream, stack": 359,
    "student, convnet3, real stream": 84,
    "student, convnet3, real stream, stack": 147,
    "matching, images": 1190,
    "matching, images, bn": 1000,
    "matching, images, DSA": 1401,
    "matching, images, embedding": 246,
    "matching, network": 172,
    "matching, network, DSA": 299,
    "matching, statistics": 224,
    "test pass": 77,
    "sampling, dim, set": 179,
    "sampling, residual, stream": 188,
}
# What no graph can replay: copies between CPU and card, and reads for which the host waits, at most. To be brought
# down, never up.
COPIES = {
    "refine, gradient, living": 1,  # how many images each class has, whose gradients are taken one by one
    "refine, gradient, ages": 1,
    "refine, skd, optimal pairs": 3,  # scipy finds the pairs
    "test pass": 1,  # its result
    "sampling, dim, set": 1,  # its images
}
READS = {
    "refine, gradient, living": 1,
    "refine, gradient, ages": 1,
    "refine, skd, optimal pairs": 2,
    "lesson, up to an accuracy": 1,  # which decides whether there is a step
    "test pass": 1,
    "sampling, dim, set": 1,
}


# Of layers that shorter ones have too.
LONG = {"student, resnet18, stack", "student, resnet34", "student, resnet50", "student, vgg11, stack"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in STEPS]
)
def test_a_step_stays_on_the_card(name: str) -> None:
    found = measured(name)
    assert 0 < found["operations"] <= 1.1 * OPERATIONS[name]
    assert found["copies"] <= COPIES.get(name, 0)
    assert found["reads"] <= READS.get(name, 0)


def test_limits_are_of_steps() -> None:
    assert {*OPERATIONS} == {*STEPS}
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
    """Adam counts its steps on the card, a checkpoint is on the CPU."""
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
        assert {(count.device.type, count.dtype) for count in counts} == {("cuda", torch.float32)}
        assert all(group["fused"] and group["capturable"] for group in gan.opt_d.param_groups)
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
        assert summary.speed(Config(), CUDA)[:3] == (0.15 * 2 * 8192**3, 0.4 * 2 * 8192**3, 2)


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
