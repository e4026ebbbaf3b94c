"""Numbers with their nouns in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 chunk``, ``1,000 chunks``; the noun is one whose plural has an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
