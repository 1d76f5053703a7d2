"""What of a GanTrainer's turns is not in their equations, which test_pretrain and test_refine compare them with."""

import pytest
import torch
from toy import CLASSES, SPEC


@pytest.mark.parametrize("own", [{"loss": "wgan-gp"}, *({"loss": loss, "r1_every": 3} for loss in ("ns", "hinge"))])
def test_the_discriminators_turn_reports_losses_and_scores_and_the_penalty_when_due(make_gan, own):
    gan, labels = make_gan(**own), torch.arange(6) % CLASSES
    reports = [gan.update_discriminator(step, torch.zeros(6, *SPEC.shape), labels) for step in range(7)]
    always = {"loss/discriminator", "score/real", "score/fake"}
    due = [step for step, scalars in enumerate(reports) if scalars.keys() == {*always, "loss/penalty"}]
    assert due == [*range(0, 7, own.get("r1_every", 1))]
    assert all(always <= scalars.keys() for scalars in reports)
    assert all(s.shape == () and s.isfinite() and not s.requires_grad for each in reports for s in each.values())


def test_r1_of_0_is_not_computed(make_gan):
    real = torch.zeros(6, *SPEC.shape)
    assert "loss/penalty" not in make_gan(r1=0.0).update_discriminator(0, real, torch.arange(6) % CLASSES)
