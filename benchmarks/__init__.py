"""How fast softxent is, beside the others and beside the speed of memory: ``python -m benchmarks``.

``cells`` says what is computed, ``contenders`` by whom, ``runner`` how it is timed, ``report`` how it is
written down. The method is in README.md. Nothing here is a test: no timing is ever asserted.
"""
