"""Random settings: each is refused in one sentence or runs one step; nothing else ever happens.

The settings are found by introspection, so a new field is tried as soon as it is there.
"""

import io
import json
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settings import nested, types_by_key

from gdd.cli import main

LEAST = 0.15  # share of the examples that are refused, and of those that run

ODD_TEXTS = ("", " ", "nowhere", "-", "a/b", "..", "é\u202e", "\x1b[2J", "[", "{a: 1}", "convnet3-w4-w8", "mlp-w0")
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 3, 2**63, 10**400, -(10**30), -0.5, 0.0, 0.5, 1.0, 1e-300, 1e300]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.sampled_from(ODD_TEXTS),
    st.lists(st.sampled_from([0, -1, 2.5, "x", None, []]), max_size=3),
    st.dictionaries(st.sampled_from(["width", "odd key", ""]), st.integers(-1, 1), max_size=2),
)
NUMBERS = st.sampled_from([-0.1, 0, 0.0, 1e-3, 0.1, 0.5, 0.9, 1, 1.0, 1.5, 3])
# The meaning of a text depends on its field; others draw from all of these.
NETWORKS = ("mlp-w4", "convnet3-w4", "lenet", "resnet10-w4", "resnet19")
TEXTS = {
    **dict.fromkeys(("archs", "members", "main", "various", "teacher_arch"), NETWORKS),
    "augment": ("none", "color", "crop_cutout", "color_crop_cutout_flip_scale_rotate", "color_color"),
    "sources": ("real:random", "real:all", "real:some"),
    "name": ("digits", "other", "a b"),
}
ALL_TEXTS = tuple(sorted({text for texts in TEXTS.values() for text in texts}))
KEEP = [f"evaluate.recipe.keep_{name}" for name in ("period", "decrement", "minimum", "final")]
# The whole range of these would cost more than a moment, or lead out of the test's folder.
NARROW: dict[str, st.SearchStrategy[Any]] = {
    "data.name": st.sampled_from(["digits", "digit", "", "mnist"]),
    "data.root": st.just("nowhere"),
    "data.size": st.sampled_from([None, [16, 16], [16, 20], [8, 8], [17], 16, [-1, 16], "16"]),
    "data.download": st.sampled_from([False, None, "x"]),
    "gan.width": st.integers(3, 6),
    "matching.ipc": st.integers(0, 2),
    "matching.outer": st.integers(0, 2),
    "matching.inner": st.integers(0, 2),
    "evaluate.recipe.epochs": st.integers(0, 2),
    "evaluate.recipe.steps": st.integers(0, 2),
    # Most numbers are out of the range of these, so that hardly a trial with one would run.
    **dict.fromkeys(KEEP, st.sampled_from([None, 0, 0.2, 0.5, 1, 1.5])),
    "run.max_minutes": st.sampled_from([None, 0, -1, "x", 10**6]),
    "run.threads": st.sampled_from([None, 0, 1]),
    "run.workers": st.sampled_from([0, 1]),
}
UNTOUCHED = {"run.root"}  # where the test looks for what was written
ONE_STEP = {
    "pretrain.steps": 1,
    "pretrain.batch_size": 4,
    "refine.steps": 1,
    "refine.batch_size": 4,
    "gan.width": 4,
    "gan.noise_dim": 4,
    "refine.pool.batch_size": 4,
    "refine.pool.members": ["mlp-w4"],
    "matching.pool.main": "convnet3-w4",
    "matching.iterations": 1,
    "matching.outer": 1,
    "matching.inner": 1,
    "matching.batch_real": 2,
    "matching.batch_train": 2,
    "ensemble.steps": 1,
    "ensemble.batch_size": 4,
    "ensemble.archs": ["mlp-w4"],
    "evaluate.archs": ["mlp-w4"],
    "evaluate.seeds": [0],
    "evaluate.ipc": [1],
    "evaluate.recipe.epochs": 1,
    "evaluate.recipe.drop_path": "phases",  # which rates are refused without
    "evaluate.all_epochs": 1,
    "run.threads": 1,
    "run.workers": 1,
    "matching.pool.various": ["mlp-w4"],
    "score": False,
}
COMMANDS = {
    "generator": (["distill", "--method", "generator"], "refine/generator.safetensors"),
    "gradient matching": (["distill", "--method", "matching"], "matching/set.safetensors"),
    "ensemble": (["train-ensemble"], "ensemble/ensemble.safetensors"),
    "evaluate": (["evaluate", "--evaluate.sources", "[real:random]"], "evaluate/table.md"),
}


def of_type(hint: Any, name: str) -> st.SearchStrategy[Any]:
    """Draw JSON values of an annotation's type, in the field's range and somewhat beyond."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return st.one_of([of_type(part, name) for part in parts])
    if kind is Literal:
        return st.sampled_from(parts)
    if kind is tuple:
        return st.lists(of_type(parts[0], name), max_size=2)
    return {
        bool: st.booleans(),
        int: st.integers(-1, 6),
        float: NUMBERS,
        NoneType: st.none(),
        str: st.sampled_from(TEXTS.get(name, ALL_TEXTS)),
        Path: st.sampled_from(["nowhere", "nowhere/generator.safetensors", "/"]),
    }[kind]


class Trial(NamedTuple):
    command: str
    changes: dict[str, Any]
    as_flags: bool


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    """Draw a command and some settings: most of the right type, some odd, a few unknown."""
    known = {key: hint for key, hint in types_by_key().items() if key not in UNTOUCHED}
    changes: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True)):
        fitting = NARROW[key] if key in NARROW else of_type(known[key], key.rpartition(".")[2])
        odd = key not in NARROW and draw(st.integers(0, 9)) == 0
        changes[key] = draw(ODD if odd else fitting)
    if draw(st.integers(0, 19)) == 0:
        changes[draw(st.sampled_from(["gan.widht", "unknown", "run.root.x", "gan"]))] = draw(ODD)
    return Trial(draw(st.sampled_from(sorted(COMMANDS))), changes, draw(st.booleans()))


def arguments_of(trial: Trial, folder: Path) -> list[str]:
    """Return a command line, with one step of everything that the trial does not set."""
    given = {key: value for key, value in ONE_STEP.items() if key not in trial.changes}
    if "evaluate.recipe.steps" in trial.changes:
        given.pop("evaluate.recipe.epochs", None)
    command, _ = COMMANDS[trial.command]
    arguments = [command[0]]
    if trial.as_flags:
        given |= trial.changes
    else:
        (folder / "trial.yaml").write_text(json.dumps(nested(trial.changes)))
        arguments += ["--config", str(folder / "trial.yaml")]
    for key, value in given.items():
        arguments.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    # A command's own settings count only where the trial has none of them.
    for flag, value in zip(command[1::2], command[2::2], strict=True):
        arguments += [flag, value] if flag.removeprefix("--") not in trial.changes else []
    return [*arguments, "--run.root", str(folder)]


def run(trial: Trial) -> str:
    """Run a trial, check what comes of it, and return the sentence of a refusal or an empty text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = arguments_of(trial, folder)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as error:
            code = main(arguments)
        said = [line for line in error.getvalue().splitlines() if line.startswith("gdd: ")]
        assert "Traceback" not in error.getvalue()
        if code == 0:
            assert not said
            made = [COMMANDS[key][1] for key in COMMANDS]
            assert any(path.is_file() for end in made for path in folder.glob(f"*/{end}")), arguments
            return ""
    assert code == 2
    (line,) = said
    assert len(line) < 1200
    assert names(line, trial.changes), (line, trial)
    return line


def names(line: str, changes: dict[str, Any]) -> bool:
    """Tell whether a sentence speaks of a setting of the trial, or of its value or a part of that."""
    words = [*changes, *(key.rpartition(".")[2] for key in changes)]
    for value in changes.values():
        words += map(str, value if isinstance(value, list) else [value])
    return "too large" in line or any(word in line for word in words if word)


def test_any_settings_are_refused_in_a_sentence_or_run() -> None:
    examples, outcomes = 40, dict[str, str]()

    @settings(
        max_examples=2 * examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(trials())
    def each(trial: Trial) -> None:
        # Hypothesis likes to vary what it has tried, and comes back to it; were that told to be invalid, it would take
        # the test to be flaky.
        if repr(trial) not in outcomes and len(outcomes) < examples:
            outcomes[repr(trial)] = "refused" if run(trial) else "ran"

    each()
    assert len(outcomes) == examples
    counts = Counter(outcomes.values())
    assert min(counts["refused"], counts["ran"]) >= LEAST * examples, counts
