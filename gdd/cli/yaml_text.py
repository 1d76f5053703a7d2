"""How YAML is read: every key once, and no word or leading zero is taken for something else.

Unlike in YAML 1.1, `off`, `on`, `yes` and `no` are words, which the parser takes for true or false only where a setting
is one of both; and 010 is not 8.
"""

import re
from typing import Any, ClassVar

import yaml

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Has its own idea of booleans and numbers, and refuses a key that stands twice."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{_TAG}null", f"{_TAG}merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_document(self, node: yaml.Node) -> Any:
        _require_each_once(node, "", set())
        return super().construct_document(node)


for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*|(?=[eE]))|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), [*_first])


def load(text: str) -> Any:
    """Return what a YAML document holds; YAMLError if it is none, has a tag, or has a key twice at any depth."""
    return yaml.load(text, Loader=_Loader)


def _require_each_once(node: yaml.Node, place: str, seen: set[yaml.Node]) -> None:
    """Refuse a mapping in which a key stands twice, be it as a section and as part of a dotted key.

    Args:
        node: a part of a document.
        place: the dotted keys that lead to it.
        seen: parts that were looked at, which others may refer to any number of times.
    """
    if node in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(node)
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _require_each_once(value, place, seen)
        return
    given, implied = set[str](), set[str]()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
            parts = key.value.split(".")
            sections = {".".join(parts[:end]) for end in range(1, len(parts))}
            twice = ({key.value} & (given | implied)) | (sections & given)
            if twice:
                raise yaml.YAMLError(f"{place}{min(twice)} stands in it twice")
            given.add(key.value)
            implied |= sections
            _require_each_once(value, f"{place}{key.value}.", seen)
