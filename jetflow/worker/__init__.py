"""Running steps: slots, the pipeline of one delivery, waiting, heartbeats, the sweeper."""

from jetflow.worker.worker import Worker

__all__ = ["Worker"]
