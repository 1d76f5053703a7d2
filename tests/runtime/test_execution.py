"""How networks are executed: what is decided, what each way computes, and that a run keeps to it."""

import functools
import json
import logging
from unittest.mock import Mock

import pytest
import torch
from commands import ALONE, MATCHING
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from gdd.evaluation import grid
from gdd.models import registry
from gdd.models.gan import DimDiscriminator, DimGenerator
from gdd.runtime import checkpoint, execution
from gdd.runtime.execution import EAGER, Execution, decide, resolve
from gdd.sampling import generator_file, set_file

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
has_bfloat16 = execution.has_bfloat16  # the tests' own stands in for it later
WITHOUT_LAYOUT = "convnet3-w8-d2"  # instance norm: eager execution keeps it channels-first


def network_of(arch: str) -> nn.Module:
    torch.manual_seed(0)
    return registry.build(arch, SHAPE, 5)


def images_of(count: int = 6) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


class TestDecision:
    @pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", None])
    def test_a_cpu_has_bfloat16_if_it_has_instructions_for_it(self, flag, monkeypatch):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True} | ({flag: True} if flag else {}))
        assert has_bfloat16(CPU) == (flag is not None)

    @pytest.mark.parametrize("there", [True, False])
    def test_emulation_on_a_gpu_does_not_count(self, there, monkeypatch):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or there
        )
        assert has_bfloat16(torch.device("cuda")) == there

    @pytest.mark.parametrize(("there", "chosen"), [(True, "bfloat16"), (False, "float32")])
    def test_auto_takes_bfloat16_where_it_is_there_and_the_others_are_what_they_say(self, there, chosen, monkeypatch):
        monkeypatch.setattr(execution, "has_bfloat16", lambda device: there)
        assert [resolve(setting, CPU) for setting in ("auto", "float32", "bfloat16")] == [chosen, "float32", "bfloat16"]

    def test_auto_compiles_long_work_of_networks_that_gain_by_it(self, monkeypatch):
        monkeypatch.setattr(execution, "can_compile", lambda device: True)
        convnet, resnet = network_of(WITHOUT_LAYOUT), network_of("resnet18-bn-w4")
        # 3 layers in 3 graphs of 1.2 s; two fifths of work at 5e10 FLOP a second.
        enough = 3 * 3 * 1.2 / 0.4 * 5e10
        for setting, network, flop, compiled in [
            ("auto", convnet, 1.01 * enough, True),
            ("auto", convnet, 0.99 * enough, False),
            ("auto", resnet, 1e20, False),
            ("on", resnet, 0, True),
            ("off", convnet, 1e20, False),
        ]:
            assert decide("float32", setting, CPU, [network], flop) == Execution("float32", compiled)

    def test_without_a_compiler_networks_are_eager_and_it_is_said_once(self, monkeypatch, caplog):
        execution.can_compile.cache_clear()
        monkeypatch.setattr(torch, "compile", Mock(side_effect=RuntimeError("no g++")))
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert decide("float32", "on", CPU, [network_of("mlp-w8")], 0) == EAGER
        execution.can_compile.cache_clear()
        (record,) = caplog.records
        assert "not compiled, since torch.compile does not work here (no g++)" in record.getMessage()


@pytest.mark.parametrize("refused", ["conv2d", "matmul", "bmm", "gradients"])
def test_a_compiler_that_refuses_what_networks_are_made_of_is_not_used(refused, monkeypatch, caplog):
    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        if any(refused in str(node.target) for node in graph.graph.nodes):
            raise RuntimeError(f"no {refused}")
        return graph

    def no_gradients(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        raise RuntimeError("no gradients")

    apart = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph), bw_compiler=no_gradients)
    backend = apart if refused == "gradients" else compiler
    execution.can_compile.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with caplog.at_level(logging.WARNING):
        assert not execution.can_compile(CPU)
    execution.can_compile.cache_clear()
    assert f"no {refused}" in caplog.text


@pytest.mark.parametrize(
    ("arch", "precision", "compiled"),
    [
        ("convnet3-w8-d2-swish", "bfloat16", False),
        ("convnet3-w8-d2-ln-swish", "float32", True),
        pytest.param(
            *("convnet3-w8-d2-ln-swish", "bfloat16", True),
            marks=pytest.mark.skipif(not has_bfloat16(CPU), reason="emulated, it takes long"),
        ),
        ("resnet10-bn-w8-swish", "float32", False),
        ("resnet10-bn-w8-swish", "bfloat16", False),
    ],
)
def test_answer_and_gradients_are_the_networks_own_in_float32(arch, precision, compiled):
    """bfloat16 keeps 8 bits, which a few layers blur to some percent; otherwise single precision."""
    chosen, images = Execution(precision, compiled), images_of(32)
    plain, placed = network_of(arch), chosen.place(network_of(arch))
    expected, answer = plain(images), chosen(placed, images)
    assert answer.dtype == torch.float32
    for one in (expected, answer):
        one.square().sum().backward()
    accuracy = 1e-5 if precision == "float32" else 0.05
    # Joined, since the true gradient of a bias before a norm is 0 and that of some is small.
    got, wanted = (torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (placed, plain))
    assert {p.grad.dtype for p in placed.parameters()} == {torch.float32}
    for one, other in ((answer, expected), (got, wanted)):
        assert (one - other).norm() <= accuracy * other.norm()
    if precision == "bfloat16":
        assert not torch.equal(answer, expected)


@pytest.mark.parametrize("chosen", [EAGER, Execution("bfloat16"), Execution("float32", True)], ids=lambda one: one.name)
def test_generator_and_discriminator_answer_alike(chosen):
    torch.manual_seed(0)
    generator, discriminator = DimGenerator((1, 12, 12), 4, 8, 6), DimDiscriminator((1, 12, 12), 4, 8)
    labels = torch.tensor([0, 1, 2, 3])
    noise = torch.randn(4, 6)
    generator.eval()
    images = generator(noise, labels)
    score, classes = discriminator(images)
    chosen.place(generator), chosen.place(discriminator)
    got = chosen(generator, noise, labels)
    got_score, got_classes = chosen(discriminator, images)
    accuracy = 0.05 if chosen.precision == "bfloat16" else 1e-5
    for a, b in ((got, images), (got_score, score), (got_classes, classes)):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=accuracy, atol=accuracy)


def test_networks_of_one_architecture_share_a_graph_and_odd_batches_make_none():
    chosen = Execution("float32", True)
    torch._dynamo.utils.counters.clear()
    for seed in range(3):
        torch.manual_seed(seed)
        network = chosen.place(registry.build("convnet3-w4-d1", SHAPE, 5))
        expected = network(images_of())
        torch.testing.assert_close(chosen(network, images_of()), expected)
        chosen(network, images_of(5), compiled=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_maps_lie_channels_last_unless_a_norm_over_maps_is_computed_eagerly():
    def is_channels_last(network: nn.Module) -> bool:
        weights = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)

    assert is_channels_last(EAGER.place(network_of("resnet10-bn-w4")))
    for norm in ("in", "gn", "ln"):
        name = f"convnet3-w8-d2-{norm}"
        assert not is_channels_last(EAGER.place(network_of(name)))
        assert is_channels_last(Execution("float32", True).place(network_of(name)))


class TestRuns:
    def stored(self, done, tiny, root, *flags) -> list[str]:
        done("distill", *tiny, "--run.root", root, *ALONE, *flags)
        done("distill", *tiny, "--run.root", root, *ALONE, *MATCHING, *flags)
        hashes = [generator_file.load(root / "digits" / stage).hash for stage in ("pretrain", "refine")]
        return [*hashes, set_file.load(root / "digits/matching" / set_file.FILE).hash]

    @pytest.mark.slow
    def test_the_same_run_twice_and_one_that_was_interrupted_have_the_same_bits(self, done, tiny, tmp_path):
        # Of few networks, which take a minute to compile.
        small = ["--pretrain.steps", 2, "--refine.steps", 2, "--refine.pool.members", "[convnet3-w4]"]
        small += ["--matching.iterations", 2]
        # A CPU that emulates bfloat16 takes four minutes.
        precision = "bfloat16" if has_bfloat16(CPU) else "float32"
        flags = ["--run.precision", precision, "--run.compile", "on", *small]
        first = self.stored(done, tiny, tmp_path / "first", *flags)
        # Every command stops after a step or two, and is given again until it is done.
        for method in ((), MATCHING):
            while "stopped after" in done(
                "distill", *tiny, "--run.root", tmp_path / "again", *ALONE, *method, *flags, "--run.max_minutes", "1e-5"
            ):
                pass
        assert self.stored(done, tiny, tmp_path / "again", *flags) == first
        assert self.stored(done, tiny, tmp_path / "float32", *small) != first

    def test_weights_and_sums_stay_float32(self, done, tiny, tmp_path):
        done("distill", *tiny, *ALONE, "--run.precision", "bfloat16", "--gan.loss", "wgan-gp")
        path = checkpoint.newest(tmp_path / "runs/digits/refine")
        state = torch.load(path, weights_only=True)["states"]
        assert state["clock"]["execution"] == ["bfloat16", "bfloat16"]
        kinds = {
            value.dtype
            for part in state.values()
            for _, value in checkpoint._tensors(part)
            if value.is_floating_point()
        }
        assert kinds == {torch.float32}

    def test_the_penalty_is_taken_in_float32(self, done, tiny, monkeypatch):
        kinds = set()
        penalty = execution.torch.autograd.grad

        def spy(outputs, inputs, **more):
            kinds.add((outputs.dtype, inputs.dtype, torch.is_autocast_enabled("cpu")))
            return penalty(outputs, inputs, **more)

        monkeypatch.setattr(torch.autograd, "grad", spy)
        done("train-gan", *tiny, "--gan.r1", "0.2", "--run.precision", "bfloat16")
        assert kinds == {(torch.float32, torch.float32, False)}

    def test_a_run_goes_on_only_as_it_began(self, done, refused, tiny, monkeypatch):
        auto = ["--run.precision", "auto"]
        done("train-gan", *tiny, *auto, "--run.max_minutes", "0.00001")
        monkeypatch.setattr(execution, "has_bfloat16", lambda device: True)
        refused("train-gan", *tiny, *auto, naming="execution was float32 and is now bfloat16; go on as it began")

    def test_rows_say_it_and_those_of_another_precision_are_not_taken_for_them(self, done, tiny, tmp_path, monkeypatch):
        # What a compiler makes of a network is tested above.
        monkeypatch.setattr(execution, "can_compile", lambda device: True)
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        done("train-gan", *tiny)
        for precision, compiled in (("float32", "on"), ("bfloat16", "off")):
            more = ["--evaluate.archs", "[convnet3-w4]", "--run.precision", precision, "--run.compile", compiled]
            done("evaluate", *tiny, *more)
        rows = grid.read_rows(tmp_path / "runs/digits/evaluate")
        kinds = [(row.precision, row.compiled) for row in rows]
        assert len(kinds) % 2 == 0
        assert kinds.count(("float32", True)) == kinds.count(("bfloat16", False)) == len(kinds) // 2
        assert len({row.recipe_hash for row in rows}) == 1

    def test_a_row_of_an_earlier_version_is_float32(self, done, tiny, tmp_path):
        done("train-gan", *tiny)
        done("evaluate", *tiny)
        path = tmp_path / "runs/digits/evaluate" / grid.ROWS
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            del line["precision"], line["compiled"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert {(row.precision, row.compiled) for row in grid.read_rows(path.parent)} == {("float32", False)}
