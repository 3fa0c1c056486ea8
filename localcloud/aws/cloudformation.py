"""Where ministack's CloudFormation is laxer than the service, it is made as strict."""

from __future__ import annotations

from typing import Any

from ministack.services.cloudformation import stacks


def install() -> None:
    """Make a stack's deletion stop at the first resource that cannot be deleted.

    What the failed resource depends on is not touched, and a later DeleteStack starts again from there.
    """
    delete_stack, delete_resource = stacks._delete_stack_async, stacks._delete_resource
    failed: set[str] = set()

    async def delete_stack_until_failure(stack_name: str, *arguments: Any, **options: Any) -> None:
        failed.discard(stack_name)
        await delete_stack(stack_name, *arguments, **options)

    def delete_resource_until_failure(
        resource_type: str, physical_id: str, properties: Any, stack_name: str, logical_id: str
    ) -> None:
        if stack_name in failed:
            raise ValueError("Resource deletion cancelled")
        try:
            delete_resource(resource_type, physical_id, properties, stack_name, logical_id)
        except Exception:
            failed.add(stack_name)
            raise

    stacks._delete_stack_async = delete_stack_until_failure
    stacks._delete_resource = delete_resource_until_failure
    # DeleteStack's handler holds the function under its own name.
    from ministack.services.cloudformation import handlers

    handlers._delete_stack_async = delete_stack_until_failure
