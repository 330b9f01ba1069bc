"""No secret of the environment is in any file that a search leaves, nor in what it prints."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune.execution import class_cache

from search.reporting.console import lasting_console
from search.reporting.progress import Lines
from search.running.driver import run
from search.running.tune.internals import configure_tune
from search.tracking import tracking

SECRET = "canary-7f3a"
PLANTED = {
    name: f"{SECRET}-{name}"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_ACCESS_KEY",
        "GOOGLE_API_KEY",
        "HF_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "WANDB_API_KEY",
    )
}
TRACKING = f"http://{SECRET}-token:x@127.0.0.1:1/"


def test_tune_copies_no_key_into_the_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE)
    configure_tune()
    cache: Any = class_cache._ActorClassCache
    made = cache().get(type("Trial", (), {}))
    passed = made._default_options["runtime_env"]["env_vars"]
    assert passed["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
    assert SECRET not in str(passed)


@pytest.mark.slow  # a complete search in a new Ray
@pytest.mark.parametrize("study", ["journal", "database"])
def test_no_file_that_a_search_leaves_has_a_secret(
    make_search: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    study: str,
) -> None:
    if study == "database":  # whose server trusts any password
        url = request.getfixturevalue("postgresql").replace(":any@", f":{SECRET}-study@")
        monkeypatch.setenv("UNFREEZE_STUDY", url)
    for name, value in {**PLANTED, "MLFLOW_TRACKING_URI": TRACKING}.items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "UNKNOWN_SECONDS", 0.5)  # no server answers there
    seen: list[str | None] = []

    def keep_rays_files() -> None:
        seen.append(ray.get(ray.remote(lambda: os.environ.get("AWS_SECRET_ACCESS_KEY")).remote()))
        files = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent / "ray"
        shutdown()
        no_files = shutil.ignore_patterns("sockets")
        shutil.copytree(files, tmp_path / "ray", ignore=no_files, symlinks=True)

    shutdown = ray.shutdown
    monkeypatch.setattr(ray, "shutdown", keep_rays_files)
    monkeypatch.setattr(tempfile, "tempdir", None)
    config = make_search(
        {
            "search.trials": 1,
            "train.unfreeze.epochs": 1,
            "train.unfreeze.batch_size": 2,
            "search.asha": "off",
        }
    )
    run(config, Lines(lasting_console()))
    assert seen == [PLANTED["AWS_SECRET_ACCESS_KEY"]]  # workers have it from their environment
    printed = "".join(capfd.readouterr())
    assert "trial 0 finished" in printed and SECRET not in printed
    files = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink()]
    names = {file.name for file in files}
    assert {"raylet.out", "runtime_env_agent.log", "search.yaml", "best.pt"} <= names
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
