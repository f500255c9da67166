"""The ledger's state as Prometheus reads it: what alarms are made of."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from act.api import schemas
from act.ledger import Ledger
from act.signer import Signer

router = APIRouter()


class _Facts(Collector):
    """What is true at the moment of the scrape; nothing is counted twice for it."""

    def __init__(self, ledger: Ledger, signer: Signer | None) -> None:
        self._ledger = ledger
        self._signer = signer

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        ledger = self._ledger
        yield GaugeMetricFamily("act_ledger_events", "Events in the ledger.", value=ledger.size)
        yield GaugeMetricFamily("act_followers", "Live streams that are open.", value=len(ledger.followers))
        yield CounterMetricFamily(
            "act_forks_refused",
            "How often this process refused an event for other bytes in its place.",
            ledger.forks.refused,
        )
        yield GaugeMetricFamily(
            "act_forks_recorded",
            "Different events refused as forks, ever, by any process.",
            value=ledger.forks.recorded,
        )
        if self._signer is None:
            return
        health = self._signer.health
        yield GaugeMetricFamily("act_signing_ok", "1 while checkpoints can be signed.", value=int(health["ok"]))
        yield GaugeMetricFamily("act_unsigned_events", "Events that no checkpoint covers yet.", value=health["behind"])
        yield CounterMetricFamily(
            "act_checkpoints_signed", "Checkpoints that this process has signed.", self._signer.checkpoints_signed
        )
        yield CounterMetricFamily(
            "act_signing_stops",
            "How often this process stopped signing a damaged ledger.",
            self._signer.stops,
        )


@router.get("/metrics", response_class=PlainTextResponse, **schemas.GET_METRICS)
async def get_metrics(request: Request) -> Response:
    """Tell Prometheus: size, followers, forks, and whether checkpoints are signed."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(request.app.state.ledger, request.app.state.signer))
    return Response(
        generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    )
