"""What all endpoints share: the champion, the store, the metrics, and a bounded number of requests
at work.
"""

import asyncio
import hmac
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import Request, Response

from .. import logs
from ..settings import Settings
from .metrics import Metrics
from .predictor import Champion, Predictor, Scored
from .protocol import Refused, parse, read
from .store import Model, Record, Store, model_of, models

Answer = TypeVar("Answer")
RELOAD_SECONDS = 1.0
BODY_SECONDS = 30.0
RETRY = {"Retry-After": "1"}


class Service:
    """One per application. What computes runs in its threads, never on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.limits = settings.serving
        self.log = logs.get("serve", settings.paths.logs)
        self.store = Store(settings.paths.store, self.limits.store_rows, self.log)
        self.in_flight = 0
        self.metrics = Metrics(self.store, lambda: self.in_flight)
        self.predictor = Predictor(settings.paths.live, self.log, self._loaded)
        keys = os.environ.get("API_KEYS", "").split(",")
        self._keys = [key.strip().encode() for key in keys if key.strip()]
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "model")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads the champion, watches for its successor, and at the end stores what is still
        queued.
        """
        await self._compute(self.predictor.setup)
        watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
            self._threads.shutdown()
            self.store.close()

    def champion(self) -> Champion:
        """The model that answers. Refuses with 503 while there is none."""
        if self.predictor.champion is None:
            raise Refused(503, "no model is loaded yet", headers=RETRY)
        return self.predictor.champion

    async def work(
        self, request: Request, job: Callable[[dict[str, Any]], Response], needs_type: bool = True
    ) -> Response:
        """Runs the job on the JSON body in a thread. Refuses what is too much, too long or not
        allowed.
        """
        self._authorise(request)
        self._admit()  # before reading: refusing must stay cheap
        try:
            body = await asyncio.wait_for(
                read(request, self.limits.max_body_bytes, needs_type), BODY_SECONDS
            )
        except TimeoutError:
            rule = f"within {BODY_SECONDS:.0f} s"
            raise Refused(408, "the body did not arrive in time", [("body", rule)]) from None
        self._admit()
        self.in_flight += 1
        try:
            return await self._compute(lambda: job(parse(body)))
        finally:
            self.in_flight -= 1

    def record(
        self, champion: Champion, scored: Scored, items: Sequence[Any], started: float
    ) -> list[str]:
        """Counts and stores answers on items, `started` at that perf_counter time; returns their
        prediction ids.
        """
        answers, names = scored.answers, champion.names(scored.answers)
        latency, now = (time.perf_counter() - started) * 1000, time.time()
        stored = champion.stored(scored)
        records = [
            Record(
                prediction_id=uuid.uuid4().hex,
                time=now,
                version=champion.version,
                identity=champion.bundle.identity,
                instance=item,
                label=names[i],
                confidence=float(answers.confidence[i]),
                abstain=bool(answers.abstain[i]),
                latency_ms=latency,
                signals=stored[i],
            )
            for i, item in enumerate(items)
        ]
        self.store.append(records)
        self.metrics.predicted(champion, answers)
        return [record["prediction_id"] for record in records]

    def model(self, prediction_id: str, champion: Champion) -> Model | None:
        """What an earlier answer was one of: another model's than the champion's, perhaps. None
        where there is no such prediction. Raises StoreBusy.
        """
        identity = self.store.answered_by(prediction_id)
        if identity in (None, champion.bundle.identity):
            return model_of(champion.bundle.card) if identity else None
        return models(self.store.path).get(str(identity), model_of(champion.bundle.card))

    def _loaded(self, champion: Champion) -> None:
        self.metrics.loaded(champion)
        self.store.know(champion.bundle.identity, model_of(champion.bundle.card))

    async def _compute(self, job: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            if self.predictor.changed():
                await asyncio.to_thread(self.predictor.setup)

    def _admit(self) -> None:
        if self.in_flight >= self.limits.queue:
            error = f"{self.limits.queue} requests are being worked on: try again"
            raise Refused(503, error, headers=RETRY)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("x-api-key", "").encode()
        # Compared with all of them: the time tells nothing.
        allowed = [hmac.compare_digest(given, key) for key in self._keys]
        if self._keys and not any(allowed):
            rule = "must be one of the server's keys"
            error = "a valid key is needed in the header X-API-Key"
            raise Refused(401, error, [("x-api-key", rule)])
