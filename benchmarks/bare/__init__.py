"""The floor: a bare nats-py program that does for a child what any correct implementation must do, and nothing else.

Publish its task with a message id and wait for the PubAck, deliver it through a durable pull consumer, publish its
result write-once and wait for the PubAck, acknowledge the task, and tell the parent. It has no retries, no heartbeats,
no recovery, no slots: it stands for the broker's own price in Python, not for a program that anyone should run.
It shares no code with jetflow, and uses nats-py's public interface only, in the fastest way that was found.
"""
