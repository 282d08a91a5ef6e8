"""``python -m mbufpools``, the same as the command ``mbufpools``."""

from __future__ import annotations

from mbufpools.cli import main

if __name__ == "__main__":
    raise SystemExit(main(prog="python -m mbufpools"))
