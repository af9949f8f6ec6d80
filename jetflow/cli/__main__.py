"""`python -m jetflow.cli` is the `jetflow` command."""

import sys

from jetflow.cli import main

sys.exit(main())
