"""Deliveries that wait for slots where there are levels: taken by how urgent they are (`jetflow.engine.levels`)."""

from __future__ import annotations

from collections import deque

from jetflow.broker.puller import Delivery
from jetflow.engine.levels import Turns


class Ranked:
    """Stands in for the deque of a fetcher whose deliveries are all alike. ``queues`` are by rank, the urgent first."""

    def __init__(self) -> None:
        self.queues: dict[int, deque[Delivery]] = {}
        self._turns = Turns()

    def __len__(self) -> int:
        return sum(map(len, self.queues.values()))

    def append(self, delivery: Delivery) -> None:
        """Have a delivery wait behind those of its rank."""
        queue = self.queues.get(delivery.rank)
        if queue is None:
            queue = self.queues[delivery.rank] = deque()
            self.queues = dict(sorted(self.queues.items()))
        queue.append(delivery)

    def popleft(self) -> Delivery:
        """Take the delivery whose turn it is."""
        waiting = [rank for rank, queue in self.queues.items() if queue]
        return self.queues[self._turns.next(waiting)].popleft()

    def of(self, rank: int) -> int:
        """Return how many wait of a rank."""
        queue = self.queues.get(rank)
        return 0 if queue is None else len(queue)

    def as_urgent(self, rank: int) -> int:
        """Return how many wait that are as urgent as a rank, or more so."""
        return sum(len(queue) for other, queue in self.queues.items() if other <= rank)

    def all(self) -> list[Delivery]:
        """Return all that wait."""
        return [delivery for queue in self.queues.values() for delivery in queue]
