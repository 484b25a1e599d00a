"""A real Airflow on this machine: its four processes, started on free ports under one folder and stopped by pid.

The demo and the end-to-end tests run on it. Settings are those under which Airflow 3.3 on SQLite holds: a long busy
timeout and few parallel tasks, without which the scheduler dies of a locked database.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psutil

from spillway.testing.servers import free_port

COMPONENTS: Final = ("api-server", "scheduler", "dag-processor", "triggerer")
HEALTHY_WITHIN_SECONDS: Final = 180.0
STOPPED_WITHIN_SECONDS: Final = 20.0


class AirflowStackError(Exception):
    """A process of the stack ended, or did not get healthy in time; the message ends with its log."""


@dataclass(kw_only=True)
class AirflowStack:
    """One Airflow deployment below `home`.

    Attributes:
        home: AIRFLOW_HOME; kept after stopping.
        project: The folder with `dags/` and `plugins/`.
        pools_file: The pools of the deployment.
        settings: Environment variables that override the stack's own.
    """

    home: Path
    project: Path
    pools_file: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    _client: httpx.Client | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Choose free ports and write down the environment of every process."""
        self.home.mkdir(parents=True, exist_ok=True)
        ports = [free_port() for _ in range(3)]
        self.port = self.port or ports[0]
        self.env = {**_inherited_env(), **self._own_env(ports[1:]), **self.settings}

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start everything; stop what was started when something fails."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.stop()

    def start(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Make the database, start the four processes and wait until they are healthy.

        Args:
            on_wait: Told what is being waited for.
        """
        self._client = httpx.Client(base_url=self.url, timeout=60, auth=_Administrator())
        on_wait("Airflow's database")
        self.run("db", "migrate")
        for component in COMPONENTS:
            self.start_component(component)
        on_wait("Airflow's processes")
        self.wait_until(self._is_healthy, "Airflow to be healthy", HEALTHY_WITHIN_SECONDS)

    def start_component(self, component: str) -> None:
        """Start one process of the stack in a session of its own, its output in `<component>.out`."""
        out = self.home / f"{component}.out"
        with out.open("ab") as log:
            self._processes[component] = subprocess.Popen(  # noqa: S603 # our own command line
                [sys.executable, "-m", "airflow", component],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def revive(self) -> None:
        """Start again what has ended, as whatever keeps a deployment running would."""
        for component, process in list(self._processes.items()):
            if process.poll() is not None:
                self.start_component(component)

    def kill_component(self, component: str) -> None:
        """End a process and its children with SIGKILL, as a machine that is lost would."""
        process = self._processes.pop(component)
        children = psutil.Process(process.pid).children(recursive=True)
        _signal(process.pid, signal.SIGKILL)  # first, or it would notice its children's deaths
        for child in children:
            _signal(child.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop every process and whatever they started, within seconds."""
        families = [psutil.Process(p.pid) for p in self._processes.values() if p.poll() is None]
        members = [m for f in families for m in (f, *f.children(recursive=True))]
        for family in families:
            _signal(family.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(members, timeout=STOPPED_WITHIN_SECONDS)
        for member in alive:
            _signal(member.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        if self._client is not None:
            self._client.close()

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an `airflow` command line to its end.

        Raises:
            AirflowStackError: It failed; the message has its output.
        """
        done = subprocess.run(  # noqa: S603 # our own command line
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=HEALTHY_WITHIN_SECONDS,
        )
        if check and done.returncode:
            raise AirflowStackError(
                f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done

    # ---- the REST API -----------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Call `/api/v2/<path>` as an administrator; return the JSON answer, or None for an empty one."""
        assert self._client is not None, "start it first"
        try:
            answer = self._client.request(method, f"/api/v2/{path}", json=body)
        except httpx.HTTPError as error:
            raise AirflowStackError(f"{method} {path}: {error!r}{self._logs()}") from error
        if answer.is_error:
            raise AirflowStackError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG is parsed and stored; raises when its file does not import."""
        errors = self.request("GET", "importErrors")["import_errors"]
        if errors:
            raise AirflowStackError(f"DAG files do not import:\n{json.dumps(errors, indent=1)}")
        dags = self.request("GET", "dags?limit=100")["dags"]
        return any(dag["dag_id"] == dag_id for dag in dags)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Unpause the DAG, trigger a run by hand and return its id."""
        self.wait_until(lambda: self.has_dag(dag_id), f"DAG {dag_id} to be parsed", 120)
        self.request("PATCH", f"dags/{dag_id}", {"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.request("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        state: str = self.request("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run, as the REST API has them."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200"
        instances: list[dict[str, Any]] = self.request("GET", path)["task_instances"]
        return instances

    def wait_until(
        self,
        condition: Callable[[], bool],
        what: str,
        within_seconds: float,
        *,
        every_seconds: float = 1.0,
    ) -> None:
        """Look every so often until `condition` holds.

        Raises:
            AirflowStackError: It did not within `within_seconds`, or a process of the stack ended.
        """
        end = time.monotonic() + within_seconds
        while not condition():
            self._check_alive()
            if time.monotonic() > end:
                raise AirflowStackError(f"waited {within_seconds:.0f} s for {what}{self._logs()}")
            time.sleep(every_seconds)  # Airflow tells nobody when; the deadline ends it

    # ---- inside -----------------------------------------------------------------------------------------------

    def _is_healthy(self) -> bool:
        assert self._client is not None
        try:
            health = self._client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health.get(part, {}).get("status") == "healthy" for part in parts)

    def _check_alive(self) -> None:
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise AirflowStackError(
                    f"airflow {component} ended with {process.returncode}{self._logs()}"
                )

    def _logs(self) -> str:
        tails = []
        for component in COMPONENTS:
            out = self.home / f"{component}.out"
            if out.exists():
                tails.append(f"\n--- {component}\n{out.read_text(errors='replace')[-1500:]}")
        return "".join(tails)

    def _own_env(self, ports: list[int]) -> dict[str, str]:
        settings: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.project / "dags",
                "plugins_folder": self.project / "plugins",
                "load_examples": False,
                "executor": "LocalExecutor",
                "parallelism": 4,
                "execution_api_server_url": f"{self.url}/execution/",
                "simple_auth_manager_all_admins": True,
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.home}/airflow.db?timeout=60"},
            "api": {"host": "127.0.0.1", "port": self.port, "base_url": self.url, "workers": 1},
            "api_auth": {"jwt_secret": secrets.token_hex(64)},
            # Runs start when somebody starts them: a demo or a test does not want tonight's as well.
            "scheduler": {
                "use_job_schedule": False,
                "scheduler_idle_sleep_time": 0.5,
                "enable_health_check": False,
            },
            # A file that changes is parsed at the next refresh; parsing the others again is work for nothing.
            "dag_processor": {"refresh_interval": 20, "min_file_process_interval": 3600},
            "logging": {"worker_log_server_port": ports[0], "trigger_log_server_port": ports[1]},
            "spillway": {"pools_file": self.pools_file, "poll_seconds": 1},
        }
        env = {
            f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
            for section, options in settings.items()
            for name, value in options.items()
        }
        return {**env, "AIRFLOW_HOME": str(self.home)}


class _Administrator(httpx.Auth):
    """Gets a token, and another when that is over."""

    requires_response_body = True
    _token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Send the request with the token there is, and once more with a new one if it is not accepted."""
        for is_new in (self._token is None, True):
            if is_new:
                answer = yield httpx.Request("GET", request.url.copy_with(raw_path=b"/auth/token"))
                self._token = answer.raise_for_status().json()["access_token"]
            request.headers["Authorization"] = f"Bearer {self._token}"
            answer = yield request
            if is_new or answer.status_code != httpx.codes.UNAUTHORIZED:
                return


def _inherited_env() -> dict[str, str]:
    """Return this process's environment without Airflow settings of other deployments.

    Byte code is wanted: without it every Airflow process compiles everything again, and tasks time out at import.
    """
    unwanted = ("AIRFLOW", "PYTHONDONTWRITEBYTECODE", "_AIRFLOW")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
