"""The packages on a pod: over the image's torch, once for a set of pins; a real venv and pip, and one tiny wheel."""

import zipfile

import pytest
import sshd
from pod_project import send

from moola_lib.files import read_json
from moola_lib.runs.pods.environment import plan_environment
from moola_lib.runs.pods.preflight import Facts

FACTS = Facts("/workspace/moola", 40.0, "/usr/bin/python3", "3.12.3", "2.8.0+cu128", 1, True, "abc", "")


def build_wheel(folder, name, version, *needs):
    """Write a wheel with one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        wheel.writestr(f"{info}/METADATA", "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def write_pins(root, dependencies, constraints):
    (root / "pyproject.toml").write_text(f'[project]\nname = "toy"\ndependencies = {dependencies}\n'.replace("'", '"'))
    (root / "constraints.txt").write_text("".join(f"{line}\n" for line in constraints))


def test_torch_is_held_to_what_the_image_has_and_asked_of_nobody(tmp_path):
    write_pins(tmp_path, ["numpy", "torch", "torchjd"], ["numpy==2.4.6", "torch==2.13.0", "torchjd==0.18.0"])
    plan = plan_environment(tmp_path, FACTS)
    assert plan["requirements"] == ["numpy", "torchjd"]
    assert plan["constraints"] == ["numpy==2.4.6", "torchjd==0.18.0", "torch==2.8.0+cu128"]


def test_an_environment_is_another_where_anything_it_rests_on_is(tmp_path):
    write_pins(tmp_path, ["numpy"], ["numpy==2.4.6"])
    first = plan_environment(tmp_path, FACTS)["folder"]
    assert plan_environment(tmp_path, FACTS)["folder"] == first
    others = [
        plan_environment(tmp_path, Facts(**{**FACTS.__dict__, **change}))["folder"]
        for change in ({"torch_version": "2.9.0"}, {"python_version": "3.12.4"})
    ]
    write_pins(tmp_path, ["numpy"], ["numpy==2.4.7"])
    others.append(plan_environment(tmp_path, FACTS)["folder"])
    assert len({first, *others}) == 4


@pytest.mark.pod
@pytest.mark.slow
def test_packages_are_installed_once_and_torch_never(home, tmp_path, capsys):
    sshd.require()
    wheels = tmp_path / "wheels"
    build_wheel(wheels, "tiny", "1.0", "torch>=2.6")
    build_wheel(wheels, "tiny", "2.0", "torch>=2.6")
    build_wheel(wheels, "torch", "2.13.0")  # a newer one that must not be taken
    pod = sshd.LocalPod(tmp_path / "pod", PIP_NO_INDEX="1", PIP_FIND_LINKS=wheels).start()
    try:
        write_pins(home, ["torch", "tiny"], ["tiny==1.0", "torch==2.13.0"])
        assert send(pod, "3", "--run-id", "one", python=None) == 0
        assert "packages: installed, torch 2.8.0+cu128 is the image's own" in capsys.readouterr().out
        (venv,) = pod.volume.glob("venv-*/bin/python")
        answer = pod.shell(f"{venv} -c 'import tiny, torch; print(tiny.__version__, torch.__version__)'")
        assert answer.split() == ["1.0", "2.8.0+cu128"]
        assert read_json(home / "data/pods/one.json")["torch"] == "2.8.0+cu128"
        assert send(pod, "3", "--run-id", "two", python=None) == 0
        assert "packages: as they were" in capsys.readouterr().out
        write_pins(home, ["torch", "absent"], [])
        assert send(pod, "3", "--run-id", "three", python=None) == 2
        assert "could not be installed" in (err := capsys.readouterr().err) and "absent" in err
    finally:
        pod.kill()
