"""The definitions: read as Ray reads them, agreeing with each other, and listed by name."""

import os
import re
import shutil
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from ray.autoscaler._private.util import prepare_config, validate_config

from clusters.definitions import (
    HERE,
    ClusterConnectionError,
    find_definition,
    growth,
    head_address,
    read_definition,
)
from clusters.nodes import Node

LAUNCHERS = ["onprem.yaml", "aws.yaml"]
KUBERAY = ["raycluster.yaml", "rayjob.yaml"]
SCRIPT = HERE / "slurm" / "search.sbatch"


def kuberay_spec(name: str) -> Any:
    raw = yaml.safe_load((HERE / "kuberay" / name).read_text())
    assert raw["apiVersion"] == "ray.io/v1"
    return raw["spec"].get("rayClusterSpec", raw["spec"])


def starts(name: str) -> list[str]:
    """The lines with which a definition starts Ray."""
    if name.endswith(".sbatch"):
        return re.findall(r"ray start (?:[^\n]*\\\n)*[^\n]*", SCRIPT.read_text())
    raw = read_definition(HERE / name)
    lines = raw["head_start_ray_commands"] + raw["worker_start_ray_commands"]
    return [line for line in lines if "ray start" in line]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_rays_own_schema_takes_the_launchers_files(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate_config(prepare_config(yaml.safe_load((HERE / name).read_text())))


@pytest.mark.parametrize("name", KUBERAY)
def test_a_pod_has_what_kuberay_and_the_autoscaler_look_for(name: str) -> None:
    spec = kuberay_spec(name)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for part in (container, spec["autoscalerOptions"]):
            assert part["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    assert all(group["minReplicas"] == 0 for group in groups[1:])


def test_a_policy_lets_nobody_else_reach_a_port_of_any_pod() -> None:
    policy = yaml.safe_load((HERE / "kuberay" / "networkpolicy.yaml").read_text())
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    ours = policy["spec"]["podSelector"]["matchLabels"]
    for spec in map(kuberay_spec, KUBERAY):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert ours.items() <= group["template"]["metadata"]["labels"].items()
    (rule,) = policy["spec"]["ingress"]
    assert rule.keys() == {"from"}
    assert all(peer["podSelector"]["matchLabels"] for peer in rule["from"])  # {} would be all pods
    assert {"podSelector": {"matchLabels": ours}} in rule["from"]
    assert all(f"networkpolicy.yaml -f clusters/kuberay/{n}" in text(n) for n in KUBERAY)


def text(name: str) -> str:
    return (HERE / "kuberay" / name).read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", [*LAUNCHERS, "slurm/search.sbatch"])
@pytest.mark.parametrize("existing", ["nothing", "open", "link", "anothers"])
def test_ray_starts_only_with_a_folder_of_this_accounts_alone(
    tmp_path: Path, name: str, existing: str
) -> None:
    place = tmp_path / "ray"
    if existing == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    elif existing != "nothing":
        place.mkdir(mode=0o777)
    if existing == "anothers":
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a folder away")
        os.chown(place, 12345, 12345)
    for line in makes_folder(name):
        line = re.sub(r"/tmp/unfreeze-\$\(id -un\)", str(place), line)
        done = subprocess.run(["bash", "-c", f"{line} echo ready"], capture_output=True)
        good = existing in ("nothing", "open")
        assert (done.stdout == b"ready\n") is good
        assert not good or stat.S_IMODE(place.stat().st_mode) == 0o700


def makes_folder(name: str) -> list[str]:
    """What a definition does about Ray's folder before it starts Ray, each time it does."""
    if name.endswith(".sbatch"):
        script = SCRIPT.read_text()
        begin = script.index("export RAY_TMPDIR")
        line = script[begin : script.index("head=$(hostname)", begin)]
        return ["set -e; " + line.replace("srun --overlap --ntasks-per-node=1 ", "")]
    return [line.partition("ulimit")[0] for line in starts(name)]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_reads_the_slurm_script() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    options = re.findall(r"^#SBATCH --(\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert {"requeue", "open-mode=append", "signal=B:TERM@120", "exclusive"} <= set(options)


@pytest.mark.parametrize("name", [*LAUNCHERS, "slurm/search.sbatch"])
def test_all_start_ray_at_one_port_with_a_token_and_the_dashboard_on_loopback(name: str) -> None:
    text = (HERE / name).read_text()
    head, worker = starts(name)
    assert "--head --port=6379" in head and "--dashboard-host=127.0.0.1" in head
    assert "--address=" in worker
    if name.endswith("sbatch"):
        assert "export RAY_AUTH_MODE=token" in text and ":6379" in text
        assert "RAY_AUTH_TOKEN_PATH" in text and "umask 077" in text
    else:
        assert all("RAY_AUTH_MODE=token" in line for line in (head, worker))
        assert "--address=$RAY_HEAD_IP:6379" in worker
        assert "~/.ray/auth_token" in read_definition(HERE / name)["file_mounts"]
    assert "dashboard-host=0.0.0.0" not in text


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberays_agree_with_them(name: str) -> None:
    spec = kuberay_spec(name)
    assert spec["rayVersion"] == version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["port"] == "6379"


def test_a_cluster_that_stays_keeps_its_dashboard_on_loopback() -> None:
    head = kuberay_spec("raycluster.yaml")["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"


def test_all_run_one_python_and_the_pinned_ray() -> None:
    pins = (HERE / "constraints.txt").read_text()
    assert f"\nray=={version('ray')}\n" in pins
    assert "FROM python:3.11-slim" in (HERE / "Dockerfile").read_text()
    assert "--constraint src/clusters/constraints.txt" in (HERE / "Dockerfile").read_text()
    setup, _ = read_definition(HERE / "onprem.yaml")["setup_commands"]
    assert setup.endswith("PYTHON=python3.11")


def test_one_image_for_aws_and_kubernetes() -> None:
    specs = [kuberay_spec(name) for name in KUBERAY]
    images = {
        group["template"]["spec"]["containers"][0]["image"]
        for spec in specs
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    }
    assert images == {read_definition(HERE / "aws.yaml")["docker"]["image"]}


@pytest.mark.parametrize("cluster", ["local", "10.0.0.1:6379", "ray://10.0.0.1:10001"])
def test_an_address_has_no_file(cluster: str) -> None:
    assert find_definition(cluster) is None


def test_auto_on_a_head_is_what_ray_up_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_definition("auto") is None
    left = tmp_path / "ray_bootstrap_config.yaml"
    shutil.copy(HERE / "aws.yaml", left)
    assert find_definition("auto") == left


def test_a_cluster_is_defined_by_a_name_or_a_file(tmp_path: Path) -> None:
    assert find_definition("onprem") == HERE / "onprem.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text("provider: {type: local, head_ip: 10.0.0.7, worker_ips: []}\n")
    assert find_definition(str(mine)) == mine
    assert head_address(mine) == "10.0.0.7:6379"
    assert growth(mine) == []


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("onprm", "legal: local, auto, a head's address HOST:6379, onprem, aws, kuberay"),
        ("slurm", "sbatch "),
    ],
)
def test_an_unknown_name_is_refused_with_the_legal_ones(cluster: str, message: str) -> None:
    with pytest.raises(ClusterConnectionError, match=f"^cluster: {cluster}: ") as raised:
        find_definition(cluster)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["a: [", "a: 1\n", "- 1\n"])
def test_a_file_that_defines_nothing_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ClusterConnectionError, match=r"mine\.yaml: "):
        growth(file)


def test_kuberays_head_is_a_service() -> None:
    assert head_address(HERE / "kuberay" / "raycluster.yaml") == (
        "unfreeze-head-svc.default.svc:6379"
    )


def test_what_a_cluster_may_grow_to() -> None:
    gpu = Node(8, 1, {"accelerator_type:A10G": 1})
    assert growth(HERE / "aws.yaml") == [Node(0, 0), *[gpu] * 4]
    assert growth(HERE / "kuberay" / "raycluster.yaml") == [Node(8, 1)] * 4
    assert growth(HERE / "onprem.yaml") == []


def kuberay_with(group: dict[str, Any], file: Path) -> Path:
    """A RayCluster whose workers have these fields."""
    raw = yaml.safe_load((HERE / "kuberay" / "raycluster.yaml").read_text())
    (workers,) = raw["spec"]["workerGroupSpecs"]
    workers["template"]["spec"]["containers"][0]["resources"] = group.pop("container")
    file.write_text(yaml.safe_dump(raw | {"spec": {"workerGroupSpecs": [workers | group]}}))
    return file


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ({"container": {"limits": {"cpu": "500m", "memory": "2Gi"}}}, Node(1, 0)),
        ({"container": {"limits": {"cpu": 1.5, "nvidia.com/gpu": "2"}}}, Node(2, 2)),
        ({"container": {"limits": {"cpu": "2500m", "amd.com/gpu": 1}}}, Node(3, 1)),
        ({"container": {"requests": {"cpu": "3", "memory": "128974848"}}}, Node(3, 0)),
        ({"container": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1e1"}}}, Node(10, 0)),
        ({"container": {}, "rayStartParams": {"num-cpus": "6", "num-gpus": "1"}}, Node(6, 1)),
        ({"container": {"limits": {"cpu": 4}}, "resources": {"CPU": "2"}}, Node(2, 0)),
    ],
)
def test_a_pod_offers_what_its_group_says(
    tmp_path: Path, group: dict[str, Any], node: Node
) -> None:
    assert growth(kuberay_with(dict(group), tmp_path / "mine.yaml")) == [node] * 4


@pytest.mark.parametrize(
    "container", [{}, {"limits": {"memory": "2Gi"}}, {"limits": {"cpu": "many"}}]
)
def test_a_pod_without_a_count_of_cpus_is_refused(
    tmp_path: Path, container: dict[str, Any]
) -> None:
    file = kuberay_with({"container": container}, tmp_path / "mine.yaml")
    with pytest.raises(
        ClusterConnectionError, match=f"^cluster: {re.escape(str(file))}: "
    ) as raised:
        growth(file)
    assert "workers gpu: Ray cannot count their CPUs" in str(raised.value)
