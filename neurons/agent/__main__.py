"""`python -m neurons.agent`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from bettertherapy_api.report import PodReport
from neurons.agent.agent import Agent
from neurons.agent.settings import Settings, parse_settings
from neurons.cluster import ClusterClient, ObjectWatch, PodReportWriter, paths
from neurons.garbage import set_aside
from neurons.store.model_record import hold_model
from neurons.unsaid import WithoutWords, on_loop_error


async def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT and return the exit status: 70 after a defect."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ClusterClient() as cluster:
        watch = ObjectWatch(
            cluster,
            path=paths.routing_slices(settings.namespace),
            labels=paths.routing_labels(settings.pool),
        )
        writer = PodReportWriter(cluster, namespace=settings.namespace, labels=paths.report_labels(settings.pool))

        async def publish(report: PodReport | None) -> None:
            if report is None:
                await writer.remove(settings.pod_name)
            else:
                await writer.write(report)

        async with set_aside(), Agent(settings, routing=watch, publish=publish) as agent:
            done = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(agent.failed.wait())]
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            if agent.failed.is_set():
                return 70
            await agent.shut_down()
    return 0


def main() -> None:
    """Read the settings and run."""
    settings = parse_settings()
    hold_model(settings.base_model_dir)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        WithoutWords(f"%(asctime)s %(levelname)s {settings.namespace}/{settings.pool} %(name)s: %(message)s")
    )
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run(settings)))


if __name__ == "__main__":
    main()
