"""What the terminal says before the work: a short block, the whole config on request, a line for every command."""

import re
import time

import pytest
import torch
import yaml
from commands import MATCHING, TINY

from gdd import pipeline
from gdd.cli import summary
from gdd.cli.main import COMMANDS, parse_config
from gdd.config import Config, read_as, to_plain
from gdd.evaluation import sources
from gdd.models.cost import classifier_flop
from gdd.pipeline.stages import STAGES, Scope
from gdd.runtime.device import make_accelerator
from gdd.runtime.workers import Team

DATA = "digits: 10 classes of 16x16x1, 1,293 training and 145 validation images"
MATCHED = "gradient matching: 3 iterations at 2 per class"


def block_of(text: str) -> dict[str, str]:
    """Return the lines of a block by their names, those of the work joined."""
    lines = [(line[:8].rstrip(), line[9:]) for line in text.splitlines()]
    works = [value for name, value in lines if name in ("work", "")]
    return {"work": "; ".join(works)} | {name: value for name, value in lines if name not in ("work", "")}


@pytest.fixture
def block(dataset):
    """Return a function that gives the lines for some flags and stages, and for sources by their texts."""

    def call(flags: list[str], stages: list[str], *texts: str) -> dict[str, str]:
        config = parse_config([*TINY, *flags])
        named, accelerator = [sources.read(text) for text in texts], make_accelerator(config.run)
        scored = {"evaluate", "compare"} & {*stages}
        jobs = pipeline.plan(config, dataset, named, "compare" not in stages) if scored else []
        text = summary.block(config, dataset, accelerator, stages, jobs)
        assert max(map(len, text.splitlines())) <= 100
        return block_of(text)

    return call


class Others:
    """A machine of which others have so many parts beside the one that this process has."""

    def __init__(self, share: float) -> None:
        self.share, self.worked = share, 0.0

    def process_time(self) -> float:
        self.worked += 0.01
        return self.worked

    def perf_counter(self) -> float:
        return (self.worked + 5) / self.share


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_busy_machine_does_not_double_the_minutes_but_is_told(share, block, monkeypatch):
    clock, device = Others(share), torch.device("cpu")
    monkeypatch.setattr(time, "process_time", clock.process_time)
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    found = summary.speed(Config(), device)
    assert found.gan == found.others == pytest.approx(0.4 * 2 * 1024**3 / 0.01)
    assert found.busy == pytest.approx(1 / share)
    lines = block(["--pretrain.steps", "40000"], ["pretrain"])  # 20 minutes of small calls
    how = "estimated from the number of operations" if share == 1 else "40 min if the machine stays as busy as it is"
    assert lines["time"] == f"about 20 min for all of it, {how}"


def test_a_command_begins_with_a_line_for_each_stage_and_four_more(distilled_once):
    root, out = distilled_once
    lines = block_of("\n".join(out.splitlines()[:7]))
    assert list(lines) == ["work", "data", "machine", "time", "results"]
    assert lines["work"] == "pretrain a GAN: 6 x 8 images; refine it (SKD): 4 x 8 images; train and score 14 students"
    assert lines["data"] == DATA
    assert re.fullmatch(r"cpu \(.*, 1 thread\)", lines["machine"])
    assert lines["time"].startswith("about 1 min for all of it, ")
    assert lines["results"] == str(root / "digits")
    assert "ema_decays" not in out


@pytest.mark.parametrize(
    ("flags", "stages", "texts", "work"),
    [
        ([], ["pretrain"], (), "pretrain a GAN: 6 x 8 images"),
        (["--refine.pretrained", "x"], ["refine"], (), "refine the generator of x (SKD): 4 x 8 images"),
        (["--refine.loss", "none"], ["refine"], (), "refine it (no guiding loss): 4 x 8 images"),
        (MATCHING, ["matching"], (), MATCHED),
        # Floor, own set and ceiling, of two seeds each.
        (MATCHING, ["matching", "evaluate"], (), f"{MATCHED}; train and score 6 students"),
        (["--evaluate.ipc", "[1, 2]"], ["evaluate"], ("real:random",), "train and score 6 students"),
        (["--evaluate.seeds", "[0]"], ["evaluate"], (), "train and score 7 students"),
        (["--run.workers", "2"], ["compare"], ("real:random",), "train and score 2 students, 2 at once"),
    ],
)
def test_the_work_is_told_with_its_sizes(flags, stages, texts, work, block):
    assert block(flags, stages, *texts)["work"] == work


def test_generators_are_scored_fixed_and_streamed_and_compared_without_a_ceiling(generator, block):
    # Fixed, streamed, the floor and the ceiling of streams, at one IPC; two seeds.
    assert block([], ["compare"], str(generator))["work"] == "train and score 8 students"
    assert block([], ["evaluate"], str(generator))["work"] == "train and score 10 students"


def test_the_estimate_tells_minutes_from_days(block, monkeypatch):
    monkeypatch.setattr(summary, "speed", lambda *_: summary.Speed(1e10, 1e10))

    def time_of(steps: int) -> str:
        return block(["--pretrain.steps", str(steps)], ["pretrain"])["time"].partition(" for")[0]

    said = [time_of(steps) for steps in (10, 10**5, 10**6, 10**8)]
    assert [text.split()[-1] for text in said] == ["min", "min", "h", "days"]
    assert said[0] == "about 1 min"


@pytest.mark.parametrize(
    ("pool", "lessons"),
    [
        (["--refine.pool.ages", "[100, 400, 1600]"], 3 * 1600),  # three members, each trained once
        (["--refine.pool.weights", "[1, 0, 0]"], 3 * 16 + 497 * 1),  # three lives of one member
    ],
)
def test_the_estimate_counts_the_lessons_that_the_stage_gives(pool, lessons, dataset):
    def flop(*flags: str) -> float:
        return STAGES["refine"].work(Scope(parse_config([*flags]), dataset, [], Team(1, 1))).flop

    members = Config().refine.pool.members
    answer = sum(classifier_flop(name, dataset.spec.shape, 10) for name in members) / len(members)
    # A step asks about 32 generated images, with a gradient, and as many real ones without; a lesson has 64.
    asked = 500 * 32 * (3 + 1) + lessons * 64 * 3
    assert flop(*pool) - flop("--refine.loss", "none") == pytest.approx(asked * answer)


def test_print_config_prints_the_whole_config(done):
    printed = yaml.safe_load(done("distill", *TINY, "--refine.tau", "3", "--print_config"))
    config = read_as(Config, printed)
    assert config == parse_config([*TINY, "--refine.tau", "3"])
    assert to_plain(config)["refine"].keys() == printed["refine"].keys()


def test_help_lists_every_command_with_a_line(done):
    text = " ".join(done("--help").split())
    for command in COMMANDS.values():
        assert f"{command.name} {command.help}" in text
    assert done() == done("--help")
