"""The task for SkyPilot users: what it asks for exists here, and SkyPilot reads it where it is installed."""

import re
from pathlib import Path

import pytest
import yaml

from moola_lib.runs.arguments import build_parser
from moola_lib.runs.project import resolve_stem

ROOT = Path(__file__).parent.parent
PATH = ROOT / "params" / "runpod" / "skypilot.yaml"
TASK = yaml.safe_load(PATH.read_text())


def test_the_task_is_for_runpod_and_leaves_the_images_torch_alone():
    assert TASK["resources"]["infra"] == "runpod"
    assert re.fullmatch(r"docker:runpod/pytorch:.*-torch2\d\d-ubuntu2404", TASK["resources"]["image_id"])
    assert "--system-site-packages" in TASK["setup"] and "grep -v '^torch=='" in TASK["setup"]
    assert not {"num_nodes", "service", "storage"} & set(TASK), "SkyPilot has none of them on RunPod"


def test_the_task_sends_what_its_profile_reads_and_runs_what_is_here():
    bars = yaml.safe_load((PATH.parent / "01_feature_validation.yaml").read_text())["bars"]
    assert TASK["file_mounts"] == {f"~/sky_workdir/{bars}": bars}
    arguments = build_parser().parse_args(TASK["run"].split("moola ")[1].split())
    assert arguments.profile == PATH.parent.name
    assert all(resolve_stem(stem, ROOT) for stem in arguments.stems)


def test_every_fact_of_the_task_gives_its_reason():
    lines = PATH.read_text().split("setup:")[0].splitlines()
    facts = [line for line in lines if re.match(r"\s+\S+: \S|workdir", line) and not line.startswith("#")]
    assert len(facts) >= 5 and all("  # " in line for line in facts)


def test_skypilot_reads_the_task():
    sky = pytest.importorskip("sky", reason="skypilot is not installed; it is no dependency")
    task = sky.Task.from_yaml(str(PATH))
    (resources,) = task.resources
    assert str(resources.cloud) == "RunPod" and resources.accelerators == {"RTX4090": 1}
