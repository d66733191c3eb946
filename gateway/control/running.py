"""A gateway that answers on the control socket, as `gateway serve` runs it.

`gateway.app` builds, starts and drains a gateway, and knows nothing of the control API: it is given `CONTROL`.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.app import lifecycle
from gateway.app.engine import Engine
from gateway.config.settings import Settings
from gateway.control.api import create_api
from gateway.control.server import serve_control


class _Control:
    """The control API as `gateway.app.lifecycle` drives it."""

    async def serve(
        self, engine: Engine, *, stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer clients of `engine` until `stop`. Raises as `serve_control` does."""
        await serve_control(create_api(engine), engine.settings.gateway.state, stop=stop, task_status=task_status)

    async def carry_on(self, engine: Engine) -> None:
        """Carry on the detached commands of an earlier process."""
        # A short command runs nothing detached, and waits for none of this.
        from gateway.control.commands.detaching import carry_on

        await carry_on(engine)


CONTROL = _Control()


async def serve(settings: Settings, drained: Callable[[], None]) -> None:
    """Run a gateway with its control API until it is told to stop. As `gateway.app.lifecycle.serve`, which see."""
    await lifecycle.serve(settings, drained, control=CONTROL)
