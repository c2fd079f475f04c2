"""A tracked run against MLflow and TensorBoard themselves.

    python tests/peers/tracking_check.py --xtask target/release/xtask [--profile smoke] [--only GLOB]

Starts an MLflow server that asks for a name and a password, runs a profile twice (killed once, then to its end) with
every tracker, and reads the result with MLflow's client, MLflow's file store and TensorBoard's own reader: every run is
there once, nested, with the figures of `summary.json`, the points of `events.jsonl`, and its files. Then the same for a
small search: its trials are runs within it, and their cells within those.
Needs mlflow and tensorboard of the versions in tests/peers/tracking_requirements.txt.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


PASSWORD = "a password: of this test"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_server(folder, port):
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts",
        "--app-name", "basic-auth",
    ]
    log = open(folder / "server.log", "w")
    # It keeps its users in the folder it is started in.
    secrets = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    environment = os.environ | secrets
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
            return server
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.5)
    raise SystemExit("the MLflow server did not start")


def points_of(log):
    """Curve -> [(step, value)] in the log's order, figures among them."""
    points = {}
    for line in log.read_text().splitlines():
        line = json.loads(line)
        if line["event"] == "metric":
            # Away from zero at a half, as the program rounds; places are positive.
            points.setdefault(line["name"], []).append((int(line["at"] + 0.5), float(line["value"])))
        if line["event"] == "figures":
            for name, value in line["values"].items():
                points.setdefault("figures/" + name, []).append((0, float(value)))
    return points


def check_mlflow(client, profile, out, cells, files_of):
    experiment = client.get_experiment_by_name(profile)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_id = {run.data.tags["vitad.id"]: run for run in runs}
    assert len(by_id) == len(runs) == len(cells) + 1, (len(by_id), len(runs), len(cells))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1, parents
    parent = parents[0]
    assert parent.info.status == "FINISHED", parent.info
    assert parent.data.metrics["figures/cells"] == len(cells), parent.data.metrics
    report = files_of(parent.info.run_id, "report.html")
    assert report == (out / "report.html").read_bytes()
    count = 0
    for cell in cells:
        run = by_id[cell["cell"]]
        assert run.info.status == "FINISHED", run.info
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["seed"] == str(cell["seed"]) and run.data.params["method"] == cell["method"]
        for selection, result in cell["results"].items():
            figure = run.data.metrics[f"figures/{selection}/image_auroc"]
            assert figure == result["image_auroc"], (cell["cell"], selection, figure)
        folder = out / "cells" / cell["cell"]
        for name, points in points_of(folder / "events.jsonl").items():
            history = client.get_metric_history(run.info.run_id, name)
            found = sorted((metric.step, metric.value) for metric in history)
            assert found == sorted(points), (cell["cell"], name, found, points)
            count += len(points)
        for name in ["result.json", "scores.csv", "pictures/most-0.png"]:
            assert files_of(run.info.run_id, name) == (folder / name).read_bytes(), name
    return count


def check_tensorboard(folder, out, cells):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    runs = sorted(path for path in folder.iterdir())
    assert len(runs) == len(cells) + 1, runs
    expected = {cell["cell"]: points_of(out / "cells" / cell["cell"] / "events.jsonl") for cell in cells}
    count = 0
    found = set()
    for path in runs:
        assert len(list(path.iterdir())) == 1, path
        reader = event_accumulator.EventAccumulator(str(path), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0})
        reader.Reload()
        content = reader.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        content = reader.summary_metadata["_hparams_/session_end_info"].plugin_data.content
        end = plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info
        assert end.status == 1, end
        described = reader.Tensors("run")[0].tensor_proto.string_val[0].decode()
        points = [points for cell, points in expected.items() if described_by(described, cell, cells)]
        if not points:
            assert set(reader.Tags()["scalars"]) == {"figures/cells", "figures/failed", "figures/unfinished"}
            continue
        [points] = points
        name = described.splitlines()[0]
        assert start.hparams["method"].string_value == name.split("/")[0], start
        scalars = set(reader.Tags()["scalars"])
        assert scalars == set(points), (scalars, set(points))
        for tag, values in points.items():
            read = sorted((event.step, round(event.value, 5)) for event in reader.Scalars(tag))
            # The file holds 32 bits of each value.
            wanted = sorted((step, round(as_f32(value), 5)) for step, value in values)
            assert read == wanted, (name, tag, read, wanted)
            count += len(read)
        images = reader.Tags()["images"]
        assert "pictures/most-0" in images, images
        image = reader.Images("pictures/most-0")[0]
        assert image.width > 0 and image.encoded_image_string.startswith(b"\x89PNG")
        found.add(name)
    assert len(found) == len({name_of(cell) for cell in cells}), found
    return count


PROFILE = """
description = "nearest neighbours, to be tuned"
[[entry]]
method = "pixel-knn"
dataset = "fashion-mnist-sample"
protocol = "unimodal"
categories = ["0", "8"]
train_limit = 40
held_out = 0.25
"""
SPACE = """
[metric]
choice = ["l2", "cosine"]
[image_size]
choice = [14, 28]
"""


def check_search(client, xtask, folder, url):
    (folder / "knn.toml").write_text(PROFILE)
    (folder / "space.toml").write_text(SPACE)
    command = [xtask, "tune", folder / "knn.toml", "--space", folder / "space.toml", "--out", folder / "search"]
    command += ["--device", "cpu", "--trials", "4", "--budget", "k=1,2", "--track", f"mlflow={url}"]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True)
    study = json.loads((folder / "search" / "tuning.json").read_text())
    experiment = client.get_experiment_by_name("knn")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    below = {}
    for run in runs:
        below.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run)
    [search] = below[None]
    best = study["trials"][study["best"]]["rungs"][-1]["value"]
    assert search.info.status == "FINISHED" and search.data.metrics["figures/best/image_auroc"] == best, search
    trials = {int(run.data.params["trial"]): run for run in below[search.info.run_id]}
    assert sorted(trials) == [0, 1, 2, 3], trials
    cells = 0
    for trial in study["trials"]:
        run = trials[trial["number"]]
        points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "image_auroc")]
        assert sorted(points) == [(rung["budget"], rung["value"]) for rung in trial["rungs"]], (points, trial)
        assert run.info.status == ("FINISHED" if trial["state"] == "complete" else "KILLED"), run.info
        own = {cell for rung in trial["rungs"] for cell in rung["cells"]}
        for cell in below.get(run.info.run_id, []):
            assert cell.data.tags["vitad.id"] in own and cell.info.status == "FINISHED", cell
            cells += 1
    assert len(runs) == 1 + len(trials) + cells, len(runs)
    return cells


def name_of(cell):
    return "/".join([cell["method"], cell["dataset"], cell["protocol"], cell["category"], f"seed{cell['seed']}"])


def described_by(text, cell, cells):
    """Whether the run's text is of this cell: two settings of one method share their name, not their configuration."""
    record = next(known for known in cells if known["cell"] == cell)
    if text.splitlines()[0] != name_of(record):
        return False
    backbone = f"| backbone | {record.get('backbone')} |" in text
    return backbone if record.get("backbone") else "| backbone |" not in text


def as_f32(value):
    import struct

    return struct.unpack("<f", struct.pack("<f", value))[0]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--xtask", required=True)
    options.add_argument("--profile", default="smoke")
    options.add_argument("--only", default="*")
    options = options.parse_args()
    # The server is on this machine, whatever proxy there is.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = "admin", PASSWORD
    import mlflow
    from mlflow import MlflowClient

    folder = pathlib.Path(tempfile.mkdtemp(prefix="vitad-tracking-"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start_server(folder, port)
    try:
        out = folder / "out"
        command = [options.xtask, "reproduce", "--profile", options.profile, "--out", out, "--device", "cpu"]
        command += ["--only", options.only, "--track", "tensorboard", "--track", f"mlflow={url}"]
        command += ["--track", f"mlflow={folder}/mlruns"]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = 0
        # Some cells are finished then, and others are at work.
        while done < 3 and run.poll() is None:
            time.sleep(0.2)
            done = len(list((out / "cells").iterdir())) if (out / "cells").exists() else 0
        time.sleep(3)
        run.send_signal(signal.SIGKILL)
        run.wait()
        told = subprocess.run(command, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr
        assert "MLflow" not in told.stderr, told.stderr
        cells = json.loads((out / "summary.json").read_text())

        client = MlflowClient(tracking_uri=url)
        mlflow.set_tracking_uri(url)

        def from_server(run, name):
            return pathlib.Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path=name)).read_bytes()

        profile = pathlib.Path(options.profile).stem
        served = check_mlflow(client, profile, out, cells, from_server)
        print(f"MLflow {mlflow.__version__} server: {len(cells)} cells in one matrix, {served} points, files")

        refused = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MLFLOW_TRACKING_PASSWORD": "x"})
        assert "status 401" in refused.stderr, refused.stderr
        nested = check_search(client, options.xtask, folder, url)
        print(f"a search of 4 trials with {nested} cells, nested; who gives another password is refused")

        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        files = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())

        def from_files(run, name):
            uri = files.get_run(run).info.artifact_uri
            assert uri.startswith("file://"), uri
            return pathlib.Path(uri[len("file://"):], name).read_bytes()

        stored = check_mlflow(files, profile, out, cells, from_files)
        print(f"MLflow {mlflow.__version__} file store: the same, {stored} points")
        read = check_tensorboard(out / "tensorboard" / profile, out, cells)
        import tensorboard

        print(f"TensorBoard {tensorboard.__version__}: the same, {read} points, pictures, hyperparameters")
        print(f"killed once, with {done} cells finished")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    import shutil

    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
