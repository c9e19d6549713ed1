"""A strict reader of YAML 1.2 that keeps line and column of every value.

What YAML guesses at, this reader refuses: duplicate keys, ``yes``/``no``/``on``/``off``, numbers
with leading zeros or in octal, sexagesimal numbers, anchors, aliases and tags.  All problems of a
file are collected; each is one line ``file:line:column: what (what to do)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from harness.system.text import control_character, one_line
from pipeline.errors import InputError

__all__ = ["Document", "Problem", "SpecError", "read_yaml"]

_PREFIX = "tag:yaml.org,2002:"
_IMPLICIT = ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURPRISES = (
    (
        re.compile(r"(?i)yes|no|on|off|y|n"),
        "YAML versions disagree on it; write true, false or quote it",
    ),
    (
        re.compile(r"[-+]?0[0-9]+"),
        "a leading zero means octal to some readers; quote it or drop the zero",
    ),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write the number in decimal"),
    (re.compile(r"[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?"), "sexagesimal to some readers; quote it"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*"), "underscores are not part of YAML 1.2 numbers"),
    (re.compile(r"(?i)[-+]?\.(inf|nan)"), "write a finite number"),
    (re.compile(r"[-+]?[0-9]{19,}"), "a number has at most 18 digits; quote it if it is none"),
)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file.

    Attributes
    ----------
    path : str
        The file.
    line, column : int
        Where, counted from 1.
    message : str
        What is wrong and what to do.
    """

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class SpecError(InputError):
    """Case files, requirements or waivers are wrong; carries every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        Exception.__init__(self, "\n".join(str(p) for p in self.problems))


@dataclass(slots=True)
class Document:
    """A file's content as plain Python and the place of every part of it.

    Attributes
    ----------
    path : str
        The file.
    value : object
        Nested dicts, lists and scalars.
    places : dict
        Line and column of each value, by its path of keys and indices.
    key_places : dict
        The same of the keys of mappings.
    problems : list of Problem
        What the reader refused.
    """

    path: str
    value: Any = None
    places: dict[tuple[str | int, ...], tuple[int, int]] = field(default_factory=dict)
    key_places: dict[tuple[str | int, ...], tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, place: tuple[int, int], message: str) -> None:
        """Note what is wrong at a line and column."""
        self.problems.append(Problem(self.path, *place, one_line(message)))

    def problem(self, where: Sequence[str | int], message: str, *, key: bool = False) -> Problem:
        """Return a problem at the nearest place known for a path."""
        table, message = self.key_places if key else self.places, one_line(message)
        for end in range(len(where), -1, -1):
            if tuple(where[:end]) in table:
                return Problem(self.path, *table[tuple(where[:end])], message)
            table = self.places
        return Problem(self.path, 1, 1, message)


def read_yaml(path: Path) -> Document:
    """Read one file.

    Parameters
    ----------
    path : path-like
        A YAML 1.2 file with one document.

    Returns
    -------
    Document
        Content and problems; the content is None when the file cannot be parsed at all.
    """
    document = Document(str(path))
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"))
        if root is not None:
            document.value = _value(root, (), document)
    except MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.refuse((line, column), f"not YAML: {err.problem or err.context}")
    except UnicodeDecodeError as err:
        document.refuse(_place_of(err), "not UTF-8: a byte has no meaning here")
    except ReaderError as err:
        text = path.read_text(encoding="utf-8")
        document.refuse(_position(text, err.position), f"not YAML: {err.reason}")
    except RecursionError:
        document.refuse((1, 1), "nested too deeply to be read")
    except (YAMLError, OSError, ValueError) as err:
        document.refuse((1, 1), f"cannot be read: {err}")
    if document.value is None and not document.problems:
        document.refuse((1, 1), "the file is empty")
    return document


def _place_of(err: UnicodeDecodeError) -> tuple[int, int]:
    return _position(err.object[: err.start].decode(errors="replace"), err.start)


def _position(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _value(node: Node, where: tuple[str | int, ...], document: Document) -> Any:
    document.places[where] = _place(node)
    if node.anchor is not None:  # nothing below it is read: every alias would read it again
        refusal = Problem(
            document.path, *_place(node), "anchors and aliases are not allowed; repeat it"
        )
        if refusal not in document.problems:
            document.problems.append(refusal)
        return None
    if isinstance(node, MappingNode):
        return _mapping(node, where, document)
    if isinstance(node, SequenceNode):
        return [_value(child, (*where, i), document) for i, child in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(node, document)


def _mapping(node: MappingNode, where: tuple[str | int, ...], document: Document) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, ScalarNode) else ""
        if not key:
            message = "a key must be a plain word"
        elif key in content:
            message = f"duplicate key {key!r}"
        elif key == "<<":
            message = "merge keys are not allowed"
        else:
            document.key_places[(*where, key)] = _place(key_node)
            content[key] = _value(value_node, (*where, key), document)
            continue
        document.problems.append(Problem(document.path, *_place(key_node), message))
    return content


def _scalar(node: ScalarNode, document: Document) -> Any:
    text = str(node.value)
    tag = str(node.tag)
    if steering := control_character(text):
        document.refuse(_place(node), f"the control character {steering!r} is not allowed")
        return text
    if node.style is not None:
        return text
    if tag.removeprefix(_PREFIX) not in _IMPLICIT:
        document.problems.append(
            Problem(document.path, *_place(node), f"tag {tag!r} is not allowed")
        )
        return text
    for pattern, advice in _SURPRISES:
        if pattern.fullmatch(text):
            document.problems.append(
                Problem(document.path, *_place(node), f"ambiguous value {text!r} ({advice})")
            )
            return text
    return _resolve(text)


def _resolve(text: str) -> Any:
    """Apply the core schema of YAML 1.2 to a plain scalar."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text
