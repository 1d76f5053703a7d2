"""Keyword arguments as a config."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdd import checks
from gdd.config import Config, ConfigError, read_as, to_plain


def config_of(settings: Mapping[str, Any], distilled: bool = False, scored: bool = False) -> Config:
    """Return the config of nested settings, as a YAML file has them; what is not given keeps its default.

    Args:
        settings: such as `{"seed": 1, "pretrain": {"steps": 500}}`.
        distilled: whether it is distilled, so that what that starts from has to be there.
        scored: whether the sources that are named are scored.

    Raises:
        ConfigError: a key that is none, a value out of its range, an unknown network, or a file that is not there.
    """
    values = _merged(to_plain(Config()), settings, "")
    config = read_as(Config, values)
    checks.check_names(config)
    checks.check_files(config, distilled, scored)
    return config


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the defaults with what is given in their place; ConfigError names a key that has no default."""
    merged = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            close = difflib.get_close_matches(str(key), defaults, n=1)
            raise ConfigError(f"{place}{key} is no setting, expected {close[0] if close else ', '.join(defaults)}")
        if isinstance(defaults[key], Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{place}{key} is {value!r}, expected a mapping of {', '.join(defaults[key])}")
            value = _merged(defaults[key], value, f"{place}{key}.")
        merged[key] = str(value) if isinstance(value, Path) else value
    return merged
