"""A card, in Markdown, beside every generator and every set: what it is, how it was made, what it is worth."""

from gdd.report.card.document import NAME, text, write, write_export, write_stages

__all__ = ["NAME", "text", "write", "write_export", "write_stages"]
