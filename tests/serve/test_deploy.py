"""Deployments: every file valid by its own format's rules, the same each time, and nothing secret in any."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import compose_spec
import jsonschema
import kubernetes_validate
import pydantic
import pytest
import yaml

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise
from windlass.cli import main as cli
from windlass.cli import serve as serve_command
from windlass.core.errors import InputError, NotFound
from windlass.core.records import ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.serve.deploy.bundle import find
from windlass.serve.deploy.writing import CHART, Settings, deploy

SHAPE = TransformerConfig(300, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=32, context=64)
KUBERNETES = "1.33"


def add_model(ws: Workspace, name: str = "Tiny Model") -> str:
    decoder = Decoder(SHAPE)
    initialise(decoder, 0)
    with ws.artifacts.build("model", name.replace(" ", "-")) as draft:
        save_model(decoder, draft.path, bos=0, eos=0)
        (draft.path / "tokenizer.json").write_text("{}")
    return draft.done.record.name


@pytest.fixture
def ws(tmp_path):
    with Workspace(tmp_path / "home") as workspace:
        add_model(workspace)
        yield workspace


@pytest.fixture
def made(ws, tmp_path) -> Path:
    deploy(ws, find(ws, "Tiny-Model"), tmp_path / "out", Settings())
    return tmp_path / "out"


def documents(folder: Path) -> list[tuple[str, dict]]:
    return [
        (path.name, document)
        for path in sorted((folder / "kubernetes").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def test_the_dockerfile_runs_as_nobody_and_is_watched(made):
    lines = [line.partition(" ") for line in (made / "Dockerfile").read_text().splitlines()]
    values = {name: value for name, _, value in lines if name.isupper()}  # the last of each, so those of the last stage
    assert values["USER"] == "10001:10001" and values["STOPSIGNAL"] == "SIGTERM" and "HEALTHCHECK" in values
    base = values["FROM"].split()[0]
    assert ":" in base and not base.endswith(":latest")
    assert json.loads(values["CMD" if "CMD" in values else "ENTRYPOINT"])  # a list: signals reach the program itself


def test_kernels_are_compiled_where_the_compiler_stays_behind(made):
    build, last = (made / "Dockerfile").read_text().split("FROM ")[1:]
    assert "g++" in build and "g++" not in last and "apt-get" not in last
    module, folder = build.split("bin/python -m ")[1].split()[:2]
    assert importlib.util.find_spec(module) is not None
    assert f"WINDLASS_KERNELS={folder} " in last and folder.startswith("/opt/windlass/")
    assert "COPY --from=packages /opt/windlass /opt/windlass" in last
    assert f"Environment=WINDLASS_KERNELS={folder}\n" in (made / "windlass.service").read_text()


def linter() -> str:
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    return found or pytest.skip("hadolint is not installed")


def test_the_dockerfile_passes_its_linter(made):
    done = subprocess.run([linter(), made / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    (made / "Dockerfile").write_text("FROM python\nRUN cd /tmp && pip install x\n")
    assert subprocess.run([linter(), made / "Dockerfile"], capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ["compose.yaml", "vllm/compose.yaml"])
def test_compose_files_follow_the_specification(made, name):
    content = yaml.safe_load((made / name).read_text())
    services = content["services"]
    assert list(compose_spec.ComposeSpecification.model_validate(content).services) == list(services)
    known = {item.alias or key for key, item in compose_spec.Service.model_fields.items()}
    for service in services.values():
        assert set(service) <= known
    with pytest.raises(pydantic.ValidationError):  # it would notice
        compose_spec.ComposeSpecification.model_validate({"services": {"a": {"init": ["yes"]}}})
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_kubernetes_objects_follow_their_schemas(made):
    kinds = set()
    for name, document in documents(made):
        if document["kind"] == "Kustomization":
            assert sorted(document["resources"]) == sorted(n for n, _ in documents(made) if n != name)
            continue
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        kinds.add(document["kind"])
    assert kinds == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}


def test_the_chart_gives_the_manifests_and_leaves_open_what_a_cluster_decides(made):
    chart = made / "helm" / "windlass-tiny-model"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    plain = {name: document for name, document in documents(made) if document["kind"] != "Kustomization"}
    assert rendered(chart, values) == plain

    ours = {"image": "registry.example/tiny:7", "replicas": {"fewest": 3, "most": 9}, "queue": 7, "cores": 4}
    changed = rendered(chart, values | ours | {"memory": "3Gi", "memoryLimit": "5Gi"})
    for document in changed.values():
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    container = changed["deployment.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/tiny:7"
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "3Gi"}, "limits": {"memory": "5Gi"}}
    scaler = changed["autoscaler.yaml"]["spec"]
    assert (
        (scaler["minReplicas"], scaler["maxReplicas"]) == (changed["deployment.yaml"]["spec"]["replicas"], 9) == (3, 9)
    )
    assert scaler["metrics"][0]["pods"]["target"]["averageValue"] == "7"


def rendered(chart: Path, values: dict) -> dict[str, dict]:
    """As Helm does where templates name values and do nothing else; anything else fails."""

    def value(found: re.Match[str]) -> str:
        place = values
        for step in found[1].split("."):
            place = place[step]
        assert isinstance(place, str | int)
        return str(place)

    texts = {
        path.name: re.sub(r"\{\{ \.Values\.([\w.]+) \}\}", value, path.read_text())
        for path in sorted((chart / "templates").iterdir())
    }
    assert not [name for name, text in texts.items() if "{{" in text or "}}" in text]
    return {name: yaml.safe_load(text) for name, text in texts.items()}


def test_the_chart_says_what_helm_wants_to_know(made):
    chart = made / "helm" / "windlass-tiny-model"
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert set(about) == {"apiVersion", "name", "description", "type", "version", "appVersion"}
    assert about["apiVersion"] == "v2" and about["type"] == "application"
    assert about["name"] == chart.name and re.fullmatch(r"[a-z0-9][a-z0-9-]*", about["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", about["version"]) and isinstance(about["appVersion"], str)

    schema = json.loads((chart / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    values = yaml.safe_load((chart / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    assert {*values} - {"replicas"} | {"replicas.fewest", "replicas.most"} == {*CHART.values()}
    for wrong in ({"replica": 3}, {"queue": "4"}, {"memory": "3 GB"}, {"replicas": {"fewest": 0, "most": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values | wrong, schema)


def test_the_schemas_would_notice(made):
    deployment = dict(documents(made))["deployment.yaml"]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_kubernetes_objects_belong_together(made):
    objects = {document["kind"]: document for _, document in documents(made)}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "windlass_requests_in_progress"
    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert type(objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]) is int
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["key"] == "api-key"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_understood_by_systemd(made, tmp_path):
    text = (made / "windlass.service").read_text().replace("/opt/windlass/bin/windlass", sys.executable)
    (tmp_path / "windlass.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "windlass.service"], capture_output=True, text=True
    )
    assert "windlass.service" not in done.stderr, done.stderr


def test_the_command_line_is_one_that_the_server_takes(made):
    parser = argparse.ArgumentParser()
    serve_command.configure(parser)
    said = next(line for line in (made / "Dockerfile").read_text().splitlines() if line.startswith("CMD"))
    program, *options = json.loads(said.removeprefix("CMD "))
    assert program == "serve" and parser.parse_args(options).api_key_env == "WINDLASS_API_KEY"
    unit = next(line for line in (made / "windlass.service").read_text().splitlines() if line.startswith("ExecStart"))
    _, program, *options = shlex.split(unit.removeprefix("ExecStart="))
    assert program == "serve" and parser.parse_args(options).port == 8080


def test_the_bundle_is_a_workspace_with_this_model_alone(ws, tmp_path):
    other = add_model(ws, "other")
    made = deploy(ws, find(ws, "Tiny-Model"), tmp_path / "out", Settings())
    with Workspace(tmp_path / "out" / "workspace") as packed:
        assert [record.name for record in packed.store.artifacts()] == ["Tiny-Model"]
        packed.artifacts.verify(packed.artifacts.get("Tiny-Model"))
        assert packed.artifacts.find(other) is None
    assert made.bytes > 0 and made.need is not None


def test_a_release_takes_its_parts_along(ws, tmp_path):
    with ws.artifacts.build("index", "docs") as index:
        (index.path / "index.bin").write_text("x")
    with ws.artifacts.build("corpus", "unneeded") as corpus:
        (corpus.path / "c").write_text("y")
    with ws.artifacts.build("variant", "assistant") as variant:
        (variant.path / "variant.json").write_text("{}")
        variant.add_parent("index", index.done)
    row = ReleaseRecord(0, "assistant", variant.done.digest, None, "promote", "first", None, 1.0)
    ws.store.add_release(row, expected=None)
    made = deploy(ws, find(ws, "assistant"), tmp_path / "out", Settings())
    assert made.need is None and not (tmp_path / "out" / "vllm").exists() and "No vLLM" in made.notes[0]
    with Workspace(tmp_path / "out" / "workspace") as packed:
        assert {record.kind for record in packed.store.artifacts()} == {"variant", "index"}
        assert packed.store.releases("assistant")[0].variant == variant.done.digest
    for _, document in documents(tmp_path / "out"):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert "USER 10001:10001" in (tmp_path / "out" / "Dockerfile").read_text()
    assert "g++" not in (tmp_path / "out" / "Dockerfile").read_text(), "the model runs elsewhere"


def test_the_same_model_gives_the_same_files_without_secrets(ws, tmp_path, monkeypatch):
    monkeypatch.setenv("WINDLASS_API_KEY", "sk-do-not-write-me-anywhere")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nor-me-0123456789")
    first = deploy(ws, find(ws, "Tiny-Model"), tmp_path / "a", Settings())
    second = deploy(ws, find(ws, "Tiny-Model"), tmp_path / "b", Settings())
    again = deploy(ws, find(ws, "Tiny-Model"), tmp_path / "a", Settings())
    assert first.files == second.files == again.files
    for name in first.files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for path in tmp_path.joinpath("a").rglob("*"):
        if path.is_file():
            assert b"sk-" not in path.read_bytes().replace(b"task-", b""), path


def test_a_long_name_is_cut_to_one_that_clusters_take(ws, tmp_path):
    name = add_model(ws, f"Llama-{'x' * 33}-7B")
    deploy(ws, find(ws, name), tmp_path / "out", Settings())
    for _, document in documents(tmp_path / "out"):
        if document["kind"] != "Kustomization":
            assert document["metadata"]["name"] == f"windlass-llama-{'x' * 33}"


def test_settings_reach_the_files(ws, tmp_path):
    settings = Settings("registry.example/team/tiny:7", 9000, "int8", 4096, 4, (3, 9), 7)
    deploy(ws, find(ws, "Tiny-Model"), tmp_path / "out", settings)
    objects = {document["kind"]: document for _, document in documents(tmp_path / "out")}
    assert objects["Deployment"]["spec"]["replicas"] == 3
    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/team/tiny:7" and container["ports"][0]["containerPort"] == 9000
    assert container["resources"]["requests"]["cpu"] == "4"
    assert objects["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "7"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"replicas": (3, 2)}, "rise"),
        ({"port": 80}, "without rights"),
        ({"cores": 0}, "--cores"),
        ({"image": "Bad Name"}, "no name of an image"),
    ],
)
def test_wrong_wishes_are_named(wish, said):
    with pytest.raises(InputError, match=said):
        Settings(**wish)


def test_what_cannot_be_deployed_is_named(ws, tmp_path):
    with pytest.raises(NotFound, match="neither a model nor a task"):
        find(ws, "nobody")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        deploy(ws, find(ws, "Tiny-Model"), tmp_path / "mine", Settings())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="no policy"):
        deploy(ws, find(ws, "Tiny-Model"), tmp_path / "out", Settings(policy="int3"))


def test_the_command(ws, tmp_path, capsys):
    ws.close()
    assert cli.main(["deploy", "Tiny-Model", str(tmp_path / "out"), "--workspace", str(tmp_path / "home")]) == 0
    said = capsys.readouterr().out
    assert "Dockerfile" in said and "MiB while loading (estimated)" in said
    assert cli.main(["deploy", "x", str(tmp_path / "out"), "--workspace", str(tmp_path / "home")]) == 2
