"""Documents that would mislead when stale: the generated reference, the snippets, the configs' claims."""

import re
from pathlib import Path

import pytest

from gdd import reference
from gdd.config import Config

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)


def test_the_configuration_reference_is_current():
    assert (ROOT / "docs/configuration.md").read_text() == reference.reference()


def test_the_reference_names_every_key():
    text = reference.reference()
    for name, part in vars(Config()).items():
        for key in getattr(part, "__dataclass_fields__", ()):
            assert f"`{name}.{key}`" in text
    assert "`seed`" in text


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["dataset", "network", "loss"])
def test_snippets_of_extending_run(snippet):
    exec(compile(snippet, "extending.md", "exec"), {})


@pytest.mark.parametrize("path", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / path).read_text()):
        assert ((ROOT / path).parent / target).exists(), target
