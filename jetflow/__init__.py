"""jetflow: workflows on NATS JetStream, with children spawned by steps and joined, and no orchestrator."""

from jetflow.broker.auth import Auth
from jetflow.broker.topology import Placement
from jetflow.children import Child, Children, ChildResult, JoinResult, Streamed
from jetflow.client import Client, Run, connect
from jetflow.conditions import AllOf, AnyOf, Event, Happened, Signal, all_of, any_of, sleep
from jetflow.context import Context
from jetflow.dependencies import Depends
from jetflow.engine.batching import Batch
from jetflow.engine.hedging import Hedge
from jetflow.engine.holding import Running
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.retries import Retry
from jetflow.errors import (
    ChildFailed,
    ChildrenFailed,
    DepthExceeded,
    InvalidDeclaration,
    InvalidInput,
    InvalidOutput,
    InvalidQuery,
    JetflowError,
    KeyConflict,
    NonRetryable,
    ProcessDied,
    ResultTimeout,
    RetryAfter,
    RunBegun,
    RunFailed,
    SourceChanged,
    StepFailed,
    StepSkipped,
    UnknownRun,
    UnknownWorkflow,
    WaitTimeout,
)
from jetflow.limits import Limit, RateLimit
from jetflow.server import local_server
from jetflow.step import output_of
from jetflow.worker import Worker
from jetflow.worker.options import WorkerOptions
from jetflow.workflow import Step, Workflow, workflow

__all__ = [
    "AllOf",
    "AnyOf",
    "Auth",
    "Batch",
    "Child",
    "ChildFailed",
    "ChildResult",
    "Children",
    "ChildrenFailed",
    "Client",
    "Context",
    "Depends",
    "DepthExceeded",
    "Event",
    "Happened",
    "Hedge",
    "InvalidDeclaration",
    "InvalidInput",
    "InvalidOutput",
    "InvalidQuery",
    "JetflowError",
    "JoinPolicy",
    "JoinResult",
    "KeyConflict",
    "Limit",
    "NonRetryable",
    "Placement",
    "ProcessDied",
    "RateLimit",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "Run",
    "RunBegun",
    "RunFailed",
    "Running",
    "Signal",
    "SourceChanged",
    "Step",
    "StepFailed",
    "StepSkipped",
    "Streamed",
    "UnknownRun",
    "UnknownWorkflow",
    "WaitTimeout",
    "Worker",
    "WorkerOptions",
    "Workflow",
    "all_of",
    "any_of",
    "connect",
    "local_server",
    "output_of",
    "sleep",
    "workflow",
]
