"""What a YAML file of settings may hold, and that nothing of it is lost or read as something else."""

import pytest

from gdd.cli.main import parse_config


@pytest.fixture
def config_of(tmp_path):
    """Return a function that reads settings from a file with this text."""

    def call(text: str):
        path = tmp_path / "a.yaml"
        path.write_text(text)
        return parse_config(["--config", str(path)])

    return call


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pretrain:\n  steps: 7\nrefine: {steps: 3}\npretrain:\n  batch_size: 8\n", "pretrain"),
        ("name: a\nname: b\n", "name"),
        ("refine:\n  pool: {lr: 1.0}\n  steps: 3\n  pool: {lr: 2.0}\n", "refine.pool"),
        ("refine: {pool: {lr: 1.0, lr: 1.0}}\n", "refine.pool.lr"),
        ("gan.loss: hinge\ngan: {arch: residual}\n", "gan"),
        ("gan: {arch: residual}\ngan.loss: hinge\n", "gan"),
        ("refine: {pool.lr: 1.0, pool: {batch_size: 8}}\n", "refine.pool"),
        ("gan.loss: hinge\ngan.loss: wgan\n", "gan.loss"),
        ("a: &a {name: x, name: y}\n", "a.name"),
    ],
)
def test_a_key_that_stands_twice_at_any_depth_is_named(text, key, refused, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    said = refused("train-gan", "--dry-run", "--config", tmp_path / "a.yaml")
    assert said == f"gdd: --config {tmp_path / 'a.yaml'} cannot be used: {key} stands in it twice"


def test_dotted_keys_of_one_section_stand_beside_each_other(config_of):
    config = config_of("gan.loss: hinge\ngan.arch: residual\nrefine: {pool.lr: 0.5, steps: 7}\n")
    assert (config.gan.loss, config.gan.arch, config.refine.pool.lr) == ("hinge", "residual", 0.5)


def test_what_is_merged_may_be_replaced(config_of):
    config = config_of("pretrain: &one {steps: 7, batch_size: 8}\nrefine: {<<: *one, steps: 9}\n")
    assert (config.refine.steps, config.refine.batch_size, config.pretrain.steps) == (9, 8, 7)


@pytest.mark.parametrize("word", ["off", "on"])
def test_words_that_yaml_takes_for_truth_are_words_where_words_are_chosen_from(word, config_of):
    config = config_of(f"name: {word}\nrun: {{compile: {word}, tf32: {word}}}\nscore: {word}\n")
    assert (config.run.compile, config.name) == (word, word)
    assert (config.run.tf32, config.score) == (word == "on", word == "on")


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("No", False), ("TRUE", True), ('"false"', False)])
def test_truth_may_be_written_in_all_of_yaml_s_words(text, value, config_of):
    assert config_of(f"score: {text}\n").score is value


@pytest.mark.parametrize(("text", "value"), [("5e-05", 5e-5), (".5", 0.5), ("1.", 1.0), ("1e1", 10.0), ("2", 2.0)])
def test_numbers_are_read_in_every_notation(text, value, config_of):
    assert config_of(f"pretrain: {{lr: {text}}}\n").pretrain.lr == value


def test_a_leading_zero_makes_no_octal_number(config_of):
    assert config_of("pretrain: {steps: 0100}\n").pretrain.steps == 100


@pytest.mark.parametrize("text", ["", "# name: a\n", "- name\n", "a word\n"])
def test_a_file_without_settings_is_told_as_that(text, refused, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    refused(
        "train-gan", "--config", tmp_path / "a.yaml", naming="a.yaml cannot be used: it holds no settings, expected"
    )


def test_a_reference_to_itself_ends(refused, tmp_path):
    (tmp_path / "a.yaml").write_text("name: &a [*a]\n")
    refused("train-gan", "--dry-run", "--config", tmp_path / "a.yaml")
