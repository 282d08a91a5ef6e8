"""Sum up a run of mutmut, and check it against the page that explains the survivors.

``docs/mutation.md`` gives, under a reason, the mutants that no test can or shall kill, each as
the lines it changes::

    ```diff
    @@ PageLists.pages @@
    -return chain(self._empty, self._partial, self._full)
    +return chain(self._empty, self._full)
    ```

mutmut numbers its mutants anew whenever a function changes; what they change stays. `python
docs/mutants.py`, run where mutmut ran, prints how many mutants there were of each room, and in
full those that survived without an explanation. It exits with 1 if there is one, or if the page
explains one that did not survive.
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
"""What mutmut calls a mutant that was found; a timeout is one that hangs."""


class Change(NamedTuple):
    """What a mutant is: the function, and the lines that go and come, without indentation."""

    function: str
    gone: tuple[str, ...]
    come: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"-{line}" for line in self.gone] + [f"+{line}" for line in self.come]
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
    """The mutants that `page` explains, in its order."""
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
    """What a command of the mutmut beside this interpreter prints."""
    program = Path(sys.executable).parent / "mutmut"
    return subprocess.run(
        [program, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> int:
    """Print the summary of the run whose results are here."""
    results = [
        (mutant, status)
        for mutant, _, status in (
            line.strip().partition(": ") for line in mutmut("results", "--all", "true").splitlines()
        )
        if status
    ]
    rooms: dict[str, Counter[str]] = {}
    for mutant, status in results:
        rooms.setdefault(mutant.split(".")[1], Counter())[status] += 1
    for room, counts in sorted(rooms.items()):
        total = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        print(f"{room:<14} {counts.total():>5} mutants: {total}")
    counts = sum(rooms.values(), Counter[str]())
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
        print(f"\nexplained in {PAGE.name}, but no survivor:\n{change}")
    print(
        f"\n{len(results)} mutants: {dead} found, {len(alive) - len(unexplained)} survived as "
        f"{PAGE.name} explains, {len(unexplained)} without an explanation"
    )
    return 1 if unexplained or obsolete else 0


if __name__ == "__main__":
    sys.exit(main())
