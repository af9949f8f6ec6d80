"""Faults that are planted in the shell (``worker/``, ``runs/``, ``broker/``), each with the tests that must notice.

``python -m tests.faults [part of a name]`` plants them one at a time in a copied tree and runs those tests there. It is
the second half of ``make mutants``; the first plants bugs in the engine's rules, for the model to catch.

``planted``    the faults of the worker, and all of them; ``planted_below`` has those of ``runs/`` and ``broker/``
``suites``     the tests that notice them
``playing``    planting one, and running its tests
"""
