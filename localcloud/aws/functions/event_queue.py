"""The queue between EventBridge and Lambda: events wait there, as asynchronous invocations do.

ministack starts a thread, and so a process of the function, for each event at once: a push of a hundred refs would be a
hundred processes. Lambda itself runs more of them at a time; a few are enough for two to meet.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ministack.services import eventbridge, lambda_svc

_AT_A_TIME = 3


def install() -> None:
    """Let a few events at a time invoke a function, in the order in which they came."""
    pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="event")

    def dispatch(arn: str, payload: Any) -> None:
        function, config, _ = lambda_svc._get_func_record_for_ref(arn)
        if function and config:
            record = lambda_svc._execution_record_for_config(function, config)
            pool.submit(lambda_svc._execute_function_with_config_scope, record, json.loads(payload))

    eventbridge._dispatch_to_lambda = dispatch
