"""The files of ``docker/``: what linters and schemas say of them, and that they agree with one another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from jetflow.settings import SETTINGS
from jetflow.worker.options import WorkerOptions
from tests.docker.dockerfile import stages_of

ROOT: Final = Path(__file__).parents[2]
DOCKER: Final = ROOT / "docker"
VARIABLES: Final = {setting.variable for setting in SETTINGS} | {"JETFLOW_DASHBOARD_TOKEN"}
HARDENED: Final = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def tool(name: str, *arguments: str) -> str:
    """Run a checker of the dev extra, which has to be content."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def composed(*files: str) -> dict[str, Any]:
    """Return compose files as docker compose reads them."""
    named = [part for file in files for part in ("--file", f"docker/{file}")]
    return json.loads(tool("docker-compose", *named, "--env-file", "docker/example.env", "config", "--format", "json"))


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """What kustomize makes of ``docker/kubernetes``."""
    return [*yaml.safe_load_all(tool("kubectl", "kustomize", "docker/kubernetes"))]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


# --- images


@pytest.mark.parametrize(
    "file", ["docker/Dockerfile", "docker/example/Dockerfile", "jetflow/cli/new_project/Dockerfile.txt"]
)
def test_hadolint_has_nothing_to_say(file: str) -> None:
    assert tool("hadolint", "--failure-threshold", "info", file) == ""


def test_images_are_slim_run_as_nobody_and_start_by_exec() -> None:
    stages = stages_of(DOCKER / "Dockerfile")
    assert stages["base"].base.endswith("-slim")
    for name in ("worker", "dashboard"):
        stage = stages[name]
        assert stage.base == "base"
        assert stage.last("USER") == "10001:10001"
        assert stage.exec_form("ENTRYPOINT") == ["jetflow"]
        assert stage.exec_form("HEALTHCHECK")[:2] == ["jetflow", "health"]
        assert not any(step.instruction == "RUN" for step in stage.steps)  # no tool of the build is in it
    assert [*stages][-1] == "worker"  # what is built where no target is named


# --- compose


def test_compose_reads_its_files() -> None:
    one = composed("compose.yaml")
    assert set(one["services"]) == {"nats", "setup", "worker", "dashboard", "service"}
    assert one["services"]["worker"]["deploy"]["replicas"] == 2
    three = composed("compose.yaml", "compose.cluster.yaml")
    assert set(three["services"]) == set(one["services"]) - {"nats"} | {"nats-1", "nats-2", "nats-3"}
    assert three["services"]["setup"]["command"][-2:] == ["--replicas", "3"]
    assert "nats" not in three["services"]["setup"]["depends_on"]
    assert three["services"]["worker"]["environment"]["NATS_URL"].count("nats-") == 3


def test_a_worker_has_longer_to_stop_than_its_steps_may_go_on(manifests: list[dict[str, Any]]) -> None:
    worker = composed("compose.yaml")["services"]["worker"]
    assert float(worker["stop_grace_period"].removesuffix("s")) > float(worker["environment"]["JETFLOW_GRACE"])
    pod = of_kind(manifests, "Deployment")["worker"]["spec"]["template"]["spec"]
    grace = next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == "JETFLOW_GRACE")
    assert pod["terminationGracePeriodSeconds"] > float(grace) >= WorkerOptions().grace


def test_only_settings_that_exist_are_set(manifests: list[dict[str, Any]]) -> None:
    services = composed("compose.yaml", "compose.cluster.yaml")["services"].items()
    said = {name for service, one in services if not service.startswith("nats") for name in one.get("environment", {})}
    said |= {key for one in of_kind(manifests, "ConfigMap").values() for key in one["data"]}
    for workload in (*of_kind(manifests, "Deployment").values(), *of_kind(manifests, "Job").values()):
        said |= {one["name"] for one in workload["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert said
    assert said <= VARIABLES


def test_no_service_has_a_password_of_another() -> None:
    services = composed("compose.yaml")["services"]
    users = {"setup": "operator", "worker": "worker", "dashboard": "viewer", "service": "trigger"}
    for name, role in users.items():
        environment = services[name]["environment"]
        assert environment["NATS_USER"] == f"default-{role}"
        assert environment["NATS_PASSWORD"] == f"change-me-{role}"
        assert environment["JETFLOW_INBOX_PREFIX"] == f"_INBOX.default.{role}"
    for name in ("worker", "dashboard", "service"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]


# --- Kubernetes


def test_manifests_fit_their_schemas(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    known = [one for one in manifests if one["kind"] != "ScaledObject"]  # no schema of Kubernetes' own
    file.write_text(yaml.safe_dump_all(known))
    said = tool("kubernetes-validate", "--strict", str(file))
    assert said.count(" passed ") == len(known)


def test_pods_may_do_nothing_and_say_what_they_need(manifests: list[dict[str, Any]]) -> None:
    workloads = [*of_kind(manifests, "Deployment").values(), *of_kind(manifests, "Job").values()]
    assert len(workloads) == 3
    for workload in workloads:
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        assert container["securityContext"] == HARDENED
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert ":" in container["image"]
        assert not container["image"].endswith(":latest")


def test_workers_are_probed_kept_and_fenced(manifests: list[dict[str, Any]]) -> None:
    worker = of_kind(manifests, "Deployment")["worker"]
    labels = worker["spec"]["template"]["metadata"]["labels"]
    [container] = worker["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"][:2] == ["jetflow", "health"]
        assert container[probe]["timeoutSeconds"] >= 10  # a Python has to start
    assert container["livenessProbe"]["exec"]["command"][2:] == ["--alive"]
    budget = of_kind(manifests, "PodDisruptionBudget")["worker"]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"].items() <= labels.items()) == (1, True)
    policy = of_kind(manifests, "NetworkPolicy")["jetflow"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ingress" not in policy
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_workers_are_scaled_by_the_lag_of_consumers_that_exist(manifests: list[dict[str, Any]]) -> None:
    """Of the steps of the example's workflows, by what KEDA's scaler of JetStream asks for."""
    sys.path.insert(0, str(DOCKER / "example"))
    try:
        import flows  # pyright: ignore[reportMissingImports] # noqa: PLC0415
    finally:
        sys.path.pop(0)
    workflows: list[Any] = [flows.order, flows.pack]
    consumers = {f"{one.name}={step}" for one in workflows for step in one.consumed_steps}
    scaled = of_kind(manifests, "ScaledObject")["worker"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind(manifests, "Deployment")
    assert "replicas" not in of_kind(manifests, "Deployment")["worker"]["spec"]  # KEDA's
    assert 1 <= scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "nats-jetstream"
        said = trigger["metadata"]
        assert set(said) == {
            *("natsServerMonitoringEndpoint", "account", "stream", "consumer"),
            *("lagThreshold", "activationLagThreshold", "useHttps"),
        }
        assert all(isinstance(value, str) for value in said.values())  # as KEDA wants them
        assert (said["account"], said["stream"]) == ("default", "JF_default_tasks")
        assert said["consumer"] in consumers
