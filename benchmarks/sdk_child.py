"""The child worker of jetflow itself, for ``python -m benchmarks sdk``: the kit's workflows, on uvloop."""

from __future__ import annotations

import uvloop

from conformance.kit import main

if __name__ == "__main__":
    uvloop.run(main())
