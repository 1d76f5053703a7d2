"""Texts that are put into Markdown. Files may be strangers', and a card is made to be shown to others."""

import re
from html import escape

from markupsafe import Markup

# An absolute path, or one below a home: its folders may name a machine or a user. URLs are none.
_PATH = re.compile(r"(?<![\w.:/\\])(?:~\w*|[A-Za-z]:)?[/\\](?:[^\s/\\]+[/\\]+)*([^\s/\\]*)")


def clean(value: object) -> str:
    """Return a text on one line, absolute paths cut to their last part, characters that are not to be seen as `?`."""
    words = " ".join(_PATH.sub(r"\1", str(value)).split())
    return "".join(character if character.isprintable() else "?" for character in words)


def escaped(value: object) -> str:
    """Return a text that Markdown and HTML show as it is; what is Markup stays as it is."""
    if isinstance(value, Markup):
        return str(value)
    return re.sub(r"([\\`*\[\]])", r"\\\1", escape(clean(value), quote=False))
