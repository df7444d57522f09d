"""A page of metrics of thousands of twins is made beside the answers, and none waits for it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.unit.gateway.running_gateway import gateway
from tests.unit.loop_holds import LONGEST_SECONDS, measured_holds

TWINS = 2000


@pytest.mark.parametrize("form", ["text/plain", "application/openmetrics-text"])
async def test_a_page_of_metrics_holds_up_no_answer(tmp_path: Path, form: str) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        for number in range(TWINS):
            running.service.metrics.ended(f"dr-{number}", "200")
            running.service.metrics.took(f"dr-{number}", 0.2, trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
        url = f"http://127.0.0.1:{running.service.metrics_port}/metrics"
        async with aiohttp.ClientSession(headers={"Accept": form}) as client:
            with measured_holds() as holds:
                async with client.get(url) as response:
                    assert response.content_type == form
                    page = await response.text()
        assert page.count("bettertherapy_gateway_requests_total{") == TWINS
        assert "bettertherapy_gateway_twins 1.0" in page
        assert holds.seconds < LONGEST_SECONDS, holds
