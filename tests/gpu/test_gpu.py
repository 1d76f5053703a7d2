"""On a CUDA device: everything runs there, and agrees with the CPU where it must."""

import json

import pytest
import torch
from commands import ALONE, MATCHING

from gdd import rng
from gdd.config import EvaluateConfig
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.evaluation import grid, student
from gdd.evaluation.batches import Fixed, StackedBatches, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.models import registry
from gdd.models.gan import DimGenerator
from gdd.runtime import checkpoint, graphs
from gdd.runtime.execution import EAGER, Execution
from gdd.sampling import generator_file, sample, set_file
from gdd.training.classifier import cross_entropy, fit
from gdd.training.matching_loss import gradient_loss
from gdd.training.optimizers import sgd
from gdd.training.together import Stacked, each_own

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_distill_runs_end_to_end_on_the_device(done, tiny):
    assert "refined generator" in done("distill", *tiny)


def test_both_stages_train_in_mixed_precision(done, tiny, tmp_path):
    done("distill", *tiny, *ALONE, "--run.precision", "bfloat16")
    folder = tmp_path / "runs/digits/refine"
    state = torch.load(checkpoint.path_at(folder, 4), weights_only=True)["states"]
    assert set(state["clock"]["execution"]) == {"bfloat16"}


def test_in_deterministic_mode_a_run_repeats_to_the_bit(done, tiny, tmp_path):
    hashes = set()
    for name in ("a", "b"):
        done("distill", *tiny, *ALONE, "--name", name, "--run.deterministic", "true")
        hashes.add(generator_file.load(tmp_path / "runs" / name / "refine").hash)
    assert len(hashes) == 1


def test_a_fixed_set_agrees_with_the_cpu_to_one_grey_level(tmp_path):
    spec = DatasetSpec("x", 3, 32, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3, True)
    with rng.seeded(0, "test"):
        generator = DimGenerator(spec.shape, spec.num_classes, 16, 20)
    loaded = generator_file.load(generator_file.save(tmp_path, generator, spec, {}))
    cpu = sample.sample_set(loaded, 20, 0, "cpu").images.int()
    gpu = sample.sample_set(loaded, 20, 0, "cuda").images.int()
    assert int((cpu - gpu).abs().max()) <= 1


@pytest.mark.parametrize("name", ["convnet3", "resnet18-bn", "vgg11", "alexnet", "mlp", "lenet"])
def test_published_sizes_train_on_the_device(name):
    network = registry.build(name, (3, 32, 32), 10).cuda()
    logits = network(torch.randn(64, 3, 32, 32, device="cuda"))
    logits.square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["main", "main+similar"])
def test_gradient_matching_runs_end_to_end_on_the_device(done, tiny, tmp_path, kind):
    done("distill", *tiny, *MATCHING, "--matching.pool.kind", kind)
    assert set_file.load(tmp_path / "runs/digits/matching" / set_file.FILE).ipc == 2


def test_the_matching_loss_agrees_with_the_cpu():
    with rng.seeded(0, "test"):
        network = registry.build("convnet3-w8", (3, 32, 32), 10).eval().double()
    draw = rng.generator(0, "images")
    synthetic, real = (torch.randn(2, 5, 3, 32, 32, generator=draw, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([3, 4])
    cpu = gradient_loss(network, synthetic, list(real), labels, "dc")
    gpu = gradient_loss(network.cuda(), synthetic.cuda(), list(real.cuda()), labels.cuda(), "dc")
    assert gpu.item() == pytest.approx(cpu.item(), rel=1e-9)


@pytest.mark.parametrize("arch", ["convnet3-w16", "convnet3-ln-w16", "resnet10-bn-w16", "mlp"])
def test_students_of_a_stack_train_as_alone_on_the_device(arch):
    draw = rng.generator(0, "images")
    images = torch.randn(3, 20, 3, 32, 32, generator=draw).cuda()
    labels = torch.randint(10, (3, 20), generator=draw).cuda()

    def networks():
        for seed in range(3):
            with rng.seeded(seed, "test"):
                yield EAGER.place(registry.build(arch, (3, 32, 32), 10).cuda())

    together, alone = list(networks()), list(networks())
    stacked = Stacked(together)
    got = fit(stacked, lambda step: (images, labels), range(5), sgd(stacked, 0.01), loss=each_own([cross_entropy] * 3))
    stacked.give_back()
    for i, network in enumerate(alone):
        wanted = fit(network, lambda step, i=i: (images[i], labels[i]), range(5), sgd(network, 0.01))
        assert got[i].item() == pytest.approx(wanted.item(), rel=1e-2)
        for one, other in zip(together[i].state_dict().values(), network.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_the_default_students_of_two_seeds_are_scored_at_once_in_bfloat16(done, tiny, tmp_path):
    archs = EvaluateConfig().archs
    done("distill", *tiny, "--evaluate.archs", json.dumps(archs), "--run.precision", "bfloat16")
    rows = grid.read_rows(tmp_path / "runs/digits/evaluate")
    assert {registry.parse(arch).name for arch in archs} == {row.arch for row in rows}
    assert {(row.together, row.precision, row.failure) for row in rows} == {(2, "bfloat16", None)}


@pytest.mark.parametrize(("first", "then"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_gan_is_refined_in_another_precision(done, tiny, tmp_path, first, then):
    """Fused Adam, of bfloat16, counts its steps on the device, the other one on the CPU."""
    done("train-gan", *tiny, "--name", "first", "--run.precision", first)
    pretrained = tmp_path / "runs/first/pretrain"
    done("distill", *tiny, *ALONE, "--refine.pretrained", pretrained, "--run.precision", then)


def replayed_and_eager(take, caplog):
    """Call `take` with steps replayed and with steps taken by Python; the first must not have been given up."""
    found = [take()]
    assert "not replayed" not in caplog.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "can_capture", lambda: False)
        found.append(take())
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stages_are_replayed_to_the_bit(done, tiny, tmp_path, precision, caplog):
    names = iter(("replayed", "eager"))

    def hashes():
        name = next(names)
        steps = "--pretrain.steps", "12", "--refine.steps", "12"
        how = "--run.deterministic", "true", "--run.precision", precision
        done("distill", *tiny, *ALONE, *steps, *how, "--name", name)
        return [generator_file.load(tmp_path / "runs" / name / stage).hash for stage in ("pretrain", "refine")]

    replayed, eager = replayed_and_eager(hashes, caplog)
    assert replayed == eager


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", [*registry.FAMILIES, "resnet18-bn", "vgg11-bn"])
def test_students_are_replayed_as_eager_ones(arch, precision, count, caplog):
    """To the bit where kernels add in a fixed order, which those of some gradients do not."""
    chosen, normalize = Execution(precision), Normalizer((0.5,) * 3, (0.25,) * 3, torch.device("cuda"))
    recipe = Recipe("test", lr=0.01, steps=8, batch_size=20, augment="flip_crop", pick="all")

    def states():
        networks, batches = [], []
        for seed in range(count):
            draw = rng.generator(seed, "images")
            images = torch.randint(256, (20, 3, 32, 32), generator=draw, dtype=torch.uint8).cuda()
            data = Fixed(images, (torch.arange(20) % 10).cuda(), normalize)
            batches.append(StudentBatches(data, recipe, seed, rng.STUDENT))
            with rng.seeded(seed, "test"):
                networks.append(chosen.place(registry.build(arch, (3, 32, 32), 10).cuda()))
        if count == 1:
            student.train(networks[0], batches[0], execution=chosen)
        else:
            stacked = Stacked(networks)
            student.train(stacked, StackedBatches(batches), each_own([cross_entropy] * count), chosen)
            stacked.give_back()
        return [value for network in networks for value in network.state_dict().values()]

    for one, other in zip(*replayed_and_eager(states, caplog), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_words_are_those_of_the_cpu_and_normal_numbers_too_but_for_rounding():
    for seed in (3, [3, 4]):
        cpu, gpu = (rng.Draws(seed, "noise", 5, device=device) for device in ("cpu", "cuda"))
        assert torch.equal(cpu.words(1001), gpu.words(1001).cpu())
        torch.testing.assert_close(cpu.normal(1000), gpu.normal(1000).cpu())
        assert torch.equal(cpu.permutation(1000), gpu.permutation(1000).cpu())
