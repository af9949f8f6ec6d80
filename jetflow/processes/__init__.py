"""Who watches whom: the guard of a worker process, what starts a worker process again, and the processes of steps."""
