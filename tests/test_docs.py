"""Documents that would mislead when stale: the list of settings, snippets, links, and what they name."""

import ast
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.version import Version
from settings import types_by_key

import gdd
from gdd.cli import main
from gdd.cli.main import COMMANDS, _parse
from gdd.models import registry

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
RECIPES = (ROOT / "docs/recipes.md").read_text().split("\n## ")[1:]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
KEYS = list(types_by_key())
SECTIONS = {key.rpartition(".")[0] for key in KEYS} - {""}
FOLDERS = ("benchmarks", "configs", "docs", "examples", "gdd", "tests")
FILES = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
FOREIGN_FLAGS = {"config_file", "cpu", "main_process_ip", "multi_gpu", "num_machines", "num_processes"}  # accelerate's
FOREIGN_FLAGS |= {"array", "gpus", "requeue", "signal", "time"}  # sbatch's
FOREIGN_FLAGS |= {"group", "with"}  # uv's
FOREIGN_FLAGS |= {"build-arg", "rm", "user"}  # docker's
FOREIGN_FLAGS |= {"submitit.KEY", "submitit.gpus_per_node"}  # submitit's parameters
FOREIGN_FILES = {"accelerate.yaml", "bright100.yaml", "shapes.yaml"}  # made by accelerate config and gdd init
# Names of other libraries: of accelerate's file, of Hugging Face's datasets, of ddranking and torchvision; and folders
# and ends of names that stand for themselves.
FOREIGN_NAMES = {"machine_rank", "save_to_disk", "syn_lr", "custom_train_trans", "ToTensor", "Normalize"}
FOREIGN_NAMES |= {"LabelRobustScoreHard", "LabelRobustScoreSoft", "AugmentationRobustScore"}
FOREIGN_NAMES |= {"timeout_min", "slurm_"}  # of submitit
FOREIGN_NAMES |= {"Training", "test_set", "plain_text", "_u8", "_pm1", "_std", "flip_crop"}
FOREIGN_NAMES |= {"HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"}
FOREIGN_NAMES |= {
    "data/published"
}  # where users put files of their own: what lies in it here is no part of the project
USERS_FOLDERS = {"data", "runs"}
DATA = r"\.(?:json|jsonl|csv|md|html|png|jpg|safetensors|npz|pt|tar|parquet|txt|cls)$"  # files that runs and users have
SCRIPTS = {"distill.py": "distill", "evaluate.py": "evaluate", "train_gan.py": "train-gan"}  # by the command of each


def test_the_list_of_settings_is_current_and_whole():
    text = (ROOT / "docs/configuration.md").read_text()
    assert text == runpy.run_path(str(ROOT / "docs/make_configuration.py"))["document"]()
    assert re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE) == KEYS


@pytest.mark.parametrize("path", ["README.md", "docs/results.md"])
def test_tables_made_from_kept_rows_are_current(path):
    text, made = (ROOT / path).read_text(), runpy.run_path(str(ROOT / "benchmarks/results.py"))
    assert path in made["PAGES"]
    assert made["MARK"].search(text)
    assert made["written"](text) == text


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["dataset", "network", "loss"])
def test_snippets_of_extending_run(snippet, monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))  # what one adds is gone after it
    exec(compile(snippet, "extending.md", "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / path).read_text()):
        assert ((ROOT / path).parent / target).exists(), target


@cache
def flags_of_programs() -> set[str]:
    """Return the flags of all commands, by their help, and of the programs beside the package, by their text."""
    with redirect_stdout(io.StringIO()) as helps:
        assert all(main([*command, "--help"]) == 0 for command in ([], *([name] for name in COMMANDS)))
    programs = (path for folder in ("benchmarks", "examples", "tests/faults") for path in (ROOT / folder).glob("*.py"))
    return set(re.findall(r"--([\w.-]+)", "\n".join([helps.getvalue(), *(path.read_text() for path in programs)])))


@pytest.mark.parametrize("path", DOCUMENTS)
def test_flags_exist(path):
    flags = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", (ROOT / path).read_text()))
    assert flags - flags_of_programs() <= FOREIGN_FLAGS


def commands(text: str) -> Iterator[list[str]]:
    """Return the arguments of each command of gdd in a document's shell blocks, as the shell would give them."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        values: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assigned := re.fullmatch(r"""(\w+)=(['"])(.*)\2(?:\s+#.*)?""", line.strip()):
                values[assigned[1]] = assigned[3]
                continue
            plain = re.sub(r"\$\(\(.*?\)\)", "1", re.sub(r"(\|\||>).*", "", line))
            for name in re.findall(r"\$(\w+)", plain):
                plain = plain.replace(f"${name}", values.get(name, "1"))
            given = shlex.split(plain, comments=True)
            for place, word in enumerate(given):
                if word in SCRIPTS or (word == "gdd" and given[place + 1 :]):
                    yield [*([SCRIPTS[word]] if word in SCRIPTS else []), *given[place + 1 :]]
                    break


# The commands of results.md are many, and were given when its numbers were measured; their flags are looked at above.
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != "docs/results.md"])
def test_commands_parse(path):
    parsed = set()
    for given in commands((ROOT / path).read_text()):
        for made in FOREIGN_FILES & {*given}:  # is not there to be read
            del given[given.index(made) - 1 : given.index(made) + 1]
        if not given[0].startswith("-") and "FLAGS" not in given:
            _parse(given, "gdd")
            parsed.add(given[0])
    assert path != "README.md" or {"distill", "init", "sample", "compare"} <= parsed


@pytest.mark.parametrize("path", DOCUMENTS)
def test_keys_exist(path):
    dotted = re.findall(r"`([a-z_]+(?:\.\w+)+)", (ROOT / path).read_text())
    keys = {name for name in dotted if name.split(".")[0] in SECTIONS and not name.endswith(".py")}
    assert keys <= {*KEYS, *SECTIONS}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_files_of_the_repository_exist(path):
    # A path may begin at any folder, as that of a module at gdd/.
    named = re.findall(rf"[\w./-]+\.(?:py|yaml|toml)\b|\b(?:{'|'.join(FOLDERS)})/[\w./-]*", (ROOT / path).read_text())
    ends = {name.strip("/.") for name in named if not name.startswith(("runs/", "data/"))}
    assert {
        end for end in ends if not any(f"/{file.relative_to(ROOT)}".endswith(f"/{end}") for file in FILES)
    } <= FOREIGN_FILES


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the dotted names of their modules."""
    paths = {path.relative_to(ROOT).with_suffix("").parts: path for path in (ROOT / "gdd").rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in paths.items()}


@cache
def defined(path: Path) -> set[str]:
    """Return what a module defines at its top, the members of its classes with a dot, and what a package imports."""

    def collect(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            match node:
                case ast.FunctionDef(name=name):
                    yield prefix + name
                case ast.ClassDef(name=name):
                    yield prefix + name
                    yield from collect(node.body, f"{prefix}{name}.")
                case ast.Assign(targets=[*targets]) | ast.AnnAssign(target=ast.Name() as targets):
                    several = targets if isinstance(targets, list) else [targets]
                    yield from (
                        prefix + part.id for one in several for part in ast.walk(one) if isinstance(part, ast.Name)
                    )
                case ast.ImportFrom(names=names) if path.name == "__init__.py":
                    yield from (prefix + (alias.asname or alias.name) for alias in names)

    return {*collect(ast.parse(path.read_text()).body, "")}


@cache
def words() -> set[str]:
    """Return every name that the package gives: to functions, arguments and variables, and as a text, to a key."""
    found = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    found.add(name)
                case ast.Constant(value=str(name)):
                    found.add(name)
    return found


def is_symbol(dotted: str) -> bool:
    """Return whether a dotted name, which may begin at any package, module or class, is one of the package's."""
    package, _, name = dotted.partition(".")
    if package == "gdd" and name in gdd._HOMES:
        return True
    parts = dotted.split(".")
    ways = [(".".join(parts[:cut]), ".".join(parts[cut:])) for cut in range(len(parts) + 1)]
    return any(
        f".{module}".endswith(f".{begin}" if begin else "") and (not rest or rest in defined(path))
        for begin, rest in ways
        for module, path in modules().items()
    )


def unknown_names(text: str) -> set[str]:
    """Return the paths and the symbols of a document that the repository has not.

    A path begins with a folder of the repository or of the package, in prose or in code: `training/pool`, `tests/gpu`;
    capitals stand for any name. A symbol stands alone in backticks: a dotted name that begins with one of the package's
    modules or with a class, `sample.sample_set(...)`; a class, `Exam`; or a name that has an underscore or is called.
    """
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    inside = {path.name for path in (ROOT / "gdd").iterdir() if path.is_dir()} - {"__pycache__"}
    folders = "|".join(sorted({*FOLDERS, "examples", *inside}))
    paths = {found.rstrip("./") for found in re.findall(rf"(?<![\w/.:*-])(?:{folders})/[\w.*/-]*", prose)}
    patterns = {path: re.sub(r"\b[A-Z]{3,}\b", "*", path) for path in paths if not re.search(DATA, path)}
    unknown = {
        path
        for path, pattern in patterns.items()
        if not any(
            found.relative_to(ROOT).parts[0] not in USERS_FOLDERS
            for base in (ROOT, ROOT / "gdd")
            for end in ("", ".py")
            for found in base.glob(pattern + end)
        )
    }
    heads = {module.rpartition(".")[2] for module in modules()}
    classes = set().union(*map(defined, modules().values()))
    for name, called in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)(\([^`\n]*\))?`", prose):
        if "." in name:
            head = name.partition(".")[0]
            foreign = name in KEYS or name in SECTIONS or re.search(rf"{DATA}|\.(?:py|yaml|toml)$", name)
            known = foreign or not (head in heads or head[0].isupper()) or is_symbol(name)
        elif re.match(r"[A-Z][a-z]", name):
            known = name in classes
        else:
            known = not ("_" in name or called) or name in words()
        if not known:
            unknown.add(name)
    return unknown - FOREIGN_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.partition("\n")[0] for recipe in RECIPES])
def test_a_recipe_trains_a_network_for_real_images(recipe, tmp_path, monkeypatch):
    (script,) = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    for name in re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    assert all(main(given) == 0 for given in commands(recipe))  # that make what the script reads
    Path("recipe.py").write_text(script)
    ended = subprocess.run([sys.executable, "recipe.py"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    # One class in ten is right by chance, and two in ten are where Avalanche's learner replays nothing.
    assert float(re.search(r"^accuracy ([\d.]+) %$", ended.stdout, re.MULTILINE)[1]) > 60


@pytest.mark.parametrize("path", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_paths_and_symbols_exist(path):
    assert unknown_names((ROOT / path).read_text()) == set()


def test_a_path_or_symbol_that_is_not_there_is_found():
    there = "`training/pool`, tests/gpu, `zoo/NAME`, `gdd.losses.logits.skd`, `LearningPool`, `Run.loop`, `refine.loss`"
    assert not unknown_names(f"{there}, `torch.load(weights_only=True)`, `sampling.sample.sample_set(...)`, `set.pt`")
    gone = {
        "training/pond",
        "gdd.losses.logits.kds",
        "PaddlingPool",
        "Run.lop",
        "sample.sample_sets",
        "moment_distances",
    }
    assert unknown_names(", ".join(f"`{name}`" for name in gone)) == gone


def test_the_version_is_that_of_the_newest_changes():
    version, state = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).groups()
    assert Version(gdd.__version__).base_version == version
    assert Version(gdd.__version__).is_devrelease == (state == "unreleased")
    assert state == "unreleased" or date.fromisoformat(state)


@pytest.mark.skipif(not (ROOT / ".github").exists(), reason="an sdist has no files of the host")
def test_the_host_tries_the_oldest_and_the_newest_python_and_asks_for_gdd_doctor():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == [named[0], named[-1]]
    assert "./.github/workflows/ci.yml" in (ROOT / ".github/workflows/release.yml").read_text()
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    required = [[part["id"] for part in yaml.safe_load(form.read_text())["body"]] for form in forms]
    assert len(forms) >= 2
    assert all("doctor" in ids for ids in required)


def test_the_api_page_has_each_public_name():
    text = (ROOT / "docs/api.md").read_text()
    described = re.findall(r"^::: ([\w.]+)\.(\w+)(?:\n    options:\n      heading: (\w+))?", text, re.MULTILINE)
    assert {heading or name: f"{home}:{name}" for home, name, heading in described} == gdd._HOMES


@pytest.mark.parametrize("name", gdd._HOMES)
def test_a_public_name_is_there(name):
    assert getattr(gdd, name).__doc__


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the group docs: uv run --group docs pytest -m slow")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    described = set(re.findall(r">\s*(\w+)\s*<", (tmp_path / "api/index.html").read_text()))
    assert set(gdd._HOMES) <= described
    fetched = r"""(?:src=|<link[^>]*href=)["']?(?:https?:)?//[^"'\s>]+|url\(["']?(?:https?:)?//"""
    pages = [path.read_text() for kind in ("html", "css") for path in tmp_path.rglob(f"*.{kind}")]
    assert [re.findall(fetched, page) for page in pages] == [[]] * len(pages)
