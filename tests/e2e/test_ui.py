"""The Airflow UI in a real browser: the page and the trigger form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(300)]


def test_the_page_shows_what_ran_where_and_why(deployment: Deployment, page: Page) -> None:
    run_id = deployment.stack.trigger("hold", {"steps": 5})
    assert deployment.wait_for_end("hold", run_id) == "success"
    page.goto(f"{deployment.stack.url}/plugin/spillway")
    inside = page.frame_locator("iframe")
    row = inside.locator("tbody tr").first
    row.wait_for()
    text = row.inner_text()
    assert "count" in text
    assert "reserved" in text
    assert "succeeded" in text
    assert "lowest expected cost" in text
    row.get_by_text("why not elsewhere").click()
    assert row.get_by_text("on_demand").first.is_visible()
    deployment.keep_picture(page, "page")


def test_the_link_on_a_task_opens_its_own_leases(deployment: Deployment, page: Page) -> None:
    run_id = deployment.stack.trigger("hold", {"steps": 5})
    assert deployment.wait_for_end("hold", run_id) == "success"
    path = f"dags/hold/dagRuns/{run_id}/taskInstances/count/links"
    link = deployment.stack.request("GET", path)["extra_links"]["Placement and cost"]
    page.goto(f"{deployment.stack.url}{link}")
    assert page.locator("tbody tr").count() == 1
    assert run_id in page.locator("h1").inner_text()


def test_the_trigger_form_has_sections_with_words_to_explain_them(
    deployment: Deployment, page: Page
) -> None:
    deployment.stack.wait_until(lambda: deployment.stack.has_dag("nightly"), "nightly", 120)
    page.goto(f"{deployment.stack.url}/dags/nightly")
    page.get_by_role("button", name="Trigger").first.click()
    for section, titles in (
        ("Workload", ("Workload size", "Seed")),
        ("Placement", ("Markets", "Deadline, minutes", "Price cap, USD per hour", "Fresh start")),
    ):
        page.get_by_role("button", name=section).click()
        for title in titles:
            page.get_by_text(title).first.wait_for()
    deployment.keep_picture(page, "trigger-form")
