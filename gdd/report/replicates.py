"""Which sources are replicates: the same method with the same settings, but for the seed of their distillation."""

import json
import logging
from collections.abc import Hashable, Sequence
from typing import Any

from gdd.config import Config, ConfigError, read_as, stages, to_plain
from gdd.evaluation.sources import REAL_NAMES, Source

logger = logging.getLogger(__name__)


def groups(sources: Sequence[Source]) -> list[list[Source]]:
    """Gather replicates, in the order of the first of each group.

    Real images, and whatever does not say its seed and its settings, are a group of their own.

    Raises:
        ConfigError: two sources of the same method, settings and seed have other content.
    """
    by_run: dict[Hashable, list[Source]] = {}
    for source in sources:
        if source.kind not in REAL_NAMES and _settings(source.provenance) is None:
            logger.info("compare: %s has no replicates, for its file lacks its seed or its settings", source.label)
        group = by_run.setdefault((run_of(source), source.provenance.get("iterations")), [])
        for other in group:
            if other.distillation_seed == source.distillation_seed:
                raise ConfigError(
                    f"{source.label} has the method, the settings and the seed {source.distillation_seed} of "
                    f"{other.label} but other content, so it is no replicate of it; name only one of them"
                )
        group.append(source)
    return list(by_run.values())


def run_of(source: Source) -> Hashable:
    """Return a key that sources share if they differ by seed or number of iterations alone."""
    settings = _settings(source.provenance)
    if settings is None:
        return source.kind, source.hash
    method, stage = source.provenance.get("method"), source.provenance.get("stage")
    filtered = source.ensemble is not None
    return source.kind, source.stored_ipc, method, stage, filtered, *settings.items()


def differing(source: Source, others: Sequence[Source]) -> str:
    """Return the settings, other than defaults, in which a source differs from others, as `, refine.tau 3`.

    The text is the same for two sources of a method only if their settings are, or if one does not say them.
    """
    settings, default = _settings(source.provenance) or {}, _by_key(Config())
    rivals = [rival for other in others if (rival := _settings(other.provenance)) is not None]
    different = {key for rival in rivals for key in settings if settings[key] != rival.get(key)}
    told = [key for key in settings if key in different and settings[key] != default[key]]
    return "".join(f", {key} {_said(settings[key])}" for key in told)


def changed(provenance: dict[str, Any]) -> dict[str, str] | None:
    """Return the settings that differ from the defaults, by dotted key, as their user would write them.

    None if a provenance does not say its settings or its seed, or has those of another version.
    """
    settings, default = _settings(provenance), _by_key(Config())
    if settings is None:
        return None
    return {key: _said(value) for key, value in settings.items() if value != default[key]}


def _settings(provenance: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings that decide a source, by dotted key; none if its settings or its seed are unknown.

    Settings of another version, which this one has no longer, say nothing. The seed is not among them, nor is
    `matching.ipc`: the sets of a method are told apart by their own IPC.
    """
    config = None if provenance.get("seed") is None else settings_of(provenance)
    return None if config is None else _by_key(config, provenance.get("stage"))


def settings_of(provenance: dict[str, Any]) -> Config | None:
    """Return the settings that a source was made with; none if it does not say them all in words of this version."""
    stored = provenance.get("config")
    if not stored:
        return None
    try:
        config = read_as(Config, stored)
    except ConfigError:
        return None
    return config if _flat(stored).keys() <= _flat(to_plain(config)).keys() else None


def _by_key(config: Config, stage: str | None = None) -> dict[str, Any]:
    """Return the settings that count by dotted key, in the config's order: those of the data and of a distillation."""
    settings = _flat(stages.telling_apart(config, stage))
    if settings.get("refine.weight") == config.skd_weight:
        settings["refine.weight"] = None  # which stands for it
    return {key: value for key, value in settings.items() if key not in ("seed", "matching.ipc")}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _said(value: Any) -> str:
    """Return a value as its user would write it: 0 for 0.0, null for none."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_said, value))}]"
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
