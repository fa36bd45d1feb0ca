"""Deployed, as a team runs it: servers and a worker on loopback, deployments from prefect.yaml, a run through
the API with overrides as the UI's form sends them, a schedule that fires, pages in a real browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest
from prefect.client.base import PrefectHttpxSyncClient

from ml_platform.resources.ports import free_port
from tests.scenarios.conftest import ROOT, Project

OVERRIDES = {
    "keras": {"epochs": 4, "hidden": [32], "ranks": 2},
    "xgboost": {"trees": 10},
    "model": "small-digits",
}

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]


class Api:
    """The two servers of `make up`, spoken to over HTTP."""

    def __init__(self, prefect: str, mlflow: str) -> None:
        self.prefect, self.mlflow = prefect, mlflow
        # Prefect's own client asks again after 503, which its server answers while its database is locked.
        self._client = PrefectHttpxSyncClient(timeout=60)

    def ask(self, path: str, body: Any = None, *, base: str | None = None) -> Any:
        url = f"{base or self.prefect + '/api'}{path}"
        answer = self._client.get(url) if body is None else self._client.post(url, json=body)
        return answer.json() if answer.content else None

    def close(self) -> None:
        self._client.close()

    def deployment(self, name: str) -> Any:
        return self.ask(f"/deployments/name/{name}")

    def start(self, name: str, parameters: dict[str, Any]) -> str:
        deployment = self.deployment(name)
        body = {"parameters": {**deployment["parameters"], **parameters}, "enforce_parameter_schema": True}
        return str(self.ask(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def wait(self, flow_run_id: str, timeout_s: float) -> Any:
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return _wait(
            lambda: (run := self.ask(f"/flow_runs/{flow_run_id}"))["state_type"] in ended and run, timeout_s
        )


def _wait(found: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.5)
    return value


@pytest.fixture(scope="module")
def api(project: Project) -> Iterator[Api]:
    prefect, mlflow = free_port(), free_port()
    up = project.run("ml_platform", "up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow))
    assert up.code == 0, up.err
    try:
        with closing(Api(f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")) as found:
            yield found
    finally:
        down = project.run("ml_platform", "down")
    assert down.code == 0, down.err
    assert project.leftovers() == []
    assert not {prefect, mlflow} & {c.laddr.port for c in psutil.net_connections() if c.status == "LISTEN"}


def _prefect(project: Project, api: Api, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"{api.prefect}/api",
        "ML_PLATFORM_HOME": str(project.home),
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(project: Project, api: Api) -> Api:
    _prefect(project, api, "deploy", "--all")
    entrypoint = ["tests.scenarios.ticking.ticking", "--name", "minutely", "--pool", "ml-process"]
    _prefect(project, api, "deploy", *entrypoint, "--cron", "* * * * *")
    return api


@pytest.fixture(scope="module")
def started(deployed: Api) -> str:
    return deployed.start("retrain/nightly", OVERRIDES)


@pytest.fixture(scope="module")
def fired(deployed: Api, started: str) -> Any:
    """The first run that the schedule of every minute made, while the other one works. There is no second."""
    wanted = {
        "deployments": {"name": {"any_": ["minutely"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    runs = _wait(lambda: deployed.ask("/flow_runs/filter", wanted), timeout_s=180)
    deployed.ask(f"/deployments/{deployed.deployment('ticking/minutely')['id']}/pause_deployment", {})
    return runs[0]


@pytest.fixture(scope="module")
def completed(deployed: Api, started: str, fired: Any) -> Any:
    return deployed.wait(started, timeout_s=400)


def test_the_deployments_say_what_the_yaml_says(deployed: Api) -> None:
    nightly, hourly = deployed.deployment("retrain/nightly"), deployed.deployment("batch-inference/hourly")
    assert nightly["entrypoint"] == "flows.retrain.retrain"
    assert nightly["schedules"][0]["schedule"] == {
        "cron": "30 2 * * *",
        "timezone": "Europe/Zurich",
        "day_or": True,
    }
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert hourly["parameters"] == {"model": "models:/digits@champion"}


def test_the_form_has_titles_descriptions_ranges_and_choices(deployed: Api) -> None:
    schema = deployed.deployment("retrain/nightly")["parameter_openapi_schema"]
    assert schema["properties"]["source"]["description"].startswith("Table to learn from")
    keras = schema["definitions"]["KerasSpec"]["properties"]
    assert keras["epochs"]["minimum"] == 1
    assert keras["epochs"]["description"]
    assert schema["definitions"]["FeatureSpec"]["properties"]["impute"]["enum"] == ["median", "mean", "zero"]
    assert schema["definitions"]["SplitSpec"]["properties"]["key_columns"]["title"] == "Key columns"


def test_a_run_through_the_api_completes_with_its_overrides(completed: Any, deployed: Api) -> None:
    assert completed["state_type"] == "COMPLETED", completed["state"]["message"]
    filters = {"flow_runs": {"id": {"any_": [completed["id"]]}}}
    names = {run["name"] for run in deployed.ask("/task_runs/filter", filters)}
    assert {"load_table", "train_keras", "train_xgboost", "judge", "promote", "score_table"} <= names
    artifacts = {a["key"]: a for a in deployed.ask("/artifacts/filter", {**filters})}
    assert (
        "verdict" in artifacts["retrain-report"]["data"] or "promote" in artifacts["retrain-report"]["data"]
    )
    assert len(json.loads(artifacts["retrain-metrics"]["data"])) == 3
    assert "mlflow-link" in artifacts


def test_the_run_page_has_the_plan_and_the_graph_as_a_picture(completed: Any, deployed: Api) -> None:
    artifacts = deployed.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [completed["id"]]}}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    assert by_key["plan"]["description"] == "19 run, 1 maybe", "find_champion waits for the challenger"
    assert "| train_keras | **run** |" in by_key["plan"]["data"]
    assert by_key["graph"]["type"] == "image"
    kind, _, content = by_key["graph"]["data"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    texts = [text.text for text in ET.fromstring(base64.b64decode(content)).iter() if "text" in text.tag]
    became = dict(zip(texts[::2], texts[1::2], strict=True))
    assert became["train_keras"].startswith("done · Horovod × 2")
    assert len(became) == 20
    tasks = deployed.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [completed["id"]]}}})
    assert by_key["plan"]["created"] < min(task["start_time"] for task in tasks) < by_key["graph"]["created"]


def test_a_plan_through_the_deployment_after_a_run_by_command_is_all_cached(
    completed: Any, deployed: Api, project: Project
) -> None:
    """Module by name or as a command, worker or terminal: one key."""
    options = ["--keras.epochs", "4", "--keras.hidden", "32", "--keras.ranks", "2", "--xgboost.trees", "10"]
    assert project.run("flows.retrain", *options, "--model", "small-digits").code == 0
    newest = max((project.home / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    states = {node["node"]: node["state"] for node in json.loads(newest.read_text())["nodes"]}
    assert states["load_table"] == states["train_keras"] == states["train_xgboost"] == "cached"
    assert "completed" in states.values(), "the command has evaluated the new champion"
    planned = deployed.wait(
        deployed.start("retrain/nightly", {**OVERRIDES, "engine": {"mode": "plan"}}), timeout_s=200
    )
    assert planned["state_type"] == "COMPLETED", planned["state"]["message"]
    filters = {"flow_runs": {"id": {"any_": [planned["id"]]}}}
    (plan,) = (a for a in deployed.ask("/artifacts/filter", filters) if a["key"] == "plan")
    assert plan["description"] == "20 cached", plan["data"]
    assert deployed.ask("/task_runs/filter", filters) == []


def test_the_mlflow_server_holds_the_run(completed: Any, deployed: Api) -> None:
    base = f"{deployed.mlflow}/api/2.0/mlflow"
    experiment = deployed.ask("/experiments/get-by-name?experiment_name=retrain", base=base)["experiment"]
    search = {"experiment_ids": [experiment["experiment_id"]]}
    runs = deployed.ask("/runs/search", search, base=base)["runs"]
    parent = next(run for run in runs if run["info"]["run_name"] == completed["name"])
    assert parent["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in parent["data"]["tags"]}
    assert tags["prefect.flow_run_id"] == completed["id"]
    keras = next(run for run in runs if run["info"]["run_name"] == "train_keras")
    parameters = {p["key"]: p["value"] for p in keras["data"]["params"]}
    assert parameters["keras.epochs"] == "4"
    assert parameters["ranks"] == "2"


def test_a_schedule_fires(fired: Any) -> None:
    assert fired["auto_scheduled"]


def test_a_command_uses_the_servers_that_are_up_or_configured(deployed: Api, project: Project) -> None:
    """Found by `make up`'s register, or named by PREFECT_API_URL: no server of its own is started."""
    for environment in (
        {},
        {"PREFECT_API_URL": f"{deployed.prefect}/api", "ML_PLATFORM_HOME": f"{project.home}-2"},
    ):
        outcome = project.run("tests.scenarios.ticking", "--times", "41", "--json", **environment)
        assert outcome.code == 0, outcome.err
        assert outcome.json == 42
        assert f"ticking reports to {deployed.prefect}/api" in outcome.err


SMALLEST: dict[str, dict[str, Any]] = {
    "image-classification/weekly": {"trainers": ["xgboost"], "xgboost": {"trees": 5}},
    "tune/search": {
        "source": "sklearn:wine",
        "families": ["sklearn"],
        "study": {"trials": 2},
        "space": {"sklearn": {"estimator": "linear", "l2": {"low": 0.01, "high": 10, "log": True}}},
    },
}
"""Of each deployment that only a team with time runs: a run as small as its form allows."""


def _tasks(deployed: Api, run: Any) -> set[str]:
    found = deployed.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    return {each["name"] for each in found}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_deployment_plans_with_what_its_form_sends(name: str, deployed: Api) -> None:
    """Its entrypoint is found, and its parameters fit; nothing runs."""
    started = deployed.start(name, {**SMALLEST[name], "engine": {"mode": "plan"}})
    planned = deployed.wait(started, timeout_s=200)
    assert planned["state_type"] == "COMPLETED", planned["state"]["message"]
    filters = {"flow_runs": {"id": {"any_": [planned["id"]]}}}
    (plan,) = (a for a in deployed.ask("/artifacts/filter", filters) if a["key"] == "plan")
    wanted = "train_xgboost" if "image" in name else "try_sklearn-2"
    assert f"| {wanted} | **run** |" in plan["data"]
    assert _tasks(deployed, planned) == set()


@pytest.mark.timeout(600)
def test_images_are_learnt_through_the_api(deployed: Api) -> None:
    name = "image-classification/weekly"
    done = deployed.wait(deployed.start(name, SMALLEST[name]), timeout_s=500)
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    assert {"load_images", "train_xgboost", "promote", "score_images"} <= _tasks(deployed, done)


@pytest.mark.timeout(600)
def test_a_search_through_the_api_completes(deployed: Api) -> None:
    done = deployed.wait(deployed.start("tune/search", SMALLEST["tune/search"]), timeout_s=500)
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    assert {"train_sklearn", "judge", "report_study"} <= _tasks(deployed, done)


def test_a_cancel_through_the_api_ends_ranks_and_leaves_no_task_run_running(
    completed: Any, deployed: Api, project: Project
) -> None:
    """The button of the UI does the same. Only the training is new, and it would take an hour."""
    endless = {**OVERRIDES["keras"], "epochs": 10_000, "patience": 10_000}
    flow_run = deployed.start("retrain/nightly", {**OVERRIDES, "keras": endless})
    of_run = {"flow_runs": {"id": {"any_": [flow_run]}}}

    def states() -> dict[str, str]:
        return {run["name"]: run["state_type"] for run in deployed.ask("/task_runs/filter", of_run)}

    def trains() -> bool:
        """Ranks have told of an epoch."""
        base = f"{deployed.mlflow}/api/2.0/mlflow"
        found = deployed.ask("/experiments/get-by-name?experiment_name=retrain", base=base)["experiment"]
        search = {"experiment_ids": [found["experiment_id"]], "filter": "attributes.status = 'RUNNING'"}
        runs = deployed.ask("/runs/search", search, base=base).get("runs", [])
        return any(r["info"]["run_name"] == "train_keras" and r["data"].get("metrics") for r in runs)

    _wait(trains, timeout_s=200)
    deployed.ask(f"/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})
    assert deployed.wait(flow_run, timeout_s=100)["state_type"] == "CANCELLED"
    _wait(lambda: not {"RUNNING", "PENDING"} & set(states().values()), timeout_s=60)
    assert states()["train_keras"] in ("CRASHED", "FAILED"), (
        "its thread was stopped, or saw its ranks end first"
    )
    kinds = ("ml_platform.worker", "SparkSubmit")
    assert [command for command in project.leftovers() if any(kind in command for kind in kinds)] == []


@pytest.mark.browser
def test_the_pages_read_well_in_a_browser(completed: Any, deployed: Api, tmp_path: Path) -> None:
    """The run page shows the graph's tasks; the form shows titles, descriptions and defaults."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(f"{deployed.prefect}/runs/flow-run/{completed['id']}")
        page.get_by_text("train_keras").first.wait_for(timeout=60_000)
        page.screenshot(path=pictures / "prefect-run.png")
        page.goto(f"{deployed.prefect}/deployments/deployment/{completed['deployment_id']}/run")
        page.get_by_text("Column to predict.").first.wait_for(timeout=60_000)
        page.screenshot(path=pictures / "prefect-form.png", full_page=True)
        of_run = {"flow_runs": {"id": {"any_": [completed["id"]]}}}
        (graph,) = (a for a in deployed.ask("/artifacts/filter", of_run) if a["key"] == "graph")
        page.goto(f"{deployed.prefect}/artifacts/artifact/{graph['id']}")
        picture = page.locator("img[src^='data:image/svg+xml']").first
        picture.wait_for(timeout=60_000)
        assert picture.evaluate("image => image.naturalWidth") > 300
        page.screenshot(path=pictures / "prefect-graph.png")
        page.goto(f"{deployed.mlflow}/#/experiments")
        page.get_by_text("retrain").first.wait_for(timeout=60_000)
        browser.close()
