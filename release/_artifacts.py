"""The two files of a release: built, and checked for what is in them."""

from __future__ import annotations

import email
import re
import sys
import tarfile
import zipfile
from pathlib import Path

from ._steps import StepFailed, call

__all__ = ["Artifacts"]

IN_WHEEL = ("mbufpools/py.typed", "mbufpools/_demos/stall.py", "_mbufpools_pytest.py")
IN_SDIST = (
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
    "tests/conftest.py",
)
LINK = re.compile(r"\]\((?!https?://|#)([^)\s]+)")
"""A link of Markdown to a file, which is dead where the description is read."""


class Artifacts:
    """The source distribution and the wheel.

    Args:
        root: the checkout.
        folder: where they are built.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder

    @property
    def wheel(self) -> Path:
        """The wheel. Raises StepFailed if there is not just one."""
        return self._only("*.whl")

    @property
    def sdist(self) -> Path:
        """The source distribution. Raises StepFailed if there is not just one."""
        return self._only("*.tar.gz")

    @property
    def version(self) -> str:
        """The version in the name of the wheel."""
        return self.wheel.name.split("-")[1]

    def _only(self, pattern: str) -> Path:
        files = list(self._folder.glob(pattern))
        if len(files) != 1:
            raise StepFailed(f"{self._folder} has {len(files)} files {pattern}; expected one")
        return files[0]

    def build(self) -> None:
        """Build the source distribution, and from it the wheel."""
        call(sys.executable, "-m", "build", "--outdir", self._folder, ".", folder=self._root)
        _ = self.wheel, self.sdist

    def check_version(self) -> None:
        """The changelog has a heading of this version, with a date, and it is the first."""
        text = (self._root / "CHANGELOG.md").read_text("utf-8")
        heading = re.search(r"^## \[(.*?)\](.*)$", text, re.MULTILINE)
        wanted = f"## [{self.version}] - YYYY-MM-DD"
        if (
            heading is None
            or heading[1] != self.version
            or not re.fullmatch(r" - \d{4}-\d\d-\d\d", heading[2])
        ):
            found = heading[0] if heading else "no heading"
            raise StepFailed(f"CHANGELOG.md begins with {found!r}; expected {wanted!r}")

    def check_metadata(self) -> None:
        """Ask twine, which an index would, too."""
        call(sys.executable, "-m", "twine", "check", "--strict", self.sdist, self.wheel,
             folder=self._root)  # fmt: skip

    def check_wheel(self) -> None:
        """The wheel has each file that is needed, and nothing beside the package."""
        with zipfile.ZipFile(self.wheel) as wheel:
            self._expect(self.wheel, set(wheel.namelist()), IN_WHEEL)
        command = Path(sys.executable).with_name("check-wheel-contents")
        call(command, self.wheel, folder=self._root)

    def check_sdist(self) -> None:
        """The source distribution has each file that is needed."""
        with tarfile.open(self.sdist) as sdist:
            names = {name.partition("/")[2] for name in sdist.getnames()}
        self._expect(self.sdist, names, IN_SDIST)

    def _expect(self, file: Path, names: set[str], wanted: tuple[str, ...]) -> None:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise StepFailed(f"{file.name} lacks {', '.join(missing)}")

    def check_description(self) -> None:
        """The long description has no link to a file, which would be dead on an index."""
        with zipfile.ZipFile(self.wheel) as wheel:
            (name,) = (it for it in wheel.namelist() if it.endswith(".dist-info/METADATA"))
            text = str(email.message_from_bytes(wheel.read(name)).get_payload())
        dead = sorted(set(LINK.findall(text)))
        if dead:
            raise StepFailed(f"the long description has links to files: {', '.join(dead)}")

    def unpack(self, folder: Path) -> Path:
        """Unpack the source distribution into `folder`; return its root there."""
        with tarfile.open(self.sdist) as sdist:
            sdist.extractall(folder, filter="data")
        return next(folder.iterdir())
