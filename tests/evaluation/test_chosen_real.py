"""Real images that a teacher chooses or labels: which they are, and what their rows say."""

from pathlib import Path

import pytest
import torch
from generators import save_teacher
from scoring import Evaluate
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.readers import Dataset
from gdd.data.splits import Split, random_real
from gdd.evaluation.images import RealImages, StudentImages, images_key
from gdd.evaluation.recipe import Job
from gdd.evaluation.sources import of_real, read
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble

LEVELS = torch.tensor([0, 10, 4, 7], dtype=torch.uint8)


class ByLevel(Ensemble):
    """An ensemble whose one feature is the images' level."""

    def features(self, images_u8: Tensor) -> Tensor:
        return images_u8[:, 0, 0, :1].float()


def test_herded_images_are_the_greedy_ones_whose_mean_is_the_classs(dataset: Dataset) -> None:
    """By hand: the mean is 5.25, next to 4; then 7, for 5.5 is nearer to it than 2 and 7; then 0, for 3.67 than 7."""
    images = LEVELS.repeat(10)[:, None, None, None].expand(-1, *dataset.spec.shape).contiguous()
    train = Split(images, torch.arange(40) // 4)
    drawn = StudentImages(RealImages(train, train, lambda: train), dataset.spec, torch.device("cpu"), 1.0, 2)
    herded = of_real("real:herded", "herded", ByLevel([], dataset.spec, []))
    for seed in (0, 1):  # that of the order, in which nothing changes
        stored = drawn.stored_set(herded, 3, seed)
        assert stored.images[:, 0, 0, 0].tolist() == 10 * [4, 7, 0]
        assert stored.labels.tolist() == [label for label in range(10) for _ in range(3)]


def test_herding_needs_no_seed_and_crops_do(dataset: Dataset) -> None:
    herded, crops = (Job(of_real(kind, kind), 2, "fixed", "mlp", 1) for kind in ("real:herded", "real:crops"))
    assert (images_key(herded).seed, images_key(crops).seed) == (0, 1)


def test_soft_labels_are_the_teachers_answers_to_the_floors_images(dataset: Dataset, tmp_path: Path) -> None:
    ensemble = ensemble_file.load(save_teacher(tmp_path / "teacher", dataset.spec))
    drawn = StudentImages(RealImages(dataset.train, dataset.val, dataset.test), dataset.spec, torch.device("cpu"), 1, 2)
    stored = drawn.stored_set(of_real("real:random", "floor", ensemble, soft_labels=True), 3, 5)
    assert torch.equal(stored.images, random_real(dataset.train, 10, 3, 5).images_u8)
    assert stored.soft_labels is not None
    torch.testing.assert_close(stored.soft_labels.float(), ensemble.logits(stored.images), rtol=1e-2, atol=1e-2)
    assert stored.bytes == 30 * (256 + 1 + 2 * 10)


def test_they_are_sources_by_name(evaluate: Evaluate, dataset: Dataset, tmp_path: Path) -> None:
    """The students imitate the teacher, as those of all other sources do."""
    teacher = str(save_teacher(tmp_path / "teacher", dataset.spec))
    rows = evaluate("real:herded", "real:crops", teacher=teacher, ipc=(2,))
    assert [row.kind for row in rows] == ["real:random", "real:herded", "real:crops", "real:all"]
    assert len({row.set_hash for row in rows}) == len({(row.kind, row.source_hash) for row in rows}) == 4
    assert {row.label_kind.partition(" mlp")[0] for row in rows} == {"hard + kept teacher"}
    assert [row.generator_seconds for row in rows] == [None, 2.0, 2.0, None]
    save_teacher(tmp_path / "other", dataset.spec, seed=1)
    others = evaluate("real:herded", teacher=str(tmp_path / "other"), ipc=(2,), folder="again")
    assert others[1].source_hash != rows[1].source_hash


def test_without_a_teacher_that_is_there_they_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    for text in ("real:herded", "real:crops"):
        for teacher in ("none", "set", "real"):
            sentence = f"evaluate.teacher is {teacher}, expected an ensemble of .*, which chooses the images of {text}"
            with pytest.raises(ConfigError, match=sentence):
                read(text, teacher=teacher)


def test_too_many_crops_are_refused_before_anything_is_drawn(
    evaluate: Evaluate, dataset: Dataset, tmp_path: Path
) -> None:
    teacher = str(save_teacher(tmp_path / "teacher", dataset.spec))
    with pytest.raises(ConfigError, match="130 images per class are asked for, but class"):
        evaluate("real:crops", teacher=teacher, ipc=(130,))
