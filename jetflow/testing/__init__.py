"""For the tests of programs that use jetflow: one step without a broker (`context`), a clock, and a pytest plugin.

The plugin's fixtures are in `jetflow.testing.plugin`, which pytest finds by itself. ``docs/testing.md`` shows both.
"""

from jetflow.testing.clock import Clock, NothingWaits, SyncClock
from jetflow.testing.contexts import TestedContext, context
from jetflow.testing.fakes import Spawned

__all__ = ["Clock", "NothingWaits", "Spawned", "SyncClock", "TestedContext", "context"]
