"""Summarize a run of mutmut, and compare it with the page that explains the survivors.

``docs/mutation.md`` lists the mutants that no test can find or needs to find. Each is given under a
reason, as the lines that it changes::

    ```diff
    @@ PageLists.pages @@
    -return chain(self._empty, self._partial, self._full)
    +return chain(self._empty, self._full)
    ```

mutmut renumbers its mutants whenever a function changes, but the lines that they change stay the
same. `python docs/mutants.py`, run in the directory where mutmut ran, prints the number of
mutants of each module, and each mutant that survived without an explanation. It exits with 1 if
there is one, or if the page explains a mutant that did not survive.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parent / "mutation.md"
DEAD = ("killed", "timeout", "caught by type check", "segfault")
"""mutmut's words for a mutant that was found. The tests of a mutant with a timeout did not end."""


class Change(NamedTuple):
    """A mutant: the function, and the lines that are removed and added, without indentation."""

    function: str
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"-{line}" for line in self.removed] + [f"+{line}" for line in self.added]
        return "\n".join([f"@@ {self.function} @@", *lines])


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


def function_of(mutant: str) -> str:
    """The name of the mutated function, in its class, from mutmut's name for the mutant."""
    mangled = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    return mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def mutmut(*arguments: str) -> str:
    """The output of a command of mutmut, which is installed beside this interpreter."""
    program = Path(sys.executable).parent / "mutmut"
    return subprocess.run(
        [program, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> int:
    """Print the summary of the run whose results are in this directory."""
    results = [
        (mutant, status)
        for mutant, _, status in (
            line.strip().partition(": ") for line in mutmut("results", "--all", "true").splitlines()
        )
        if status
    ]
    modules: dict[str, Counter[str]] = {}
    for mutant, status in results:
        modules.setdefault(mutant.split(".")[1], Counter())[status] += 1
    for module, counts in sorted(modules.items()):
        total = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        print(f"{module:<14} {counts.total():>5} mutants: {total}")
    counts = sum(modules.values(), Counter[str]())
    dead = sum(counts[status] for status in DEAD)

    reasons = explained(PAGE.read_text("utf-8"))
    alive = [
        (mutant, status, change_of(function_of(mutant), mutmut("show", mutant)))
        for mutant, status in results
        if status not in DEAD
    ]
    unexplained = [each for each in alive if each[2] not in reasons]
    survived = {change for _, _, change in alive}
    obsolete = [change for change in reasons if change not in survived]
    for mutant, status, change in unexplained:
        print(f"\n{status} without an explanation, {mutant}:\n{change}")
    for change in obsolete:
        print(f"\nexplained in {PAGE.name}, but did not survive:\n{change}")
    print(
        f"\n{len(results)} mutants: {dead} found, {len(alive) - len(unexplained)} survived as "
        f"{PAGE.name} explains, {len(unexplained)} without an explanation"
    )
    return 1 if unexplained or obsolete else 0


if __name__ == "__main__":
    sys.exit(main())
