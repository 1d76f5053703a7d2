"""What a matched set is called, which data may choose for it, and that a mended command runs."""

import pytest
from test_bad_input import _refused
from test_matching import ALONE, MATCHING

from gdd.sampling import set_file


def test_a_refused_start_does_not_claim_the_folder(gdd, tiny, tmp_path):
    flags = [*tiny, *MATCHING, *ALONE, "--matching.init", "real"]
    _refused(gdd("distill", *flags, "--matching.ipc", "500"), "matching.ipc is 500")
    assert gdd("distill", *flags)[0] == 0
    assert set_file.load(tmp_path / "runs/digits/matching" / set_file.FILE).ipc == 2


def test_an_ipc_without_a_floor_is_refused_before_matching(gdd, tiny, tmp_path):
    _refused(gdd("distill", *tiny, *MATCHING, "--matching.ipc", "200"), "200 images per class")
    assert not (tmp_path / "runs/digits/matching").exists()


def test_evaluate_names_the_set_as_it_was_made(gdd, tiny):
    assert gdd("distill", *tiny, *MATCHING, *ALONE, "--matching.distance", "cos")[0] == 0
    code, out, _ = gdd("evaluate", *tiny)
    assert code == 0
    assert "gradient matching, cos" in " ".join(out.split())


def test_nothing_is_selected_on_images_that_were_distilled(gdd, tiny, tmp_path):
    assert gdd("distill", *tiny, *MATCHING, *ALONE, "--seed", "1")[0] == 0
    source = f"[{tmp_path / 'runs/digits/matching'}]"
    choose = ["--evaluate.teacher", "set", "--evaluate.teacher_arch", "mlp-w4"]
    choose += ["--evaluate.select_temperature", "[1.0, 2.0]", "--evaluate.sources", source]
    _refused(gdd("evaluate", *tiny, *choose), "another validation part")
    assert gdd("evaluate", *tiny, *choose, "--seed", "1", "--run.overwrite", "true")[0] == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--matching.outer", "1.5"), "matching.outer: 1.5 is none of what was expected: int or null"),
        (("--method", "matching", "--matching.iterations", "3", "--run.snapshots", "[4]"), "run.snapshots"),
    ],
)
def test_a_setting_is_refused_in_plain_words(flags, expected, gdd, tiny):
    _refused(gdd("distill", *tiny, *flags), expected)


def test_a_folder_is_no_file_to_export_to(gdd, tiny, tmp_path):
    assert gdd("distill", *tiny, *MATCHING, *ALONE)[0] == 0
    made = tmp_path / "runs/digits/matching" / set_file.FILE
    _refused(gdd("export", made, "--to", "dc", "--out", tmp_path), str(tmp_path))
