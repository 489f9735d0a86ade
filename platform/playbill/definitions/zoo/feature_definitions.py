"""What feature_repo/ says of its views and services, read from its text without importing Feast.

Sources and columns are found as far as they are written down: names and lists of literals, in the file or imported
from another one of the folder. What is computed is left out; only Feast knows it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from playbill.definitions.zoo.yaml_tree import SourcePlace, problem
from playbill.errors import Problem, did_you_mean

VECTORS = {"member_vectors": ("vector",), "title_vectors": ("vector", "bias")}
"""What `playbill.features.own` declares views of published vectors with, and their columns."""
STORED = {"FeatureView", "BatchFeatureView", "StreamFeatureView", *VECTORS}
COMPUTED = {"event_view", "event_function"}
"""What `playbill.features.own` declares views over the event log with."""
VIEWS = {*STORED, "event_view", "OnDemandFeatureView", "LabelView"}
SOURCES = {"FileSource", "PushSource", "KafkaSource", "KinesisSource", "RequestSource"}
DECORATORS = {"on_demand_feature_view", "batch_feature_view", "stream_feature_view", "event_function"}
SERVICE = "FeatureService"
EXTENDED = "extend"
"""What `playbill.features.own` makes a longer service with: `extend(service, name, *views)`."""
WORDS = {"description", "tags", "owner"}
SHOWN = 12
"""Letters of a content hash."""


@dataclass(frozen=True, slots=True)
class FeatureReading:
    """A view or source that something reads."""

    kind: str
    """`feature_view`, `source`, or `feature_service` for one that is extended."""
    name: str
    """Of it."""
    columns: tuple[str, ...] | None = None
    """Those that are read; None = all there are."""


@dataclass(frozen=True, slots=True)
class FeatureDefinition:
    """A view, a source or a feature service."""

    kind: str
    """`feature_view`, `source` or `feature_service`."""
    name: str
    """As Feast knows it."""
    content: str
    """Hash of what it says and of the helpers it names in its file; layout and comments do not count."""
    place: str
    """File and line."""
    columns: tuple[str, ...] = ()
    """Its columns, as far as they are written down."""
    reads: tuple[FeatureReading, ...] = ()
    """Views and sources it is made of."""
    label: str | None = None
    """The label whose values a LabelView holds."""
    made_by: str = ""
    """What it is declared with, such as `FeatureView` or `event_view`."""

    @property
    def computed(self) -> bool:
        """Whether `features build` computes it from the event log by what feature_repo says."""
        return self.made_by in COMPUTED

    @property
    def stored(self) -> bool:
        """Whether it is a view with values of its own."""
        return self.computed or self.made_by in STORED


@dataclass(frozen=True)
class FeatureRepo:
    """Every definition of a folder, by kind and name."""

    definitions: Mapping[tuple[str, str], FeatureDefinition]

    def service_hashes(self, service: str) -> dict[str, str]:
        """Return view -> content hash of every view behind a service; nothing for an unknown one."""
        found: dict[str, str] = {}
        definition = self.definitions.get(("feature_service", service))
        waiting = [*definition.reads] if definition else []
        while waiting:
            reading = waiting.pop()
            view = self.definitions.get((reading.kind, reading.name))
            if view is not None and view.kind == "feature_service":
                waiting += view.reads
            elif view is not None and view.kind == "feature_view" and view.name not in found:
                found[view.name] = view.content
                waiting += view.reads
        return dict(sorted(found.items()))


def read_feature_repo(folder: Path) -> FeatureRepo:
    """Read a folder. Files that are no Python are left out: `scan_feature_repo` reports them."""
    modules = _modules(folder)
    found: dict[tuple[str, str], FeatureDefinition] = {}
    for module in modules.values():
        for definition in _definitions(module, modules):
            found.setdefault((definition.kind, definition.name), definition)
    return FeatureRepo(found)


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder, hidden ones left out, in order."""
    for path in sorted(folder.rglob("*.py")):
        if not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts):
            yield path


def _modules(folder: Path) -> dict[str, _Module]:
    modules = {}
    for path in python_files(folder):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        modules[path.stem] = _Module(tree, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return modules


def service_problems(folder: Path) -> Iterator[Problem]:
    """Return what is wrong with what services are made of: names that are not there, columns that views lack."""
    modules = _modules(folder)
    for module in modules.values():
        for statement in module.tree.body:
            for call, kind in _calls(statement):
                if kind == "feature_service":
                    yield from _service_problems(call, module, modules)


def _service_problems(call: ast.Call, module: _Module, modules: Mapping[str, _Module]) -> Iterator[Problem]:
    for reading, item in _readings(call, module, modules):
        place = SourcePlace(module.place, item.lineno, item.col_offset + 1)
        what = item.value if isinstance(item, ast.Subscript) else item
        if reading is not None:
            columns = _columns_of(what, module, modules)
            for column in reading.columns or ():
                if columns and column not in columns:
                    hint = did_you_mean(column, columns, f"It has {', '.join(columns)}.")
                    yield problem(place, (), f"view '{reading.name}' has no column '{column}'", hint)
        elif isinstance(what, ast.Name):
            known = sorted({*module.names, *module.imported})
            home, name = _home(what.id, module, modules)
            others = [name for name in (*known, *_all_names(modules)) if name != what.id]
            if what.id not in known or (home is not None and home is not module and name not in home.names):
                yield problem(place, (), f"'{what.id}' is not defined", did_you_mean(what.id, others))


def _columns_of(node: ast.expr, module: _Module, modules: Mapping[str, _Module]) -> tuple[str, ...]:
    home, name = _home(node.id, module, modules) if isinstance(node, ast.Name) else (None, "")
    statement = home.names.get(name) if home else None
    call = next((call for call, kind in _calls(statement) if kind == "feature_view"), None) if statement else None
    return () if call is None else _schema(call)


def _all_names(modules: Mapping[str, _Module]) -> list[str]:
    return [name for module in modules.values() for name in module.names]


@dataclass
class _Module:
    """A file: its top-level names, and where imported ones come from."""

    tree: ast.Module
    place: str
    names: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for statement in self.tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    self.names[name] = statement
                case ast.FunctionDef(name=name):
                    self.names[name] = statement
                case ast.ImportFrom(module=str(module), names=aliases):
                    for alias in aliases:
                        self.imported[alias.asname or alias.name] = module, alias.name


def _definitions(module: _Module, modules: Mapping[str, _Module]) -> Iterator[FeatureDefinition]:
    for statement in module.tree.body:
        for call, kind in _calls(statement):
            name = _name_of(call, statement, module)
            if name is None:
                continue
            reads = tuple(reading for reading, _ in _readings(call, module, modules) if reading is not None)
            label = (
                name.removeprefix("label_") if called(call.func) == "LabelView" and name.startswith("label_") else None
            )
            yield FeatureDefinition(
                kind,
                name,
                _content(statement, module, modules),
                f"{module.place}:{statement.lineno}",
                _schema(call),
                reads,
                label,
                called(call.func),
            )


def _calls(statement: ast.stmt) -> Iterator[tuple[ast.Call, str]]:
    """Return the definitions that a statement makes, also those inside others such as a push source's batch source."""
    if isinstance(statement, ast.FunctionDef):
        calls = (decorator for decorator in statement.decorator_list if isinstance(decorator, ast.Call))
        yield from ((call, "feature_view") for call in calls if called(call.func) in DECORATORS)
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and (kind := _kind(node)):
            yield node, kind


def _kind(call: ast.Call) -> str | None:
    name = called(call.func)
    if name in VIEWS:
        return "feature_view"
    if name in SOURCES:
        return "source"
    return "feature_service" if name == SERVICE or _extends(call) else None


def _extends(call: ast.Call) -> bool:
    # A method `extend` of a list is something else.
    return isinstance(call.func, ast.Name) and call.func.id == EXTENDED and bool(call.args)


def called(function: ast.expr) -> str:
    """Return the name by which an expression calls a function, or nothing."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def keyword(call: ast.Call, *names: str) -> ast.expr | None:
    """Return the first keyword argument of these names."""
    return next((argument.value for argument in call.keywords if argument.arg in names), None)


def _name_of(call: ast.Call, statement: ast.stmt, module: _Module) -> str | None:
    own = call.args[1:] if _extends(call) else call.args
    given = keyword(call, "name") or (own[0] if own else None)
    if given is None and isinstance(statement, ast.FunctionDef):
        return statement.name
    return _text(given, module)


def _text(node: ast.expr | None, module: _Module) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            match module.names.get(name):
                case ast.Assign(value=ast.Constant(value=str(text))):
                    return text
                case ast.AnnAssign(value=ast.Constant(value=str(text))):
                    return text
    return None


def _schema(call: ast.Call) -> tuple[str, ...]:
    if (name := called(call.func)) in VECTORS:
        return VECTORS[name]
    schema = keyword(call, "schema", "values") if called(call.func) in COMPUTED else keyword(call, "schema")
    if isinstance(schema, ast.Dict):
        return tuple(key.value for key in schema.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
    if not isinstance(schema, ast.List):
        return ()
    fields = (item for item in schema.elts if isinstance(item, ast.Call))
    names = (keyword(item, "name") or (item.args[0] if item.args else None) for item in fields)
    return tuple(node.value for node in names if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _readings(
    call: ast.Call, module: _Module, modules: Mapping[str, _Module]
) -> Iterator[tuple[FeatureReading | None, ast.expr]]:
    """Return what a call reads, None where that is not known, and where it says so."""
    if _extends(call):
        items = [call.args[0], *(call.args[1:] if keyword(call, "name") else call.args[2:])]
    else:
        given = keyword(call, "features", "sources", "source", "batch_source")
        items = given.elts if isinstance(given, ast.List | ast.Tuple) else [given] if given is not None else []
    for item, home in _spread(items, module, modules):
        columns, what = None, item
        if isinstance(item, ast.Subscript):
            columns, what = _columns(item.slice), item.value
        referred = _referred(what, home, modules)
        yield (None if referred is None else FeatureReading(*referred, columns)), item if home is module else call


def _spread(
    items: Iterable[ast.expr], module: _Module, modules: Mapping[str, _Module]
) -> Iterator[tuple[ast.expr, _Module]]:
    """Return items, in place of `*LIST` those of the list, each with the module that its names are of."""
    for item in items:
        home, value = (module, item.value) if isinstance(item, ast.Starred) else (None, None)
        if isinstance(value, ast.Name):
            home, name = _home(value.id, module, modules)
            value = getattr(home.names.get(name), "value", None) if home else None
        if home is not None and isinstance(value, ast.List | ast.Tuple):
            yield from _spread(value.elts, home, modules)
        else:
            yield item, module


def _columns(node: ast.expr) -> tuple[str, ...] | None:
    if not isinstance(node, ast.List):
        return None
    return tuple(item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str))


def _referred(node: ast.expr | None, module: _Module, modules: Mapping[str, _Module]) -> tuple[str, str] | None:
    """Return kind and Feast name of what an expression is: a call, or a variable of this file or another one."""
    if isinstance(node, ast.Call) and (kind := _kind(node)):
        name = _name_of(node, ast.Expr(node), module)
        return None if name is None else (kind, name)
    if not isinstance(node, ast.Name):
        return None
    home, variable = _home(node.id, module, modules)
    statement = home.names.get(variable) if home else None
    if home is None or statement is None:
        return None
    call, kind = next(_calls(statement), (None, ""))
    name = None if call is None else _name_of(call, statement, home)
    return None if name is None else (kind, name)


def _home(name: str, module: _Module, modules: Mapping[str, _Module]) -> tuple[_Module | None, str]:
    if name in module.imported:
        other, original = module.imported[name]
        return modules.get(other.rpartition(".")[2]), original
    return module, name


def _content(statement: ast.stmt, module: _Module, modules: Mapping[str, _Module]) -> str:
    """Hash a statement and the helpers it names, but not other definitions: those have hashes of their own."""
    seen: dict[str, str] = {}
    waiting = [(statement, module)]
    while waiting:
        current, own = waiting.pop()
        for node in ast.walk(current):
            if not isinstance(node, ast.Name):
                continue
            home, name = _home(node.id, own, modules)
            helper = home.names.get(name) if home else None
            if home is None or helper is None or helper is statement or any(_calls(helper)):
                continue
            key = f"{home.place}:{name}"
            if key not in seen:
                seen[key] = _normalised(helper)
                waiting.append((helper, home))
    text = "\n".join([_normalised(statement), *(seen[key] for key in sorted(seen))])
    return hashlib.sha256(text.encode()).hexdigest()[:SHOWN]


class _WithoutWords(ast.NodeTransformer):
    """Takes out what decides no value: descriptions, tags, owners and docstrings."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in WORDS]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)


def _normalised(statement: ast.stmt) -> str:
    # The tree is needed again with its words, and a copy through its text drops comments and layout.
    return ast.unparse(_WithoutWords().visit(ast.parse(ast.unparse(statement))))
