"""A bundle's JSON read as data. MONAI would run its ``$expressions``; here none is ever evaluated.

References (``@key#0#sub``), macros (``%key``) and the few forms of expression that say plain data in another way are
understood by their syntax tree: literals, a reference with ``.to(...)``, a conditional on a reference that is true or
false, ``not``, joined texts, and a call of a dotted name, which becomes the ``_target_`` it stands for. Anything else
stays an `Unknown` and is refused where somebody needs it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from tomolens.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_JSON = 20 * 2**20
DEEPEST = 64
MOST_REFERENCES = 20_000
MOST_VALUES = 200_000
LONGEST_TEXT = 4096
"""Characters of a text that another is joined to: paths are shorter, and doubled ones fill any memory."""
_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_PLACEMENT = ("to", "cuda", "cpu", "eval")
"""Methods of a network that change where it runs, not what it is."""


@dataclass(frozen=True)
class Unknown:
    """An expression that says more than plain data."""

    expression: str


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises
    ------
    ModelError
        If it is missing, too large or too deep, or no JSON object.
    """
    if not file.is_file():
        raise ModelError(f"There is no {file.name} in {file.parent}.")
    if file.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{file.name} is {file.stat().st_size} bytes; at most {LARGEST_JSON} are read.")
    try:
        text = file.read_text(encoding="utf-8")
        _check_depth(text, file.name)
        values = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(values, ensure_ascii=False).encode("utf-8")  # \ud800 alone is JSON and no text
    except (ValueError, OSError) as broken:
        raise ModelError(f"{file.name} is not JSON: {broken}.") from broken
    if not isinstance(values, dict):
        raise ModelError(f"{file.name} holds a {type(values).__name__}; a bundle's file holds an object.")
    return values


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _finite(word: str) -> float:
    return float(word) if isfinite(float(word)) else _no_constant(word)


def _check_depth(text: str, name: str) -> None:
    """Count brackets outside texts before anything is built of them, which takes a minute for what is deep and wide."""
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(bracket[0], 0)
        if depth > DEEPEST:
            raise ModelError(f"{name} is nested more than {DEEPEST} levels deep.")


class Config:
    """One JSON file of a bundle.

    Parameters
    ----------
    values
        The object in the file.
    name
        The file's name, for messages.
    """

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self._values, self.name = values, name
        self._followed_so_far = self._read_so_far = 0

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def at(self, *path: str | int) -> Any:
        """What stands there, with every reference followed; plain data and `Unknown`.

        Raises
        ------
        ModelError
            If there is nothing, or the references go round in a circle.
        """
        self._followed_so_far = self._read_so_far = 0
        return self._resolved(self._raw(path, self.where(*path)), ())

    def raw(self, *path: str | int) -> Any:
        """What stands there as it is written."""
        return self._raw(path, self.where(*path))

    def where(self, *path: str | int) -> str:
        """How a message names a place: ``inference.json: preprocessing.transforms[3]``."""
        words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        return f"{self.name}: {words.removeprefix('.')}"

    def _raw(self, path: tuple[str | int, ...], where: str, depth: int = 0) -> Any:
        if depth > DEEPEST:
            raise ModelError(f"{where}: its references go round in a circle.")
        value: Any = self._values
        for part in path:
            if isinstance(value, str) and value[:1] in "@%":
                value = self._raw(_path(value[1:]), where, depth + 1)
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as missing:
                raise ModelError(f"{where}: there is no such key.") from missing
        return value

    def _resolved(self, value: Any, seen: tuple[str, ...], depth: int = 0) -> Any:
        self._read_so_far += 1
        if len(seen) > DEEPEST or depth > DEEPEST or self._read_so_far > MOST_VALUES:
            raise ModelError(
                f"{self.name}: the references {', '.join(seen[:4])} lead in a circle, too deep or too far."
            )
        if isinstance(value, dict):
            return {key: self._resolved(part, seen, depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self._resolved(part, seen, depth + 1) for part in value]
        if isinstance(value, str) and value.startswith("$"):
            return self._read(value[1:], seen, depth)
        if isinstance(value, str) and (value.startswith("%") or _REFERENCE.fullmatch(value)):
            return self._followed(value[1:], seen, depth)
        return value

    def _followed(self, reference: str, seen: tuple[str, ...], depth: int) -> Any:
        self._followed_so_far += 1
        if self._followed_so_far > MOST_REFERENCES:
            raise ModelError(f"{self.name}: more than {MOST_REFERENCES} references are followed for one value.")
        if reference in seen:
            raise ModelError(f"{self.name}: the references {' -> '.join((*seen, reference))} go round in a circle.")
        path = _path(reference)
        return self._resolved(
            self._raw(path, f"{self.name}: the reference @{reference}"), (*seen, reference), depth + 1
        )

    def _read(self, expression: str, seen: tuple[str, ...], depth: int) -> Any:
        names: dict[str, str] = {}

        def stand_in(match: re.Match[str]) -> str:
            return names.setdefault(match[1], f"reference_{len(names)}_")

        try:
            tree = ast.parse(_REFERENCE.sub(stand_in, expression).strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Unknown(f"${expression}")
        references = {stands: reference for reference, stands in names.items()}
        try:
            return _Syntax(self, references, seen, depth, expression).value(tree.body)
        except RecursionError:
            return Unknown(f"${expression}")


class _Syntax:
    """One expression's tree turned to plain data, as far as it says such."""

    def __init__(
        self, config: Config, references: Mapping[str, str], seen: tuple[str, ...], depth: int, text: str
    ) -> None:
        self._config, self._references, self._seen, self._depth = config, references, seen, depth
        self._unknown = Unknown(f"${text}")

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None as constant):
                return constant
            case ast.Name(id=name) if name in self._references:
                return self._config._followed(self._references[name], self._seen, self._depth)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self.value(part) for part in parts]
            case ast.UnaryOp(op=operator, operand=operand):
                return self._signed(operator, self.value(operand))
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                chosen = self.value(test)
                return self.value(body if chosen else otherwise) if isinstance(chosen, bool) else self._unknown
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                texts = (self.value(left), self.value(right))
                is_text = all(isinstance(text, str) and len(text) <= LONGEST_TEXT for text in texts)
                return "".join(texts) if is_text else self._unknown
            case ast.Call():
                return self._called(node)
        return self._unknown

    def _signed(self, operator: ast.unaryop, operand: Any) -> Any:
        if isinstance(operator, ast.Not) and isinstance(operand, bool):
            return not operand
        is_number = isinstance(operand, int | float) and not isinstance(operand, bool)
        return -operand if isinstance(operator, ast.USub) and is_number else self._unknown

    def _called(self, call: ast.Call) -> Any:
        """A call as the ``_target_`` that it stands for; ``.method`` of a reference keeps what it is a method of."""
        if any(keyword.arg is None for keyword in call.keywords):
            return self._unknown
        arguments: dict[str, Any] = {str(word.arg): self.value(word.value) for word in call.keywords}
        if call.args:
            arguments["_args_"] = [self.value(argument) for argument in call.args]
        match call.func:
            case ast.Attribute(value=ast.Name(id=name), attr=method) if name in self._references:
                of = self._config._followed(self._references[name], self._seen, self._depth)
                return of if method in _PLACEMENT else {"_target_": f".{method}", **arguments}
            case ast.Attribute() | ast.Name():
                dotted = ast.unparse(call.func)
                return {"_target_": dotted, **arguments} if re.fullmatch(r"\w+(\.\w+)*", dotted) else self._unknown
        return self._unknown


def _path(reference: str) -> tuple[str | int, ...]:
    return tuple(reference.replace("::", "#").split("#"))


def only_data(value: Any, where: str) -> Any:
    """The value, if no expression is left in it.

    Raises
    ------
    ModelError
        With the place and the expression.
    """
    if isinstance(value, Unknown):
        raise ModelError(f"{where}: the expression {value.expression!r} is not evaluated, and its value is needed.")
    for key, part in enumerate(value) if isinstance(value, list) else getattr(value, "items", tuple)():
        only_data(part, f"{where}[{key}]" if isinstance(value, list) else f"{where}.{key}")
    return value
