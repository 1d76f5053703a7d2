"""Documents that would mislead when stale: the list of settings, snippets, links, and what they name."""

import io
import re
import runpy
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from datetime import date
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.version import Version
from settings import types_by_key

import gdd
from gdd.cli import main
from gdd.cli.main import COMMANDS
from gdd.models import registry

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
KEYS = list(types_by_key())
SECTIONS = {key.rpartition(".")[0] for key in KEYS} - {""}
FOLDERS = ("benchmarks", "configs", "docs", "gdd", "tests")
FILES = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
FOREIGN_FLAGS = {"config_file", "cpu", "main_process_ip", "multi_gpu", "num_machines", "num_processes"}  # accelerate's
FOREIGN_FLAGS |= {"array", "gpus", "requeue", "signal", "time"}  # sbatch's
FOREIGN_FLAGS |= {"group"}  # uv's
FOREIGN_FILES = {"accelerate.yaml", "bright100.yaml", "shapes.yaml"}  # made by accelerate config and gdd init


def test_the_list_of_settings_is_current_and_whole():
    text = (ROOT / "docs/configuration.md").read_text()
    assert text == runpy.run_path(str(ROOT / "docs/make_configuration.py"))["document"]()
    assert re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE) == KEYS


@pytest.mark.parametrize("path", ["docs/results.md"])
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
    """Return the flags of all commands, by their help, and of the programs in benchmarks and tests, by their text."""
    with redirect_stdout(io.StringIO()) as helps:
        assert all(main([*command, "--help"]) == 0 for command in ([], *([name] for name in COMMANDS)))
    programs = (path for folder in ("benchmarks", "tests/faults") for path in (ROOT / folder).glob("*.py"))
    return set(re.findall(r"--([\w.-]+)", "\n".join([helps.getvalue(), *(path.read_text() for path in programs)])))


@pytest.mark.parametrize("path", DOCUMENTS)
def test_flags_exist(path):
    flags = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", (ROOT / path).read_text()))
    assert flags - flags_of_programs() <= FOREIGN_FLAGS


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
