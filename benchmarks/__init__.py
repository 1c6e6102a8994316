"""How fast softxent is, beside the others and beside the speed of memory: ``python -m benchmarks``.

``cells`` says what is computed; ``contenders``, with ``peers`` and ``numba_kernels``, by whom; ``limit`` what memory
allows; ``plan`` who meets in which cell; ``runner`` how they are timed, after ``check`` has seen that they are right;
``machine`` on which processors; ``results`` how measurements are kept; ``report`` and ``plots`` what is made of them.
The method is in README.md. Nothing here is a test: no timing is ever asserted.
"""
