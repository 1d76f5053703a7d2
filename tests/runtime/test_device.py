"""What a process is told of precision, determinism and the launcher that started it."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend

from gdd.config import ConfigError, RunConfig
from gdd.runtime import device, execution
from gdd.runtime.device import make_accelerator
from gdd.sampling import generator_file, set_file


@pytest.fixture
def fresh():
    """Let the next Accelerator choose anew; accelerate keeps one choice per process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def arithmetic():
    yield
    make_accelerator(RunConfig())


class TestPrecision:
    @pytest.mark.parametrize(("there", "said"), [(False, 1), (True, 0)])
    def test_bfloat16_that_is_emulated_is_used_with_a_warning(self, fresh, monkeypatch, caplog, there, said):
        monkeypatch.setattr(execution, "has_bfloat16", lambda device: there)
        make_accelerator(RunConfig(precision="bfloat16"))
        assert len([record for record in caplog.records if "emulates" in record.getMessage()]) == said

    @pytest.mark.parametrize(("tf32", "expected"), [(True, "tf32"), (False, "ieee")])
    def test_tf32_decides_products_and_convolutions(self, arithmetic, tf32, expected):
        make_accelerator(RunConfig(tf32=tf32))
        assert torch.backends.cuda.matmul.fp32_precision == expected
        assert torch.backends.cudnn.conv.fp32_precision == expected


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_a_device_that_gdd_does_not_know_is_refused_in_one_sentence(kind, monkeypatch, refused, tiny):
    found = SimpleNamespace(device=torch.device(kind), num_processes=1)
    monkeypatch.setattr(device, "Accelerator", lambda **_: found)
    refused("train-gan", *tiny, naming=f"works on CPUs and CUDA devices, not on {kind}; set ACCELERATE_USE_CPU=true")


class TestEnvironment:
    """A config of accelerate speaks through the environment, of which no run's folder tells."""

    def test_it_changes_neither_gradients_nor_networks(self, fresh, monkeypatch):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "eager")
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        accelerator = make_accelerator(RunConfig())
        network = accelerator.prepare(torch.nn.Linear(2, 1))
        assert type(network) is torch.nn.Linear
        images = torch.tensor([[1.0, 2.0**-12 + 1]])  # which bfloat16 would round
        accelerator.backward(network(images).sum())
        assert torch.equal(network.weight.grad, images)
        assert accelerator.gradient_accumulation_steps == 1
        assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO

    @pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"])
    def test_sharding_is_refused(self, name, fresh, monkeypatch):
        monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
        with pytest.raises(ConfigError, match=f"ACCELERATE_USE_{name} is true"):
            make_accelerator(RunConfig())


class TestDeterminism:
    def test_it_is_torchs_own_mode(self, arithmetic, monkeypatch):
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        make_accelerator(RunConfig(deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        assert device.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        make_accelerator(RunConfig())
        assert not torch.are_deterministic_algorithms_enabled()

    def test_on_a_cpu_it_changes_no_bit(self, arithmetic, done, tiny, tmp_path):
        hashes = []
        matching = ["--method", "matching", "--matching.iterations", "2", "--matching.pool.main", "convnet3-w4"]
        for wanted in ("false", "true"):
            root = tmp_path / wanted
            flags = [*tiny, "--run.root", root, "--run.deterministic", wanted, "--score", "false"]
            done("distill", *flags, "--refine.augment", "color_crop_cutout_scale_rotate")
            done("distill", *flags, *matching, "--matching.augment", "dsa")
            synthetic = set_file.load(root / "digits/matching" / set_file.FILE)
            hashes.append((generator_file.load(root / "digits/refine").hash, synthetic.hash))
        assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set"),
            "run.deterministic is True, but grid_sampler_2d_backward_cuda",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "there is not enough memory"),
        (MemoryError("8 GiB"), "there is not enough memory"),
        (RuntimeError("sizes do not match"), None),
    ],
)
def test_what_the_machine_cannot_do_ends_in_a_sentence_and_our_own_mistakes_are_not_hidden(
    error, sentence, refused, gdd, tiny, monkeypatch
):
    monkeypatch.setattr("gdd.pipeline.train_gan", Mock(side_effect=error))
    if sentence:
        refused("train-gan", *tiny, naming=sentence)
    else:
        with pytest.raises(RuntimeError, match="sizes do not match"):
            gdd("train-gan", *tiny)


class TestLauncher:
    def test_one_process_for_several_is_refused(self, fresh, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv("MASTER_PORT", "29500")
        with pytest.raises(ConfigError, match="asked for several processes but started one; on CPUs use"):
            make_accelerator(RunConfig())

    def test_a_port_in_the_environment_alone_is_none_of_our_business(self, fresh, monkeypatch):
        monkeypatch.setenv("MASTER_PORT", "29500")
        assert make_accelerator(RunConfig()).num_processes == 1

    def test_the_name_of_a_cpu_tells_its_threads_of_now(self):
        names = []
        for threads in (1, 2, 1):
            make_accelerator(RunConfig(threads=threads))
            names.append(device.device_name(torch.device("cpu")))
        assert names[0].endswith(", 1 thread)")
        assert names[1].endswith(", 2 threads)")
        assert names[2] == names[0]
