"""A server on this machine that speaks as much of Google's APIs as a launch needs: Dataflow, and tokens."""

import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_ACTIVE = ("JOB_STATE_PENDING", "JOB_STATE_RUNNING")
TOKEN = "ya29.TOKENSECRET"
_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+)(/messages)?)?")

# What a worker does with a job, in a process of its own: every function is unpickled, and then all steps run.
_WORK = """
import base64, bz2, re, sys
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from mbt.pipeline import storage
data = storage.read(sys.argv[1])
for pickled in re.findall(rb"QlpoO[A-Za-z0-9+/]{20,}=*", data):
    loaded = pickler.loads(pickled)
    print(*(type(each).__name__ for each in (loaded if isinstance(loaded, tuple) else [loaded])))
heavy = {"tensorflow", "jax", "flax"} & set(sys.modules)
assert not heavy, heavy
proto = beam_runner_api_pb2.Pipeline.FromString(data)
for environment in proto.components.environments.values():
    environment.urn, environment.payload = "beam:env:embedded_python:v1", b""
    del environment.dependencies[:]
if "run" in sys.argv:
    FnApiRunner().run_via_runner_api(proto, PipelineOptions([])).wait_until_finish()
"""


class FakeDataflow:
    """Takes jobs.

    Attributes:
      url: what to give as `--dataflow_endpoint`.
      jobs: that arrived, as JSON, each with its id and state.
      tokens: what requests came with.
      errors: of jobs that ended, by id.
      is_broken: whether questions for a job get an answer that is worth no second try.
      work: called with a job when it is first asked for; None for a good end, the error of which it dies, or
        "JOB_STATE_RUNNING" to go on.
    """

    def __init__(self) -> None:
        self.url = ""
        self.jobs: list[dict] = []
        self.tokens: set[str | None] = set()
        self.is_broken = False
        self.work: Callable[[dict], str | None] = lambda job: "no workers here"
        self.errors: dict[str, str] = {}

    def add(self, name: str, state: str = "JOB_STATE_RUNNING") -> dict:
        """A job, as of another launcher."""
        self.jobs.append({"id": f"id-{len(self.jobs)}", "name": name, "currentState": state})
        return self.jobs[-1]

    def end(self, job: dict, said: str | None) -> None:
        """Ends a job with an error, or well."""
        self.errors[job["id"]] = said or ""
        job["currentState"] = "JOB_STATE_FAILED" if said else "JOB_STATE_DONE"

    def answer(self, method: str, path: str, body: dict) -> dict | None:
        """What the service says; None where it has no such page."""
        if not (match := _JOBS.fullmatch(path)):
            return None
        if match[3] and self.is_broken:
            return None
        if match[3]:
            job = next(job for job in self.jobs if job["id"] == match[3])
            return self._messages(job) if match[4] else self._looked_at(job)
        if method == "GET":
            return {"jobs": [job for job in self.jobs if job["currentState"] in _ACTIVE]}
        job = self.add(body["name"], _ACTIVE[0])
        job |= body | {"projectId": match[1], "location": match[2]}
        return job

    def _looked_at(self, job: dict) -> dict:
        if job["currentState"] == _ACTIVE[0]:
            said = self.work(job)
            if said == "JOB_STATE_RUNNING":
                job["currentState"] = said
            else:
                self.end(job, said)
        return job

    def _messages(self, job: dict) -> dict:
        said = self.errors.get(job["id"])
        message = {"id": "1", "time": "2030-01-01T00:00:00Z", "messageImportance": "JOB_MESSAGE_ERROR"}
        return {"jobMessages": [message | {"messageText": said}] if said else []}


def pipeline_url(job: dict) -> str:
    """Where the staged pipeline of a job is."""
    return job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]


def working(env: dict[str, str], python: str = sys.executable) -> Callable[[dict], str | None]:
    """`FakeDataflow.work` that has the job's functions unpickled and run by another process, in another folder."""

    def work(job: dict) -> str | None:
        command = [python, "-c", _WORK, pipeline_url(job), "run"]
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=300, check=False)
        job["unpickled"] = done.stdout.split()
        return done.stderr[-3000:] if done.returncode else None

    return work


def write_credentials(path: Path, url: str) -> dict[str, str]:
    """Writes a service account's key whose tokens the server at `url` gives; returns the environment that names it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "me@my-project.iam", "project_id": "my-project"}
    path.write_text(json.dumps(account | {"private_key": pem, "token_uri": f"{url}/token", "private_key_id": "1"}))
    # What else Google's library would ask for, it asks of a port of this machine where nobody answers.
    elsewhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,127.0.0.1"}
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "NO_GCE_CHECK": "true"} | elsewhere


@contextlib.contextmanager
def serving() -> Iterator[FakeDataflow]:
    """Runs the server for the block."""
    fake = FakeDataflow()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            if path == "/token":
                answer: dict | None = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
            else:
                fake.tokens.add(self.headers.get("Authorization"))
                answer = fake.answer(self.command, path, json.loads(body or b"{}"))
            data = json.dumps(answer or {"error": {"code": 400, "message": "no such page"}}).encode()
            self.send_response(400 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET  # noqa: N815  the server asks for these names

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.url = f"http://localhost:{server.server_port}"  # Beam speaks HTTP to this name only
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
