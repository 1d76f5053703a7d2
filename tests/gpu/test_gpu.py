"""On a CUDA device: everything runs there, and agrees with the CPU where it must."""

import pytest
import torch

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.models import registry
from gdd.models.gan import Generator
from gdd.synth import artifact, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_distill_runs_end_to_end_on_the_device(gdd, tiny, tmp_path):
    code, out, error = gdd("distill", *tiny)
    assert code == 0, error
    assert "stage 2" in out


def test_a_fixed_set_agrees_with_the_cpu_to_one_grey_level(tmp_path):
    spec = DatasetSpec("x", 3, 32, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3, True)
    with rng.seeded(0, "test"):
        generator = Generator(spec.shape, spec.num_classes, 16, 20)
    loaded = artifact.load(artifact.save(tmp_path, generator, spec, 16, {}))
    cpu = sample.sample_set(loaded, 20, 0, "cpu").images.int()
    gpu = sample.sample_set(loaded, 20, 0, "cuda").images.int()
    assert int((cpu - gpu).abs().max()) <= 1


@pytest.mark.parametrize("name", ["convnet3", "resnet18-bn", "vgg11", "alexnet", "mlp", "lenet"])
def test_published_sizes_train_on_the_device(name):
    network = registry.build(name, (3, 32, 32), 10).cuda()
    logits = network(torch.randn(64, 3, 32, 32, device="cuda"))
    logits.square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
