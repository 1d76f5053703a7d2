import pytest
import torch
from torch import nn
from toy import same, state

from gdd.rng import generator, seeded
from gdd.training.classifier import fit
from gdd.training.optimizers import adamw, lion, sgd

CLASSES = 4


def corners(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around four corners that are far apart."""
    draw = generator(0, "toy", step)
    labels = torch.randint(CLASSES, (32,), generator=draw)
    centres = torch.tensor([[3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [-3.0, -3.0]])
    return (centres[labels] + 0.3 * torch.randn(32, 2, generator=draw)).view(32, 2, 1, 1), labels


def network(seed: int = 0) -> nn.Module:
    with seeded(seed, "test"):
        return nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, CLASSES))


def single_weight() -> tuple[nn.Linear, torch.optim.Optimizer]:
    """w x with w = 1, where plain gradient descent can be followed by hand."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    net.weight.grad = torch.full_like(net.weight, 100.0)  # must not be added to
    return net, torch.optim.SGD(net.parameters(), lr=0.5)


def ones(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(3, 1), torch.zeros(3, dtype=torch.long)


def mean_output(logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return logits.mean()


def test_a_separable_problem_is_learnt_completely():
    net = network()
    before = (net.eval()(corners(999)[0]).argmax(1) == corners(999)[1]).float().mean()
    loss = fit(net, corners, range(60), sgd(net, 0.05))
    net.eval()
    assert before < 0.9
    for step in range(1000, 1010):
        images, labels = corners(step)
        assert torch.equal(net(images).argmax(1), labels)
    assert loss < 0.05
    assert not loss.requires_grad


@pytest.mark.parametrize("steps", [range(0), range(3, 3), range(5, 2)])
def test_no_step_at_all_is_an_error(steps):
    net = network()
    with pytest.raises(ValueError, match="no step at all"):
        fit(net, corners, steps, sgd(net, 0.1))


def test_the_optimiser_is_the_fields():
    (group,) = sgd(network(), 0.03).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 5e-4)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_ten_steps_equal_k_steps_and_the_rest(k):
    whole = network()
    fit(whole, corners, range(10), sgd(whole, 0.05), lr=lambda step: 0.1 / (1 + step))

    first = network()
    optimizer = sgd(first, 0.05)
    fit(first, corners, range(k), optimizer, lr=lambda step: 0.1 / (1 + step))
    second = network(seed=1)
    second.load_state_dict(state(first))
    resumed = sgd(second, 0.7)
    resumed.load_state_dict(optimizer.state_dict())
    fit(second, corners, range(k, 10), resumed, lr=lambda step: 0.1 / (1 + step))
    assert same(state(second), state(whole))


def test_the_learning_rate_is_that_of_the_step():
    # The gradient of the mean of w x is 1 at x = 1, so w falls by the sum of the rates.
    net, optimizer = single_weight()
    rates = {5: 0.25, 6: 0.5, 7: 0.125}
    last = fit(net, ones, range(5, 8), optimizer, rates.__getitem__, loss=mean_output)
    assert net.weight.item() == 1 - sum(rates.values())
    # The loss is that of the last batch before its step.
    assert last.item() == 1 - 0.75


def test_the_loss_sees_logits_labels_and_images():
    def loss(logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        wanted_images, wanted_labels = corners(2)
        assert torch.equal(images, wanted_images)
        assert torch.equal(labels, wanted_labels)
        assert logits.shape == (32, CLASSES)
        return 0 * logits.sum() + 7

    net = network()
    assert fit(net, corners, range(2, 3), sgd(net, 0.1), loss=loss).item() == 7


def every_label_once(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One image under each label: whatever a network answers, a quarter of the batch is right."""
    return torch.ones(CLASSES, 2, 1, 1), torch.arange(CLASSES)


@pytest.mark.parametrize(("limit", "learns"), [(0.25, False), (0.1, False), (0.26, True), (1.0, True)])
def test_a_batch_that_is_right_often_enough_is_not_learnt_from(limit, learns):
    with seeded(0, "test"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(2, CLASSES))
    before = state(net)
    fit(net, every_label_once, range(5), sgd(net, 0.1), max_accuracy=limit)
    assert same(state(net), before) is not learns


def test_lion_takes_its_papers_steps():
    """w goes to w (1 - lr decay) - lr sign(.95 m + .05 g), m to .98 m + .02 g."""
    network = nn.Linear(3, 1, bias=False).double()
    optimizer, random = lion(network, 0.1, 0.5), torch.Generator().manual_seed(0)
    weight, momentum = network.weight.detach().clone(), torch.zeros(1, 3, dtype=torch.float64)
    for _ in range(5):
        gradient = torch.randn(1, 3, generator=random, dtype=torch.float64)
        network.weight.grad = gradient.clone()
        optimizer.step()
        weight = weight * (1 - 0.1 * 0.5) - 0.1 * (0.95 * momentum + 0.05 * gradient).sign()
        momentum = 0.98 * momentum + 0.02 * gradient
        torch.testing.assert_close(network.weight.detach(), weight)


def test_adamw_takes_its_papers_steps():
    """w goes to w (1 - lr decay) - lr m' / (root v' + eps), m' and v' the means of g and g^2 without their bias."""
    network = nn.Linear(3, 1, bias=False).double()
    optimizer, random = adamw(network, 0.1, weight_decay=0.5), torch.Generator().manual_seed(0)
    weight, mean, square = network.weight.detach().clone(), torch.zeros(1, 3).double(), torch.zeros(1, 3).double()
    for step in range(1, 6):
        gradient = torch.randn(1, 3, generator=random, dtype=torch.float64)
        network.weight.grad = gradient.clone()
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        weight = weight * (1 - 0.1 * 0.5) - 0.1 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        torch.testing.assert_close(network.weight.detach(), weight)
