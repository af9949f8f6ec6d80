"""The query layer as one object."""

from __future__ import annotations

from jetflow.runs.query.inspecting import InspectingQueries


class Queries(InspectingQueries):
    """What may be asked about runs, queues and workers. `jetflow.Client` is one.

    All of it only reads, but for `pause` and `resume`. Every method raises `InvalidQuery` for a filter, a cursor or a
    limit that makes no sense, and the `BrokerError`s of a broker that is away: an empty answer always means that
    nothing was found, and ``searched`` says in what.
    """
