"""Redirects functions of C, such as `time.monotonic`, wherever a program holds them.

A program may hold a clock in a variable of a module, a class, an instance, a list, a tuple, a
closure, `functools.partial`, `dataclasses.field(default_factory=time.time)`, or in an object that
is written in C. All of them refer to one object. So the lab does not look for them: for as long as
it explores, it changes that object, so that a call of it is a call of a function in Python.

CPython keeps in the object a pointer to a `PyMethodDef` (which C function is called, and how), the
first argument of that C function, and a shortcut for calls. A redirected object has a `PyMethodDef`
of the lab, whose C function is `PyObject_Call`, and as the first argument a callable of the lab.
The identity of the object, its name, and how it is pickled stay. Its hash differs meanwhile, so a
dict that has the function as a key does not find it in an execution.

The methods of a class that is written in C, which no assignment can change, are replaced in the
dictionary of the class, on CPython; other implementations keep the real ones.

Invariants:

- The layout of the object is checked before. Where it is another one (another implementation than
  CPython, or a release to come), or where there is no interpreter lock, the function is replaced by
  name, and so are the copies that modules hold (`_replaced`).
- The object is changed by one call in C, which does not release the interpreter lock. So a call in
  another thread sees the object before or after, never in between.
- The lab itself holds `real` functions, which are never redirected.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ._replaced import original, replaced

__all__ = ["calls_same", "methods_replaced", "real", "redirect", "redirected"]


class _MethodDef(ctypes.Structure):
    """`PyMethodDef`, which is documented."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Function(ctypes.Structure):
    """`PyCFunctionObject`, after what every object begins with."""

    _fields_ = (
        ("definition", ctypes.POINTER(_MethodDef)),
        ("self", ctypes.c_void_p),
        ("module", ctypes.c_void_p),
        ("weak_references", ctypes.c_void_p),
        ("vectorcall", ctypes.c_void_p),
    )


_HEAD = object.__basicsize__
_SIZE = ctypes.sizeof(_Function)
_VARARGS_AND_KEYWORDS = 1 | 2  # METH_VARARGS and METH_KEYWORDS
_CAN = (
    sys.implementation.name == "cpython"
    and getattr(sys, "_is_gil_enabled", lambda: True)()
    and types.BuiltinFunctionType.__basicsize__ == _HEAD + _SIZE
)
_call = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value if _CAN else None


class _Target(types.ModuleType):
    """The first argument of a redirected function: what is called in its place.

    Python writes, names and pickles a C function by its name alone if this is a module.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        super().__init__(name)
        self.function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)


def _can_redirect(function: object) -> bool:
    """Return True if this is a C function whose layout is the one that is known."""
    if not _CAN or type(function) is not types.BuiltinFunctionType:
        return False
    definition = _Function.from_address(id(function) + _HEAD).definition.contents
    ask = ctypes.pythonapi.PyCFunction_GetFunction
    ask.restype, ask.argtypes = ctypes.c_void_p, (ctypes.py_object,)
    return bool(
        definition.name == function.__name__.encode() and definition.function == ask(function)
    )


def real(function: Any) -> Any:
    """Return a function that does what a C function does, and is never redirected."""
    if not _can_redirect(function):
        return function
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    it = _Function.from_address(id(function) + _HEAD)
    return make(it.definition, ctypes.c_void_p(it.self), ctypes.c_void_p(it.module))


def calls_same(function: object, other: object) -> bool:
    """Return True if two C functions are bound to different objects, or to one, and are the same
    otherwise."""
    if not (_can_redirect(function) and _can_redirect(other)):
        return False
    one, two = (_Function.from_address(id(it) + _HEAD).definition for it in (function, other))
    return ctypes.addressof(one.contents) == ctypes.addressof(two.contents)


def redirect(function: Any, target: Callable[..., Any]) -> Callable[[], None]:
    """Make each call of a C function a call of `target`; return what puts it back.

    What is returned has to be kept until it is called.
    """
    place = (ctypes.c_char * _SIZE).from_address(id(function) + _HEAD)
    before = place.raw
    callable_ = target
    if isinstance(target, types.FunctionType):
        callable_ = _Target(function.__name__, target)
    new = _Function.from_buffer_copy(before)
    old = new.definition.contents
    definition = _MethodDef(old.name, _call, _VARARGS_AND_KEYWORDS, old.doc)
    new.definition, new.self, new.vectorcall = ctypes.pointer(definition), id(callable_), None
    # The object refers to its first argument, and the garbage collector counts references.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(callable_))
    place.raw = bytes(new)
    kept = [function, callable_, definition]

    def put_back() -> None:
        place.raw = before
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(callable_))
        kept.clear()

    return put_back


@contextmanager
def redirected(replacements: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Redirect functions, each given by its module, its name and what is called in its place. If a
    test has patched the name, that stays so, and the function of before is redirected."""
    others: list[tuple[Any, str, Any]] = []
    with ExitStack() as stack:
        for owner, name, target in replacements:
            function = original(owner, name)
            if _can_redirect(function):
                stack.callback(redirect(function, target))
            else:
                others.append((owner, name, target))
        if others:
            stack.enter_context(replaced(others))
        yield


@contextmanager
def methods_replaced(replacements: Mapping[type, Mapping[str, Any]]) -> Iterator[None]:
    """Replace methods of classes that are written in C, by class and name; nothing if this is not
    CPython."""
    if sys.implementation.name != "cpython":
        yield
        return
    before: list[tuple[type, dict[str, Any], dict[str, Any]]] = []
    for cls, methods in replacements.items():
        (namespace,) = gc.get_referents(vars(cls))
        before.append((cls, namespace, {name: namespace[name] for name in methods}))
        _update(cls, namespace, methods)
    try:
        yield
    finally:
        for cls, namespace, methods in before:
            _update(cls, namespace, methods)


def _update(cls: type, namespace: dict[str, Any], methods: Mapping[str, Any]) -> None:
    namespace.update(methods)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))  # or a cache would keep the old ones
