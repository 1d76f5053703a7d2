import pytest
import torch
import torch.nn.functional as F
from matching import CLASSES, network_of
from pools import same
from torch import Tensor, nn

from gdd.training import matching


class TestFrozenStatistics:
    @staticmethod
    def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
        return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def statistics(self, network: nn.Module) -> dict[str, Tensor]:
        return {
            f"{number} {name}": value.clone()
            for number, norm in enumerate(self.norms(network))
            for name, value in norm.named_buffers()
        }

    def test_they_are_those_of_one_real_batch_of_all_classes(self, make, monkeypatch):
        matcher = make(pool={"main": "convnet3-w4-bn"})
        drawn: list[Tensor] = []
        draw = matcher.real.draw
        monkeypatch.setattr(matcher.real, "draw", lambda *what: drawn.append(draw(*what)) or drawn[-1])
        network = network_of("convnet3-w4-bn")
        matching.freeze_statistics(network, matcher.real, 0, 0)
        earlier, drawn[:] = drawn[:], []
        matching.freeze_statistics(network, matcher.real, 0, 1)
        # Of the latest batch alone, which is another one.
        assert [len(part) for part in drawn] == [16] * CLASSES
        assert not any(torch.equal(old, new) for old, new in zip(earlier, drawn, strict=True))
        assert not any(module.training for module in network.modules())
        batch = torch.cat(drawn)
        for label, part in enumerate(drawn):
            real = matcher.real.images_u8[matcher.real.members[label]]
            found = (part[:, None] == matcher.normalize.from_u8(real)[None]).flatten(2).all(2)
            assert found.sum(1).tolist() == [1] * 16
        # The first layer by hand; torch keeps the unbiased variance.
        first = network.features[0]
        maps = F.conv2d(batch.double(), first.weight.double(), first.bias.double(), padding=1)
        values = maps.transpose(0, 1).flatten(1)  # (channels, everything else)
        mean = values.sum(1) / values.shape[1]
        variance = (values - mean[:, None]).square().sum(1) / (values.shape[1] - 1)
        norm = self.norms(network)[0]
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)
        # And every layer by what it does: that batch leaves each of them with mean 0 and variance 1, but for the
        # unbiased variance, which is larger by a 768th in the last of them.
        outputs = []
        for norm in self.norms(network):
            norm.register_forward_hook(lambda _, __, output: outputs.append(output.transpose(0, 1).flatten(1)))
        network(batch)
        assert len(outputs) == 3
        for output in outputs:
            assert output.mean(1).abs().max() < 1e-3
            assert (output.var(1) - 1).abs().max() < 2e-3

    def test_they_change_neither_in_training_nor_in_matching(self, make, monkeypatch):
        frozen: list[dict[str, Tensor]] = []
        checked: list[str] = []
        freeze, fit, loss = matching.freeze_statistics, matching.fit, matching.group_loss

        def spy_freeze(network, *arguments):
            freeze(network, *arguments)
            frozen.append(self.statistics(network))

        def frozen_still(network, what):
            assert not any(module.training for module in network.modules())
            assert same(self.statistics(network), frozen[-1])
            checked.append(what)

        def spy_fit(network, *arguments, **options):
            network.features[0].register_forward_hook(lambda *_: frozen_still(network, "step"))
            result = fit(network, *arguments, **options)
            frozen_still(network, "fit")
            return result

        def spy_loss(network, *arguments):
            result = loss(network, *arguments)
            frozen_still(network, "loss")
            return result

        monkeypatch.setattr(matching, "freeze_statistics", spy_freeze)
        monkeypatch.setattr(matching, "fit", spy_fit)
        monkeypatch.setattr(matching, "group_loss", spy_loss)
        matcher = make(pool={"main": "convnet3-w4-bn"}, outer=2, inner=2, batch_train=3, lr_network=0.1)
        # The hook would also see the measuring forward pass of the second turn, which is in train mode.
        monkeypatch.setattr(
            matching,
            "freeze_statistics",
            lambda network, *rest: network.features[0]._forward_hooks.clear() or spy_freeze(network, *rest),
        )
        matcher.iterate(0)
        # One after every forward pass of training, its end, and every group of classes.
        groups = checked.index("step")
        assert checked == ["loss"] * groups + ["step"] * 4 + ["fit"] + ["loss"] * groups
        assert 1 <= groups <= CLASSES
        # Measured anew for the network that has learnt.
        assert len(frozen) == 2
        assert not same(*frozen)

    def test_networks_without_batch_norm_see_no_batch_for_it(self, make, monkeypatch):
        matcher = make()
        monkeypatch.setattr(matcher.real, "draw", lambda *_: pytest.fail("a batch was drawn"))
        network = network_of("convnet3-w4").train()
        matching.freeze_statistics(network, matcher.real, 0)
        assert not network.training
