"""An explicit-state model of the protocol, driven by the real rules of ``jetflow.engine``.

``python -m tests.model`` explores every state of a set of small configurations: all interleavings of all workers,
with crashes, redeliveries and lost answers between any two effects. ``python -m tests.model.mutants`` plants bugs in
the rules and in the shell, one at a time, and expects each to be caught. What stands where:

``scenario``        what a configuration says: runs, scripted step bodies, faults
``universe``        a configuration as numbers: every task, record and counter that can ever exist
``state``           one state of the model, hashable
``shell``           what a worker does with a delivery, as one generator over the engine's procedures
``procedures``      generators as values: a running delivery is its arguments and the results it has had
``broker``          what each effect does to a state
``checks``          never early, never twice, never stuck
``explorer``        the transitions, and the search
``configurations``  the small configurations
``mutants``         the planted bugs

To add an effect, give `broker.Broker` a method for it; to add an end of a step body, add it to `scenario.Body` and
`shell.Shell`; to add a fault, add it to `scenario.Faults` and to `explorer.Model.faults`.
"""
