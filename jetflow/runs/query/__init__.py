"""The query layer: what is asked of stored runs and live workers, in one place, for every face that shows it.

`rows` has what is answered, `queries` the questions. Command line, dashboard and programs ask through `jetflow.Client`,
which is a `Queries`; none of them talks to the broker by itself. All of it is views: it reads from any replica, writes
nothing, and holds up no writer for longer than a count takes.
"""
