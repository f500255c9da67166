"""The SDK that workers import: ``from oms.worker import Worker``. It needs the standard library and httpx only."""

from oms.worker.client import OmsClient
from oms.worker.errors import Fatal, OmsClientError, OmsProblem, OmsUnreachableError, PermanentError, ReleaseTask
from oms.worker.loop import Worker, instance_name
from oms.worker.task import Task

__all__ = [
    "Fatal",
    "OmsClient",
    "OmsClientError",
    "OmsProblem",
    "OmsUnreachableError",
    "PermanentError",
    "ReleaseTask",
    "Task",
    "Worker",
    "instance_name",
]
