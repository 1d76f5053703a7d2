import pytest
import torch
from matching import CLASSES, PER_CLASS, SPEC, network_of, toy

from gdd.data.readers import Dataset
from gdd.training.matching import group_loss


@pytest.fixture(scope="module")
def easy() -> Dataset:
    """A bright band at another height for each class, and a little noise."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(40, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    for label in range(CLASSES):
        images[labels == label, :, 5 * label : 5 * label + 5] += 200
    return toy(images, labels)


class TestLearning:
    @pytest.mark.parametrize(
        "own",
        [
            {"lr_image": 2.0},
            {"lr_image": 2.0, "distance": "cos"},
            {"distance": "mse"},
            {"lr_image": 2.0, "augment": "dsa"},
            {"objective": "embedding"},
        ],
        ids=str,
    )
    def test_the_loss_falls_on_networks_that_took_no_part(self, own, make, easy):
        matcher = make(easy, ipc=1, outer=1, batch_real=PER_CLASS, **own)
        networks = [network_of("convnet3-w4", seed) for seed in range(6)]
        real = [matcher.real.draw(label, PER_CLASS, "any") for label in range(CLASSES)]

        def loss() -> float:
            images = matcher.synthetic.images_std
            return sum(group_loss(each, images, real, range(CLASSES), matcher.settings).item() for each in networks)

        before = loss()
        for iteration in range(30):
            assert matcher.iterate(iteration).isfinite()
        assert loss() < 0.9 * before

    @pytest.mark.parametrize("own", [{}, {"objective": "embedding"}], ids=str)
    def test_a_small_step_on_one_network_lowers_its_loss(self, own, make, easy):
        matcher = make(easy, ipc=1, batch_real=PER_CLASS, outer=1, lr_image=1e-3, **own)
        network = network_of("convnet3-w4-sigmoid")

        def loss() -> float:
            real = [matcher.real.draw(label, PER_CLASS, "any") for label in range(CLASSES)]
            return group_loss(network, matcher.synthetic.images_std, real, range(CLASSES), matcher.settings).item()

        matcher.pool.draw = lambda _: (0, network)  # the same one for ever
        losses = [loss()]
        for iteration in range(5):
            matcher.iterate(iteration)
            losses.append(loss())
        assert losses == sorted(losses, reverse=True)

    def test_the_picture_has_a_row_per_class_clipped_for_showing(self, make):
        matcher = make(ipc=3)
        picture = matcher.grid()
        # make_grid repeats grey to three channels and pads every image by 2.
        assert picture.shape == (3, CLASSES * 18 + 2, 3 * 18 + 2)
        assert picture.min() == 0
        assert picture.max() == 1
        shown = picture[0, 20:36, 38:54]
        expected = (matcher.synthetic.images_std[1, 2, 0] * SPEC.std[0] + SPEC.mean[0]).clamp(0, 1)
        torch.testing.assert_close(shown, expected.detach())
