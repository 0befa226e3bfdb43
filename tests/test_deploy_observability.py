"""The alerts and the dashboard ask for what the server really exports; the alerts fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import promql_parser as promql
import pytest
import yaml
from conftest import ROOT, scrape, until

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

Exported = dict[str, list[dict[str, str]]]  # each metric's series, by their labels


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """The title and the PromQL of each of the dashboard's queries, its variables filled in."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            called = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert called is not None
            yield variable["name"], f"sum by ({called[2]}) ({called[1]})"


QUERIES = [(rule["alert"], rule["expr"]) for rule in ALERTS] + list(dashboard_queries())


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    """Every selector in an expression."""
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(expression, visit)
    return found


def asked(expression: promql.Expr) -> Iterator[tuple[str, str, str | None]]:
    """Yields each metric, label and value that is asked for; None where any value will do."""
    for selector in selectors(expression):
        assert selector.name is not None
        for matcher in selector.matchers.matchers:
            exact = matcher.op == promql.MatchOp.Equal and not matcher.value.startswith("$")
            yield selector.name, matcher.name, matcher.value if exact else None

    groupings: list[tuple[promql.Expr, list[str]]] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            groupings.append((node.expr, node.modifier.labels))
        if isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
            groupings.append((node, node.modifier.matching.labels))

    promql.walk(expression, visit)
    for grouped, labels in groupings:
        for selector in selectors(grouped):
            assert selector.name is not None
            yield from ((selector.name, label, None) for label in labels)


def missing(expression: str, exported: Exported) -> set[str]:
    """What an expression asks for and no exported series has."""
    parsed = promql.parse(expression)
    assert selectors(parsed)
    wrong = {
        name for selector in selectors(parsed) if (name := selector.name or "") not in exported
    }
    for name, label, value in asked(parsed):
        series = exported.get(name, [])
        if series and not any(
            value in {None, labels[label]} for labels in series if label in labels
        ):
            wrong.add(f"{name}{{{label}={value!r}}}")
    return wrong


@pytest.fixture(scope="module")
def exported(
    start_server: Any, bundled_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """The series of a server of two workers that has answered and has refused a version."""
    models = shutil.copytree(bundled_models, tmp_path_factory.mktemp("deployed") / "models")
    shutil.copytree(models / "digitnet/1", models / "digitnet/2")
    (models / "digitnet/2/model.onnx").write_bytes(b"no onnx")
    server = start_server("--models", str(models), "--metrics-port", "0", "--workers", "2")
    with grpc.insecure_channel(server.address) as channel:
        PredictionServiceStub(channel).Predict(pb.PredictRequest(pixels=np.zeros(784)))
    until(lambda: any("mnist_requests_total" in sample for sample in scrape(server)))
    # What Prometheus adds to each series of a target, and its own metric about the target.
    target = {"job": "mnist-server", "instance": "localhost:50052"}
    series: Exported = {"up": [target]}
    for sample in scrape(server):
        name, _, labels = sample.partition("{")
        series.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)) | target)
    return series


@pytest.mark.parametrize(("where", "expression"), QUERIES)
def test_a_query_asks_for_what_is_exported(exported: Exported, where: str, expression: str) -> None:
    """Every metric, label and label value in an alert or a panel is one of a real server's."""
    assert not missing(expression, exported), where


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(mnist_calls_total[5m]))", "mnist_calls_total"),
        ("mnist_in_flight / on (job) mnist_inflight", "mnist_inflight"),
        ('mnist_dropped_total{cause="expired"}', "mnist_dropped_total{cause='expired'}"),
        ('mnist_dropped_total{reason="late"}', "mnist_dropped_total{reason='late'}"),
        ("sum by (status) (mnist_requests_total)", "mnist_requests_total{status=None}"),
        ("mnist_in_flight / on (model) up", "mnist_in_flight{model=None}"),
    ],
)
def test_a_query_of_what_is_not_exported_is_found(
    exported: Exported, expression: str, wrong: str
) -> None:
    """The check sees a wrong metric, label, value, grouping and matching."""
    assert wrong in missing(expression, exported)


def test_the_dashboard_shows_every_metric(exported: Exported) -> None:
    """No metric of ours is exported and never looked at."""
    family = re.compile("_(total|created|bucket|count|sum)$")
    shown = {
        family.sub("", selector.name or "")
        for _, expression in dashboard_queries()
        for selector in selectors(promql.parse(expression))
    }
    assert {family.sub("", name) for name in exported if name.startswith("mnist_")} <= shown


def test_the_dashboard_lets_its_reader_choose_the_data_source() -> None:
    """Every panel and query takes the variable, so it can be imported anywhere."""
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    uids = {part["datasource"]["uid"] for panel in PANELS for part in (panel, *panel["targets"])}
    assert uids == {"${datasource}"}


def test_panels_do_not_overlap() -> None:
    """Each place on the dashboard's 24 columns holds one panel, and each panel has its id."""
    places = [
        (x, y)
        for grid in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    """Whoever is woken knows how bad it is, what it is and where to look first."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "action"}
    assert all(text.endswith(".") for text in alert["annotations"].values())


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "config", "compose.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_agrees(arguments: tuple[str, ...]) -> None:
    """Prometheus reads the files, and each alert fires in its bad case and not in the good one."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: install Prometheus (Debian's package prometheus)")
    process = subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_every_alert_is_tested() -> None:
    """The bad cases name each alert, so that none is added without one."""
    tested = (PROMETHEUS / "alerts_test.yml").read_text()
    assert {rule["alert"] for rule in ALERTS} == set(re.findall(r'alertname(?:="|: )(\w+)', tested))
