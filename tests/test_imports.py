"""The import order of docs/architecture.md, and what may stand only in certain files."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import gdd

PACKAGE = Path(gdd.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Left to right only. A new module or folder directly below gdd/ needs a place here.
ORDER = (
    *("config", "zoo", "published", "rng", "losses"),
    *("runtime", "data", "models"),
    *("hub", "sampling"),
    *("formats", "training"),
    *("evaluation", "report", "checks", "pipeline", "api", "cli", "__main__"),
)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def place_of(path: Path) -> str:
    """Return the module or folder directly below gdd/ that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_places(source: str) -> set[str]:
    """Return which modules and folders below gdd/ a file imports, also inside functions."""
    places = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        places |= {name.split(".")[1] for name in names if name.startswith("gdd.")}
    return places - {"__version__"}


def wrong_imports(place: str, source: str) -> list[str]:
    assert place in ORDER, f"give {place} a place in ORDER"
    return [other for other in imported_places(source) if ORDER.index(other) > ORDER.index(place)]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("config", "from gdd import rng"),
        ("rng", "from gdd.runtime.checkpoint import save"),
        ("losses", "import gdd.data.pixels"),
        ("losses", "from gdd.runtime.run import Run"),
        ("training", "def f():\n    from gdd.report import tables"),
        ("sampling", "if TYPE_CHECKING:\n    from gdd.training.gan import GanTrainer"),
        ("data", "from gdd import config, models"),
    ],
)
def test_the_check_finds_an_import_to_the_right(place, source):
    assert wrong_imports(place, source)


def test_the_check_lets_imports_to_the_left_pass():
    assert not wrong_imports("sampling", "import torch\nfrom gdd import __version__, runtime\nimport gdd.models.gan")


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_imports_go_from_left_to_right(path):
    assert wrong_imports(place_of(path), path.read_text()) == []


def test_the_package_itself_imports_nothing():
    assert imported_places((PACKAGE / "__init__.py").read_text()) == set()


def ways_out(source: str) -> list[str]:
    """Return calls that print, exit, or name a device."""
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    banned = ("print", "sys.exit", "exit", "quit", "os._exit")
    raised = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    return [call for call in calls if call in banned or call.endswith(".cuda")] + [
        text for text in raised if "SystemExit" in text
    ]


@pytest.mark.parametrize(
    "source", ["print(1)", "def f():\n    sys.exit(2)", "x = net.to(0).cuda()", "raise SystemExit"]
)
def test_the_check_finds_prints_exits_and_fixed_devices(source):
    assert ways_out(source)


@pytest.mark.parametrize("path", [p for p in MODULES if place_of(p) not in ("cli", "__main__")], ids=name_of)
def test_only_the_command_line_prints_or_exits(path):
    assert ways_out(path.read_text()) == []


def test_no_two_modules_of_the_tests_share_a_name():
    """pytest and pythonpath import them by their bare name: of two alike, a worker gets the one that it saw first."""
    named = [path.stem for path in Path(__file__).parent.rglob("*.py") if path.stem != "conftest"]
    assert sorted(name for name in set(named) if named.count(name) > 1) == []


# Public names that may stand in several modules: a file's functions are called through its module, a command's list of
# commands is gathered by the parser, and what the API offers is what the pipeline does.
IN_SEVERAL = {"COMMANDS", "FILE", "from_tensors", "load", "save", "distill", "evaluate"}


def public_names(source: str) -> set[str]:
    """Return the names that a module gives to what stands at its top level, without an underscore."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")} - {"logger"}


def test_the_check_finds_the_public_names():
    source = "a, b = 1, 2\nc: int = 3\n_d = 4\ndef e(): f = 5\nclass G: h = 6"
    assert public_names(source) == {"a", "b", "c", "e", "G"}


def test_no_public_name_stands_in_two_modules():
    named = [(name, path) for path in MODULES if path.name != "__init__.py" for name in public_names(path.read_text())]
    count = Counter(name for name, _ in named)
    several = {name for name in count if count[name] > 1}
    assert {name: [name_of(path) for other, path in named if other == name] for name in several - IN_SEVERAL} == {}
    assert several >= IN_SEVERAL  # one that is no longer in several needs no exception
