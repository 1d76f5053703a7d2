"""Methods and settings of earlier files, by the names of now.

Before `refine.loss none` there was, a weight of 0 went on with the adversarial loss alone; and the method skd was what
now is called generator, whichever loss refined it.
"""

from typing import Any

_METHOD = "skd"
_LOSSES = {"kl": "skd"}  # of refine.match, which 0.1.0 had


def current_method(name: str) -> str:
    """Return the name of now of a config's method."""
    return "generator" if name == _METHOD else name


def current_settings(stored: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings, whatever they hold, with the names of now."""
    renamed, refine = dict(stored), stored.get("refine")
    if "method" in stored:
        renamed["method"] = current_method(stored["method"])
    if isinstance(refine, dict) and refine.get("weight") == 0:
        # With a balance, which finds the weight, it had to be 0.
        loss = {} if refine.get("balance") is not None else {"loss": "none"}
        renamed["refine"] = {**refine, "weight": None, **loss}
    return renamed


def current_origin(stored: dict[str, Any]) -> dict[str, Any]:
    """Return what a generator's or a set's file says of its origin with the names of now, its settings included.

    The method of a refined generator is null if only that earlier name is known, which says nothing of the loss.
    """
    renamed, config = dict(stored), stored.get("config")
    if isinstance(config, dict):
        renamed["config"] = current_settings(config)
    if stored.get("method") == _METHOD and stored.get("stage") == "refine":
        renamed["method"] = None
        refine = renamed["config"].get("refine") if isinstance(config, dict) else None
        loss = refine.get("loss", refine.get("match")) if isinstance(refine, dict) else None
        if isinstance(loss, str):
            renamed["method"] = "gan" if loss == "none" else f"gan + {_LOSSES.get(loss, loss)}"
    return renamed
