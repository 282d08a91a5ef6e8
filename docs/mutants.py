"""Run mutmut on the functions that have changed, keep the results, and compare the survivors with
the page that explains them.

``docs/mutation.md`` lists the mutants that no test can find or needs to find. Each is given under a
reason, as the lines that it changes::

    ```diff
    @@ PageLists.pages @@
    -return chain(self._empty, self._partial, self._full)
    +return chain(self._empty, self._full)
    ```

mutmut renumbers its mutants whenever a function changes, but the lines that they change stay the
same. ``docs/mutants.json`` keeps, for each function, a hash of its code, the number of its mutants
that were found, and the lines of the others. So only functions that have changed since are mutated
again, and a run that is interrupted goes on where it was. (Another release of Python may spell code
in another way; then all functions count as changed.)

`python docs/mutants.py` prints the number of mutants of each module, and each mutant that survived
without an explanation. It exits with 1 if there is one, if the page explains a mutant that did not
survive, or if the run did not come to its end.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "mutation.md"
RECORD = DOCS / "mutants.json"
AT_ONCE = 6
"""Mutants at once: more than there are processors, for those that hang need none."""
DEAD = ("killed", "timeout", "caught by type check", "segfault")
"""mutmut's words for a mutant that was found. The tests of a mutant with a timeout did not end."""
NOT_RUN = ("not checked", "check was interrupted by user")


class Change(NamedTuple):
    """A mutant: the function, and the lines that are removed and added, without indentation."""

    function: str
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"-{line}" for line in self.removed] + [f"+{line}" for line in self.added]
        return "\n".join([f"@@ {self.function} @@", *lines])


@dataclass
class Results:
    """What became of the mutants of a function."""

    code: str
    """The hash of the function when it was mutated."""
    found: int = 0
    survived: list[str] = field(default_factory=list)
    """The lines that each of the others changes, as in a diff."""


def change_of(function: str, diff: str) -> Change:
    """Read the lines of a diff that begin with ``-`` or ``+``, other than its file names."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    return Change(
        function,
        tuple(line[1:].strip() for line in lines if line.startswith("-")),
        tuple(line[1:].strip() for line in lines if line.startswith("+")),
    )


def explained(page: str) -> list[Change]:
    """The mutants that `page` explains, in the order of the page."""
    changes = []
    for block in re.findall(r"^```diff\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        _, *parts = re.split(r"^@@ (\S+) @@\n", block, flags=re.MULTILINE)
        changes += [change_of(*part) for part in zip(parts[::2], parts[1::2], strict=True)]
    return changes


def name_of(mutant: str) -> str:
    """The module and the name of the mutated function, from mutmut's name for the mutant."""
    module, _, mangled = mutant.rpartition("__mutmut_")[0].rpartition(".")
    return f"{module}:{mangled.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def pattern_of(name: str) -> str:
    """mutmut's pattern for all mutants of a function."""
    module, _, function = name.partition(":")
    mangled = f"xǁ{function.replace('.', 'ǁ')}" if "." in function else f"x_{function}"
    return f"{module}.{mangled}__mutmut_*"


def codes_of(module: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each function of a module and of its classes, with a hash of its code.

    Comments and docstrings do not count, for mutmut changes neither.
    """

    def walk(nodes: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.If):  # of the version of Python, or of the platform
                yield from walk([*node.body, *node.orelse], prefix)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and (
                        ast.get_docstring(inner, clean=False) is not None
                    ):
                        inner.body = inner.body[1:] or [ast.Pass()]
                code = hashlib.sha256(ast.unparse(node).encode()).hexdigest()[:12]
                yield f"{module}:{prefix}{node.name}", code

    return walk(ast.parse(source).body, "")


def mutated_functions() -> dict[str, str]:
    """The functions of the modules that are mutated, with a hash of the code of each."""
    config = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    codes: dict[str, str] = {}
    for path in map(Path, config["only_mutate"]):
        module = ".".join(path.with_suffix("").parts[1:])
        codes |= codes_of(module, path.read_text("utf-8"))
    return codes


def load(text: str) -> dict[str, Results]:
    """Read the record of earlier runs."""
    return {name: Results(**each) for name, each in json.loads(text).items()}


def save(record: Mapping[str, Results]) -> None:
    """Write the record, a line for each function."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(asdict(each), ensure_ascii=False)}"
        for name, each in sorted(record.items())
    )
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def mutmut(*arguments: str) -> str:
    """The output of a command of mutmut, which is installed beside this interpreter."""
    return subprocess.run(
        [Path(sys.executable).parent / "mutmut", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def results_of_the_run(codes: Mapping[str, str]) -> dict[str, Results]:
    """Return the results of the functions all of whose mutants were tested in this directory.

    mutmut lists the mutants that it did not test, too; a function that it does not list has none.
    """
    results = {name: Results(code) for name, code in codes.items()}
    unfinished: set[str] = set()
    for line in mutmut("results", "--all", "true").splitlines():
        mutant, _, status = line.strip().partition(": ")
        if not status:
            continue
        name = name_of(mutant)
        each = results[name]
        if status in NOT_RUN:
            unfinished.add(name)
        elif status in DEAD:
            each.found += 1
        else:
            function = name.partition(":")[2]
            each.survived.append(str(change_of(function, mutmut("show", mutant))))
    return {name: each for name, each in results.items() if name not in unfinished}


def test_again(
    names: Collection[str], codes: Mapping[str, str], record: dict[str, Results]
) -> None:
    """Test the mutants of some functions; keep what comes out, also of a run that is stopped."""
    program = Path(sys.executable).parent / "mutmut"
    patterns = [pattern_of(name) for name in names]
    try:
        subprocess.run([program, "run", "--max-children", str(AT_ONCE), *patterns], check=False)
    finally:
        results = results_of_the_run(codes)
        record |= {name: results[name] for name in names if name in results}
        save(record)


def main() -> int:
    """Test what has changed, and print the summary."""
    codes = mutated_functions()
    record = load(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    record = {name: it for name, it in record.items() if codes.get(name) == it.code}
    stale = codes.keys() - record.keys()
    print(f"{len(stale)} of {len(codes)} functions have changed since their results were kept")
    if stale:
        test_again(sorted(stale), codes, record)
    return summary(record, codes.keys() - record.keys())


def summary(record: Mapping[str, Results], untested: Iterable[str]) -> int:
    """Print the number of mutants of each module, and what is not as the page says."""
    found: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for name, each in record.items():
        module = name.partition(":")[0]
        found[module] += each.found
        survived[module] += len(each.survived)
    for module in sorted(found):
        total = found[module] + survived[module]
        alive = survived[module]
        print(f"{module:<24} {total:>5} mutants: {found[module]} found, {alive} survived")
    reasons = [str(change) for change in explained(PAGE.read_text("utf-8"))]
    changes = [change for each in record.values() for change in each.survived]
    unexplained = [change for change in changes if change not in reasons]
    obsolete = [change for change in reasons if change not in changes]
    for change in unexplained:
        print(f"\nsurvived without an explanation:\n{change}")
    for change in obsolete:
        print(f"\nexplained in {PAGE.name}, but did not survive:\n{change}")
    for name in sorted(untested):
        print(f"\nnot tested to its end: {name}")
    print(
        f"\n{found.total() + len(changes)} mutants: {found.total()} found, "
        f"{len(changes) - len(unexplained)} survived as {PAGE.name} explains, "
        f"{len(unexplained)} without an explanation"
    )
    return 1 if unexplained or obsolete or untested else 0


if __name__ == "__main__":
    sys.exit(main())
