"""One worker process of an endpoint: ``python -m mlops_assets.scoring.worker FOLDER ...``.

Started by the supervisor, which passes the listening socket and the reading end of a pipe. When
the pipe closes the supervisor is gone, and the worker ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import uvicorn

from mlops_assets.scoring import processes
from mlops_assets.scoring.capture.sender import Sender
from mlops_assets.scoring.connections import Limits, Watch
from mlops_assets.scoring.deployments import Deployments, Serving
from mlops_assets.scoring.generation import (
    Ack,
    GenerationFile,
    ack_path,
    write_ack,
)
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.logs import log_to_stderr
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.protocol import watched
from mlops_assets.scoring.server import Application
from mlops_assets.scoring.supervisor import read_settings, read_state

#: Seconds for requests in flight when the worker is asked to end.
GRACE_SECONDS = 5
#: Connections accepted in one turn of the event loop.
ACCEPTED_AT_ONCE = 16
#: Between two looks of the other workers at what this one counted.
COUNT_SECONDS = 1.0


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m mlops_assets.scoring.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--alive", type=int, required=True)
    parser.add_argument("--identity", required=True)
    options = parser.parse_args()
    log_to_stderr()
    serve(options.folder, options.socket, options.alive, options.identity)


def serve(
    folder: Path, listening: int, alive: int, identity: str, limits: Limits | None = None
) -> None:
    """Serve an endpoint's folder on a listening socket's descriptor."""
    acknowledge = _acknowledger(folder)
    # Before the generation is first read: who writes one from now on waits for this worker.
    acknowledge(Serving())
    metrics = Metrics(folder)
    deployments = Deployments(GenerationFile(folder), acknowledge, metrics)
    settings = read_settings(folder)
    wanted = settings.capture
    capture = None if wanted is None else Sender(folder, wanted.share, metrics.drop)

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        asyncio.get_running_loop().add_reader(alive, _end_without_supervisor, alive)
        await deployments.update()
        beside = [
            asyncio.create_task(deployments.follow()),
            asyncio.create_task(_write_counts(metrics)),
            asyncio.create_task(watch.sweep()),
        ]
        if capture is not None:
            beside.append(asyncio.create_task(capture.run()))
        # What was loaded stays: looking through it for garbage would only delay answers.
        gc.collect()
        gc.freeze()
        yield
        for task in beside:
            task.cancel()
        if capture is not None:
            capture.close()
        _write(metrics)

    application = Application(
        deployments,
        None if settings.keys is None else KeyFile(folder / settings.keys),
        metrics,
        identity=identity,
        instance=_instance(folder),
        cors_origins=settings.cors_origins,
        access_log=settings.access_log,
        capture=capture,
        lifespan=lifespan,
    )
    watch = Watch(limits or Limits(), metrics.refuse, application)
    config = uvicorn.Config(
        application,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        http=watched(watch),
        ws="none",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # uvicorn raises the signal that ended it once more; this makes it an ordinary end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        uvicorn.Server(config).run(sockets=_listeners(listening))
    finally:
        ack_path(folder, os.getpid()).unlink(missing_ok=True)


def _instance(folder: Path) -> str:
    """One name for all workers of a server, and another one once that was started again."""
    state = read_state(folder)
    started = f"{state.id}-{state.created:.2f}" if state else str(os.getpid())
    return f"{socket.gethostname()}-{started}"


def _listeners(listening: int) -> list[socket.socket]:
    """The listening socket, under several descriptors.

    The loop accepts one connection per descriptor in a turn, and answers all that it has before
    the next: of clients that come together the last would wait as many turns as there are others.
    """
    first = socket.socket(fileno=listening)
    # What `dup` copies it sets anew, and for all workers, which share the socket: one that accepts
    # while it blocks answers nobody until the next client comes.
    first.setblocking(False)
    return [first, *(first.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


async def _write_counts(metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(COUNT_SECONDS)
        await asyncio.to_thread(_write, metrics)


def _write(metrics: Metrics) -> None:
    try:
        metrics.write()
    except OSError as error:  # a full disk: the sums stay in memory
        logging.getLogger(__name__).warning("counts are not written: %s", error)


def _acknowledger(folder: Path) -> Callable[[Serving], None]:
    pid, created = os.getpid(), processes.created()

    def acknowledge(serving: Serving) -> None:
        write_ack(folder, Ack(pid, created, serving.number, serving.errors))

    return acknowledge


def _leave(*_: object) -> None:
    sys.exit(0)


def _end_without_supervisor(alive: int) -> None:
    asyncio.get_running_loop().remove_reader(alive)
    logging.getLogger(__name__).warning("the supervisor is gone, ending")
    timer = threading.Timer(GRACE_SECONDS * 2, os._exit, (1,))
    timer.daemon = True
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
