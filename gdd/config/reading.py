"""YAML text of settings, read without trusting it."""

from typing import Any

import yaml
from jsonargparse import get_loader

MOST_CHARACTERS = 10**6
MOST_DEPTH = 20
YAML_ERRORS = (yaml.YAMLError,)

# Read once, before anybody replaces it.
_load = get_loader("yaml")


def read_yaml(text: str) -> Any:
    """Return what jsonargparse's own loader returns; YAMLError for what would fill memory or stack.

    Aliases unfold to any size, brackets nested ten thousand deep end the process, and neither is of use in settings.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters, expected at most {MOST_CHARACTERS}")
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, *{event.anchor}, expected every value written out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise yaml.YAMLError(f"it nests more than {MOST_DEPTH} lists or mappings")
    try:
        return _load(text)
    except (ValueError, OverflowError) as error:  # such as a number of more digits than Python reads
        raise yaml.YAMLError(str(error)) from error
