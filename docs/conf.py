"""The documentation site: `make site` builds it in ``build/site``, and a warning is an error.

The pages are the Markdown files of this folder, which are also read as they are, in a checkout.
The reference is made from the docstrings, which are in reStructuredText: single backticks name a
class or a function (a link, if the reference has it), double backticks are code.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import mbufpools

project = "mbufpools"
author = "The mbufpools authors"
version = release = mbufpools.__version__

extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["examples"]
suppress_warnings = ["ref.python"]  # an annotation names the Wakeup of its own package

html_theme = "furo"
html_title = f"mbufpools {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "github-dark"

myst_heading_anchors = 3

default_role = "py:obj"  # a name that the reference lacks is shown as code
autodoc_default_options = {"members": True, "member-order": "bysource", "undoc-members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"


# fmt: off
RECEIVED = {
    "Pool", "MbufPool", "Buffer", "Buffers", "CpuBuffer", "Reservation", "Holder", "Block",
    "Memory", "MappedMemory", "AccountedMemory", "PoolsStatistics", "PoolStatistics",
    "BudgetStatistics", "TaskQueueStatistics", "WaitStatistics", "CacheStatistics", "Explanation",
    "WaitingRequest", "Event", "Wakeup", "Order", "Reclaim", "CurPage", "Drain", "EventKind",
    "ByteBoundSendStream", "ByteBoundReceiveStream", "ByteBoundStreamStatistics", "Exploration",
    "Failure", "ScheduledStep", "TaskInfo", "Hooks", "Explore", "Explored", "Verdict", "Finding",
    "Ending", "Rules", "Trace", "Charge", "Look", "Mark", "Caches",
}
# fmt: on
"""Classes whose objects a user receives, or whose fields say all: shown without a constructor."""

SECTIONS = Config(napoleon_numpy_docstring=False, napoleon_use_rtype=False)
"""How the sections of a docstring (``Args:``, ``Raises:``) are written."""


def setup(app: Sphinx) -> None:
    """Connect what autodoc does not do by itself."""
    app.connect("autodoc-process-docstring", document)
    app.connect("autodoc-process-signature", shorten_signature)
    for name in mbufpools.__all__:
        value = getattr(mbufpools, name)
        if isinstance(value, enum.EnumMeta):
            describe_members(value)


def describe_members(kind: enum.EnumMeta) -> None:
    """Have autodoc find what the docstring of an enum says of its members. It asks no function for
    the docstring of a member, and takes the string below the member in the source, if there is one.
    """
    source = ModuleAnalyzer.for_module(kind.__module__)
    found = source.find_attr_docs()
    for member in kind.__members__:
        found[kind.__name__, member] = line_of_attribute(
            f"{kind.__module__}.{kind.__name__}.{member}"
        )


def document(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Find the docstring of a constant, and turn the sections of any docstring into fields.

    Sphinx's own extension for the sections would take the first words of "Bytes: the most ever
    charged at once" for the type of the attribute.
    """
    if what == "data":
        lines[:] = string_below(name, value)
    if what == "class" and (
        is_dataclass(value) or hasattr(value, "_fields") or issubclass(value, enum.Enum)
    ):
        lines[:] = ATTRIBUTES.split("\n".join(lines), maxsplit=1)[0].split("\n")
    if what == "attribute":  # a NamedTuple says "Alias for field number 0" of its own
        lines[:] = line_of_attribute(name) or lines
    if not what.startswith("attr"):
        lines[:] = GoogleDocstring(list(lines), SECTIONS, what="method").lines()


ATTRIBUTES = re.compile(r"^Attributes:\n", re.MULTILINE)
"""Begins the list of the fields in the docstring of a dataclass or a NamedTuple, or of the members
of an enum, for `help`. It is the last section. In the reference each of its entries stands at its
field or member."""


def line_of_attribute(name: str) -> list[str]:
    """Return what the docstring of a class says of one of its fields, or nothing."""
    module, owner, attribute = name.rsplit(".", 2)
    text = inspect.getdoc(getattr(sys.modules.get(module), owner, None)) or ""
    section = ATTRIBUTES.split(text, maxsplit=1)[1:]
    found = re.search(rf"^ {{4}}{attribute}: (.*(?:\n {{8}}.*)*)", "".join(section), re.MULTILINE)
    return [" ".join(found[1].split())] if found else []


def string_below(name: str, value: Any) -> list[str]:
    """Return the lines of the string below the assignment of a constant or of a type alias.

    Autodoc looks for it only in the module that the reference names, and the name may be exported
    from there, and assigned in another one.
    """
    package, _, attribute = name.rpartition(".")
    for module in (package, *sorted(m for m in sys.modules if m.startswith("mbufpools."))):
        if getattr(import_module(module), attribute, None) is not value:
            continue
        try:
            found = ModuleAnalyzer.for_module(module).find_attr_docs()
        except PycodeError:
            continue
        if ("", attribute) in found:
            return list(found["", attribute])
    return []


def shorten_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leave out constructors that users do not call, and parameters whose names begin with an
    underscore."""
    if what == "class" and name.rpartition(".")[2] in RECEIVED:
        return "", ""
    if signature and "_" in signature:
        return re.sub(r"\b_\w+: [^,()]*, /(, )?", "", signature), returned
    return None
