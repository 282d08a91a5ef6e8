"""Which attributes of the core change after their object was made, read from the source.

It is read from the syntax trees, and not from a run, so it does not depend on what a workload
happens to do. Two kinds of attributes change:

- One that is set or deleted outside of the constructor of its object, through `self` or through any
  other expression, such as ``queue.supply.nwait += 1``. An expression tells no class, so such an
  assignment counts for each class that has an attribute of this name.
- One that holds an object which is changed in place: a container, or an iterator. It counts
  wherever a constructor makes one, whether or not anything changes it.

Not seen is a name that is computed (`setattr`), which `computed_names` finds.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mbufpools
from mbufpools._request import RequestQueue

__all__ = ["Attribute", "Store", "changed_in_place", "computed_names", "set_later", "stores"]

CONSTRUCTORS = ("__init__", "_wire")
"""`BufferPools.__init__` calls `BufferPools._wire`."""
LEFT_OUT = ("__init__", "__main__", "_lab_hooks", "examples")
IN_PLACE: tuple[type, ...] = (
    collections.abc.Iterator,
    collections.abc.MutableMapping,
    collections.abc.MutableSequence,
    collections.abc.MutableSet,
    RequestQueue,
)
DISPLAYS = (ast.List, ast.ListComp, ast.Dict, ast.DictComp, ast.Set, ast.SetComp, ast.GeneratorExp)


class Attribute(NamedTuple):
    """An attribute, in the class that has it first."""

    module: str
    cls: str
    name: str

    def __str__(self) -> str:
        return f"{self.cls}.{self.name}, of {self.module}"


class Store(NamedTuple):
    """An assignment to an attribute, or its deletion."""

    attribute: str
    cls: str | None
    """The class around it, if it is set through `self`; else None."""
    constructs: bool
    """True if it is set through `self` by the constructor itself, and not by a function in it."""


def stores(tree: ast.AST, cls: str | None = None, method: str = "") -> Iterator[Store]:
    """Yield each assignment to an attribute, and each deletion of one."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef(name=name):
                yield from stores(node, name)
                continue
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield from stores(node, cls, f"{method}.{name}")
                continue
            case ast.Attribute(value=ast.Name("self"), attr=attribute, ctx=context) if cls:
                if not isinstance(context, ast.Load):
                    yield Store(attribute, cls, method.removeprefix(".") in CONSTRUCTORS)
            case ast.Attribute(attr=attribute, ctx=ast.Store() | ast.Del()):
                yield Store(attribute, None, False)
        yield from stores(node, cls, method)


def _trees() -> dict[str, ast.Module]:
    return {
        f"mbufpools.{path.stem}": ast.parse(path.read_text("utf-8"))
        for path in sorted(Path(mbufpools.__file__).parent.glob("*.py"))
        if path.stem not in LEFT_OUT
    }


TREES = _trees()


def _classes() -> dict[type, set[str]]:
    """The classes of the core whose attributes can be set, each with those that its own code sets
    or names."""
    classes: dict[type, set[str]] = {}
    for module, tree in TREES.items():
        of_self: dict[str, set[str]] = {}
        for store in stores(tree):
            if store.cls is not None:
                of_self.setdefault(store.cls, set()).add(store.attribute)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                cls = getattr(importlib.import_module(module), node.name)
                parameters = getattr(cls, "__dataclass_params__", None)
                if issubclass(cls, tuple) or (parameters is not None and parameters.frozen):
                    continue
                fields = {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                }
                slots = set(cls.__dict__.get("__slots__", ()))
                classes[cls] = slots | fields | of_self.get(node.name, set())
    return classes


CLASSES = _classes()


def _first_with(cls: type, attribute: str) -> Attribute:
    """Name an attribute by the base that has it first."""
    *_, first = (base for base in cls.__mro__ if attribute in CLASSES.get(base, ()))
    return Attribute(first.__module__, first.__name__, attribute)


def set_later() -> set[Attribute]:
    """Return the attributes that are set or deleted outside of a constructor of their object."""
    found: set[Attribute] = set()
    for module, tree in TREES.items():
        for store in stores(tree):
            if store.cls is not None:
                cls = getattr(importlib.import_module(module), store.cls)
                if not store.constructs:
                    found.add(_first_with(cls, store.attribute))
            else:
                found.update(
                    _first_with(cls, store.attribute)
                    for cls, names in CLASSES.items()
                    if store.attribute in names
                )
    return found


def changed_in_place() -> set[Attribute]:
    """Return the attributes in which a constructor puts a container or an iterator."""
    found: set[Attribute] = set()
    for name, tree in TREES.items():
        module = importlib.import_module(name)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                cls = getattr(module, node.name)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name in CONSTRUCTORS:
                        found.update(_first_with(cls, it) for it in _containers(method, module))
    return found


def _containers(method: ast.FunctionDef, module: ModuleType) -> Iterator[str]:
    types = {it.arg: it.annotation for it in (*method.args.args, *method.args.kwonlyargs)}
    for node in ast.walk(method):
        match node:
            case ast.AnnAssign(target=ast.Attribute(ast.Name("self"), name), annotation=kind):
                if _is_container_type(kind, module):
                    yield name
            case ast.Assign(targets=[ast.Attribute(ast.Name("self"), name)], value=value):
                if isinstance(value, ast.Name):
                    if _is_container_type(types.get(value.id), module):
                        yield name
                elif _makes_container(value, module):
                    yield name


def _makes_container(value: ast.expr, module: ModuleType) -> bool:
    match value:
        case ast.BinOp(left=left, right=right) | ast.IfExp(body=left, orelse=right):
            return _makes_container(left, module) or _makes_container(right, module)
        case ast.Call(func=function):
            return ast.unparse(function) == "sorted" or _is_container(function, module)
    return isinstance(value, DISPLAYS)


def _is_container_type(annotation: ast.expr | None, module: ModuleType) -> bool:
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _is_container_type(left, module) or _is_container_type(right, module)
        case ast.Subscript(value=kind):
            return _is_container(kind, module)
        case None:
            return False
    return _is_container(annotation, module)


def _is_container(kind: ast.expr, module: ModuleType) -> bool:
    """Return True if an expression such as ``weakref.WeakSet`` is a class whose objects change."""
    first, *rest = ast.unparse(kind).split(".")
    value: Any = vars(module).get(first, getattr(builtins, first, None))
    for name in rest:
        value = getattr(value, name, None)
    value = getattr(value, "__origin__", value)  # of an alias such as ``Queue = dict[int, str]``
    return isinstance(value, type) and issubclass(value, IN_PLACE)


def computed_names(trees: Iterable[ast.AST] = TREES.values()) -> list[str]:
    """Return the calls that set an attribute whose name stands in no assignment."""
    setting = {"setattr", "delattr", "__setattr__", "__delattr__"}
    return [
        ast.unparse(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in setting
    ]
