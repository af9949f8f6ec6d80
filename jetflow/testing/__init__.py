"""For the tests of programs that use jetflow: one step without a broker (`context`), and a pytest plugin.

The plugin's fixtures are in `jetflow.testing.plugin`, which pytest finds by itself. ``docs/testing.md`` shows both.
"""

from jetflow.testing.contexts import TestedContext, context
from jetflow.testing.fakes import Spawned

__all__ = ["Spawned", "TestedContext", "context"]
