"""The client for programs without an event loop: scripts, cron jobs, Flask, Django's views, threads.

``jetflow.sync.connect()`` gives what ``jetflow.connect`` gives, without ``await``. One client may be used by any number
of threads at once; it may be called where an event loop runs, which stands still meanwhile; and a process that was
forked connects by itself when it first uses a client of its parent.
"""

from jetflow.sync.client import Client, connect
from jetflow.sync.run import Run

__all__ = ["Client", "Run", "connect"]
