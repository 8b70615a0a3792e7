"""The files that make clusters: valid for Ray and for the cloud, and closed as the security page says."""

import copy
import importlib.resources
import json
import re
import shlex
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from platonic_ray.engine.cluster import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
CLOUDS = ["cluster.yaml", "deploy/gcp.yaml"]
IDLE_WORKERS = "RAY_idle_worker_killing_time_threshold_ms"


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def pinned(package):
    (line,) = re.findall(rf"^{package}==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return line


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_takes_the_cluster_file(name):
    config = load(name)
    config["auth"].setdefault("ssh_private_key", "/dev/null")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["head_node_type"] == "head"


@pytest.mark.parametrize("name", CLOUDS)
def test_a_misspelled_key_is_refused(name):
    config = load(name)
    config["availabel_node_types"] = config.pop("available_node_types")
    with pytest.raises(Exception, match="availabel_node_types"):
        validate_config(config)


def parameters_of(node):
    """What Ray passes to EC2's RunInstances for a node type."""
    return {**node["node_config"], "MinCount": 1, "MaxCount": 1}


def run_instances_problems(parameters):
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    return ParamValidator().validate(parameters, shape)


def test_every_machine_is_one_that_ec2_can_be_asked_for():
    for name, node in load("cluster.yaml")["available_node_types"].items():
        problems = run_instances_problems(parameters_of(node))
        assert not problems.has_errors(), f"{name}: {problems.generate_report()}"


def test_a_misspelled_machine_is_found():
    parameters = parameters_of(load("cluster.yaml")["available_node_types"]["cpu"])
    parameters["InstanceMarketOption"] = parameters.pop("InstanceMarketOptions")
    assert "InstanceMarketOption" in run_instances_problems(parameters).generate_report()


def compute_engine_problems(given, schema, schemas, at="instance"):
    """What of a value Compute Engine's own description does not know: names, kinds, words of a choice."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object":
        if not isinstance(given, dict):
            return [f"{at} is no object"]
        known = schema["properties"]
        return [f"{at}.{name} is unknown" for name in given if name not in known] + [
            problem
            for name in given.keys() & known.keys()
            for problem in compute_engine_problems(given[name], known[name], schemas, f"{at}.{name}")
        ]
    if schema["type"] == "array":
        if not isinstance(given, list):
            return [f"{at} is no list"]
        return [
            problem for one in given for problem in compute_engine_problems(one, schema["items"], schemas, at)
        ]
    kinds = {"boolean": bool, "integer": int, "string": (str, int) if schema.get("format") else str}
    if not isinstance(given, kinds[schema["type"]]):
        return [f"{at} is no {schema['type']}"]
    return [f"{at} is {given}"] if given not in schema.get("enum", [given]) else []


def test_every_machine_is_one_that_compute_engine_can_be_asked_for():
    described = importlib.resources.files("googleapiclient.discovery_cache.documents") / "compute.v1.json"
    schemas = json.loads(described.read_text())["schemas"]
    instance = schemas["Instance"]
    nodes = load("deploy/gcp.yaml")["available_node_types"]
    for name, node in nodes.items():
        assert not compute_engine_problems(node["node_config"], instance, schemas, name)
    wrong = copy.deepcopy(nodes["gpu_small"]["node_config"])
    wrong["scheduling"]["provisioningModel"] = "SPOTTY"
    wrong["disks"][0]["autodelete"] = wrong["disks"][0].pop("autoDelete")
    wrong["guestAccelerators"][0]["acceleratorCount"] = "one"
    assert sorted(compute_engine_problems(wrong, instance, schemas)) == [
        "instance.disks.autodelete is unknown",
        "instance.guestAccelerators.acceleratorCount is no integer",
        "instance.scheduling.provisioningModel is SPOTTY",
    ]


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_runs_no_task_and_workers_are_spot_machines_that_begin_at_none(name):
    nodes = load(name)["available_node_types"]
    head = nodes.pop("head")
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "spot" not in str(head).lower()
    assert sum("gpu" in node for node in nodes) == 2
    for node in nodes.values():
        assert set(node["resources"]) <= {"CPU", "GPU"}  # a run asks for nothing else by name
        assert node["min_workers"] == 0 < node["max_workers"]
        assert "spot" in str(node["node_config"]).lower()


@pytest.mark.parametrize("name", CLOUDS)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_the_head(name):
    config = load(name)
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for part in ("head", "worker"):
        (command,) = [line for line in config[f"{part}_start_ray_commands"] if "ray start" in line]
        assert "ulimit -n 65536" in command
        assert f"export RAY_AUTH_MODE=token {IDLE_WORKERS}={SETTINGS[IDLE_WORKERS]};" in command
        arguments = shlex.split(command.partition("ray start")[2])
        options = start.make_context(
            "start", arguments, resilient_parsing=False
        ).params  # Ray knows each option
        assert options["object_spilling_directory"] == "/mnt/platonic-ray"
        if part == "head":
            assert options["dashboard_host"] == "127.0.0.1"


@pytest.mark.parametrize("name", CLOUDS)
def test_nodes_have_the_versions_that_constraints_name(name):
    config = load(name)
    assert config["docker"]["image"].startswith(f"rayproject/ray:{pinned('ray')}-py311")
    assert any("-c constraints.txt" in command for command in config["setup_commands"])


def test_a_group_of_ones_own_and_roles_that_reach_one_bucket_alone():
    provider = load("cluster.yaml")["provider"]
    assert len(provider["availability_zone"].split(",")) >= 3

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")
    template = (ROOT / "deploy/aws-access.yaml").read_text()
    # CloudFormation refuses a template with aliases.
    assert not any(isinstance(token, yaml.AliasToken) for token in yaml.scan(template))
    access = yaml.load(template, Loader)["Resources"]
    assert access["Group"]["Properties"]["GroupName"] == provider["security_group"]["GroupName"]
    assert "0.0.0.0/0" not in str(access)
    profiles = {
        entry["Properties"]["InstanceProfileName"]
        for entry in access.values()
        if entry["Type"] == "AWS::IAM::InstanceProfile"
    }
    nodes = load("cluster.yaml")["available_node_types"]
    assert {node["node_config"]["IamInstanceProfile"]["Name"] for node in nodes.values()} == profiles
    statements = access["StoreAccess"]["Properties"]["PolicyDocument"]["Statement"]
    assert all("arn:aws:s3:::${Bucket}" in statement["Resource"] for statement in statements)
    autoscaler = access["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert not any("s3:" in str(statement["Action"]) for statement in autoscaler)
    (passing,) = [s for s in autoscaler if "iam:PassRole" in s["Action"]]
    assert passing["Resource"] == "!GetAtt WorkerRole.Arn"


def test_the_kubernetes_job_matches_the_other_clusters():
    config_map, job = yaml.safe_load_all((ROOT / "deploy/kuberay.yaml").read_text())
    assert "[[models]]" in config_map["data"]["study.toml"]
    assert job["kind"] == "RayJob"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        spill = group["rayStartParams"]["object-spilling-directory"]
        assert {"name": "spill", "mountPath": spill} in container["volumeMounts"]
        assert {"name": IDLE_WORKERS, "value": SETTINGS[IDLE_WORKERS]} in container["env"]
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in cluster["workerGroupSpecs"])
