"""``python -m softxent``: the command line, which lives in ``_cli``."""

from softxent._cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
