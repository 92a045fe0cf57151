"""Client-chosen text on its way into a log line."""

from __future__ import annotations

import re

_MAX_CHARACTERS = 256
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


def printable(text: str) -> str:
    """``text`` as one line that nobody can take for two: what does not print is escaped.

    Line and paragraph separators, terminal escapes, direction marks and lone surrogates do not print. A
    backslash is escaped too. Long texts are cut, since a document id may be as long as a body.
    """
    text = str.__str__(text)  # a tenant may be a member of an enum, which prints its name instead of its text
    if len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS] + "…"
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def quoted(value: object) -> str:
    """A value for a ``name=value`` list: bare where that is unambiguous, else in quotes."""
    text = printable(str(value))
    if text and not any(character in ' ="' for character in text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def where(error: BaseException) -> str:
    """An error as one line: its type, its text (no credentials of URLs) and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    text = printable(f"{type(error).__name__}: {_said(error)}")
    if trace is None:
        return text
    code = trace.tb_frame.f_code
    return f"{text} ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"


def _said(error: BaseException) -> str:
    try:
        return _CREDENTIALS.sub("://***@", str(error))
    except Exception:  # an error whose text cannot be made must not become the next error
        return "?"


def _escaped(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")
