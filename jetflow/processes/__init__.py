"""Who watches whom: the guard of a worker process, and what starts a worker process again."""
