"""``python -m softxent``: the command line, which lives in ``_cli.py``."""

from softxent._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
