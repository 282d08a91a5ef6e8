"""``make release-check``: is the package ready to be released?

It builds the source distribution and the wheel, and looks at them as those who get them will. All
is made in ``build/release``; nothing is published.

- `_steps` runs the steps, and tells which failed and what it printed.
- `_artifacts` builds both files, and checks their version, their contents and their description.
- `_types` asks pyright and mypy about the installed package.
- `_installs` installs the wheel into a clean environment for each Python and each extra, and runs
  there what a user would: the command, the demos, the examples, the pytest plugin.
"""
