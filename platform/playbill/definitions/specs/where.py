"""The small language of a label's `where`: comparisons of columns, joined by `and`, `or`, `not`.

    prior_plays_of_title = 0 and progress >= 0.1
    event_at >= "1998-01-01T00:00:00Z"
    device in ("tv", "phone") and not (country = 'ZZ')

Columns are those of the canonical `interactions` table and the derived ones in `schema.DERIVED_COLUMNS`.
A comparison with a null is neither true nor false, so neither it nor its negation ever matches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from playbill.clock import parse_moment
from playbill.errors import ConfigError, did_you_mean
from playbill.schema import DERIVED_COLUMNS, INTERACTIONS

ValueType = Literal["text", "number", "moment"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]

_GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation -> negated
         | "(" disjunction ")"
         | NAME OPERATOR value -> comparison
         | NAME _IN "(" value ("," value)* ")" -> membership
         | NAME _NOT _IN "(" value ("," value)* ")" -> exclusion
?value: NUMBER | TEXT | NAME
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">"
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
TEXT: /'[^'\n]*'/ | /"[^"\n]*"/
_AND.2: /and\b/i
_OR.2: /or\b/i
_NOT.2: /not\b/i
_IN.2: /in\b/i
NAME: /[A-Za-z_][A-Za-z0-9_]*/
%import common.WS
%ignore WS
"""

_SPOKEN = {
    "NAME": "a column",
    "OPERATOR": "a comparison (= != < <= > >=)",
    "NUMBER": "a number",
    "TEXT": "text in quotes",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "_NOT": "'not'",
    "_AND": "'and'",
    "_OR": "'or'",
    "_IN": "'in'",
    "$END": "the end",
}
_NO_VALUE = ("null", "none", "nan")
_COLUMN_TYPES: dict[str, ValueType] = {
    "string": "text",
    "timestamp": "moment",
    "int32": "number",
    "int64": "number",
    "float32": "number",
    "float64": "number",
}


class WhereError(ValueError):
    """A mistake in a `where`, with its position and, for a name, the nearest right one."""

    def __init__(self, text: str, position: int, message: str, hint: str = "") -> None:
        self.text, self.position, self.message, self.hint = text, position, message, hint
        super().__init__(text, position, message, hint)

    def __str__(self) -> str:
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.message} at character {self.position + 1}.{hint}\n{self.pointer}"

    @property
    def pointer(self) -> str:
        """The expression on one line and a caret under the mistake on the next."""
        return f"    {self.text}\n    {' ' * self.position}^"


@dataclass(frozen=True, slots=True)
class ColumnName:
    """A column on the right of a comparison."""

    name: str


Literals = str | float | int | datetime
Value = Literals | ColumnName


@dataclass(frozen=True, slots=True)
class WhereComparison:
    """`column operator value`."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Membership:
    """`column in (values)`, or `not in` when excluded."""

    column: str
    values: tuple[Literals, ...]
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of an expression; unknown stays unknown."""

    item: Expression


@dataclass(frozen=True, slots=True)
class Every:
    """All of the expressions, `and`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of the expressions at least, `or`."""

    items: tuple[Expression, ...]


Expression = WhereComparison | Membership | Not | Every | Either


def columns() -> dict[str, ValueType]:
    """Return every column a `where` may name and the type of its values."""
    own = {column.name: _COLUMN_TYPES[column.type] for column in INTERACTIONS.columns}
    return own | dict.fromkeys(DERIVED_COLUMNS, "number")


@cache
def parse_where(text: str) -> Expression:
    """Read an expression.

    Raises:
        WhereError: It does not follow the grammar, names an unknown column, or compares unlike types.
    """
    try:
        return _WhereReader(text).expression(_parser().parse(text))
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    except RecursionError:
        raise WhereError(text, 0, "the expression is nested too deeply") from None


def column_names(expression: Expression) -> frozenset[str]:
    """Return every column an expression reads."""
    match expression:
        case WhereComparison(column, _, ColumnName(other)):
            return frozenset((column, other))
        case WhereComparison(column) | Membership(column):
            return frozenset((column,))
        case Not(item):
            return column_names(item)
        case Every(items) | Either(items):
            return frozenset().union(*map(column_names, items))


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", propagate_positions=True)


def _syntax_error(text: str, error: Any) -> WhereError:
    match error:
        case UnexpectedCharacters():
            position = error.pos_in_stream
            message = f"unexpected '{text[position]}'"
            expected = error.allowed or ()
        case UnexpectedToken() if error.token.type != "$END":
            position = error.token.start_pos
            message = f"unexpected '{error.token}'"
            expected = error.accepts or error.expected
        case UnexpectedToken() | UnexpectedEOF() | _:
            position = len(text)
            message = "the expression ends too early"
            expected = getattr(error, "accepts", None) or error.expected
    if message == "unexpected '='" and text[position - 1 : position] == "=":
        return WhereError(text, position, message, "Equality is a single '='.")
    *spoken, last = [words for name, words in _SPOKEN.items() if name in expected] or [""]
    wanted = f"{', '.join(spoken)} or {last}" if spoken else last
    return WhereError(text, position, message, f"Expected {wanted}." if wanted else "")


class _WhereReader:
    """Turns one parse tree into an expression, checking names and types on the way."""

    def __init__(self, text: str) -> None:
        self._text, self._columns = text, columns()

    def expression(self, tree: Any) -> Expression:
        if isinstance(tree, Token):
            raise WhereError(self._text, tree.start_pos, f"'{tree}' is not compared with anything")
        return self._rules[tree.data](self, tree)

    def _comparison(self, tree: Tree[Token]) -> Expression:
        name, operator, value = tree.children
        return WhereComparison(self._column(name), str(operator), self._value(name, value))  # type: ignore[arg-type]

    def _membership(self, tree: Tree[Token]) -> Expression:
        name, *values = tree.children
        column = self._column(name)
        read = tuple(self._literal(name, value) for value in values)
        return Membership(column, read, excluded=tree.data == "exclusion")

    def _negated(self, tree: Tree[Token]) -> Expression:
        return Not(self.expression(tree.children[0]))

    def _conjunction(self, tree: Tree[Token]) -> Expression:
        return Every(tuple(map(self.expression, tree.children)))

    def _disjunction(self, tree: Tree[Token]) -> Expression:
        return Either(tuple(map(self.expression, tree.children)))

    def _column(self, token: Any) -> str:
        name = str(token)
        if name not in self._columns:
            hint = did_you_mean(name, self._columns, f"Columns: {', '.join(sorted(self._columns))}.")
            hint = "What is not known never matches, nor does its opposite." if name.lower() in _NO_VALUE else hint
            raise WhereError(self._text, token.start_pos, f"unknown column '{name}'", hint)
        return name

    def _value(self, column: Any, token: Any) -> Value:
        if token.type != "NAME":
            return self._literal(column, token)
        if self._columns[str(column)] == "text" and str(token) not in self._columns and str(token) not in _NO_VALUE:
            raise WhereError(self._text, token.start_pos, f"'{token}' is no column", f"Text goes in quotes: '{token}'.")
        other = self._column(token)
        self._require(column, token, self._columns[other])
        return ColumnName(other)

    def _literal(self, column: Any, token: Any) -> Literals:
        match token.type:
            case "NUMBER":
                self._require(column, token, "number")
                return float(token) if any(mark in token for mark in ".eE") else int(token)
            case "TEXT" if self._columns[str(column)] == "moment":
                return self._moment(token)
            case "TEXT":
                self._require(column, token, "text")
                return str(token)[1:-1]
            case _:
                raise WhereError(self._text, token.start_pos, f"'{token}' must be a number or text in quotes")

    def _moment(self, token: Any) -> datetime:
        try:
            return parse_moment(str(token)[1:-1])
        except ConfigError as error:
            raise WhereError(self._text, token.start_pos, str(error)) from None

    def _require(self, column: Any, token: Any, found: ValueType) -> None:
        wanted = self._columns[str(column)]
        if found != wanted:
            message = f"column '{column}' holds a {wanted}, but {token} is a {found}"
            raise WhereError(self._text, token.start_pos, message.replace("a text", "text"))

    _rules: dict[str, Callable[[_WhereReader, Any], Expression]] = {  # noqa: RUF012
        "comparison": _comparison,
        "membership": _membership,
        "exclusion": _membership,
        "negated": _negated,
        "conjunction": _conjunction,
        "disjunction": _disjunction,
    }
