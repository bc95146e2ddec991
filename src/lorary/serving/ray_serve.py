"""Libraries behind one address, answered by replicas in a Ray cluster.

`lorary serve --replicas N --backend ray` runs it. Who has a cluster with Ray Serve deploys it there: from Python by
`serve.run(deployment(Served(libraries=["libs/mbc"], replicas=4)))`, from a file of Ray Serve's by
`import_path: lorary.serving.ray_serve:deployment`, with the fields of `Served` as its `args`.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from lorary.adapters.contract import Mix
from lorary.disk.reading import absolute_name
from lorary.errors import BuildError, OptionError
from lorary.extras import require_extra
from lorary.folder import DEFAULT_ROUTER, ROUTERS
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.progress import Tell
from lorary.serving.app import Options, make_app
from lorary.serving.run import bind, on_end
from lorary.serving.scheduler import Limits
from lorary.serving.shelf import Shelf
from lorary.using.base_of import base_of
from lorary.work.backends.ray import Ray, cluster

NAME = "lorary"
_DRAIN_S = 5.0  # for answers under way when a replica is to end; less than what `lorary serve` may take to end
_LOOK_S = 0.5
_OURS = re.compile(r"error\[[A-Z0-9-]+\] .*")
_ENDPOINTS = 16  # requests beside the answers that a replica is busy with: lists of models, questions for its health


class Served(BaseModel):
    """Libraries over one base, and how each of n replicas serves them; paths mean the same on all machines.

    loading: what `load_base` is given; rows, waiting, max_new_tokens, api_key, watch_s, origins: of each replica, as
    `Limits` and `Options` have them. cpus: cores, and threads, of each; gpus: 0.25 puts four replicas on one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    libraries: Annotated[tuple[str, ...], Field(min_length=1)]
    routers: Annotated[tuple[str, ...], Field(min_length=1)] = (DEFAULT_ROUTER,)
    mix: Mix = "factors"
    base: str | None = None
    loading: Mapping[str, Any] = Field(default_factory=dict)
    replicas: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    rows: Annotated[int, Field(ge=1)] = 32
    waiting: Annotated[int, Field(ge=1)] = 128
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    api_key: str | None = None
    watch_s: Annotated[float, Field(gt=0)] | None = None
    origins: tuple[str, ...] = ()

    def settled(self) -> "Served":
        """Give the same with absolute paths and the base by name.

        Raises what is wrong with it, as far as that shows before anything large is read: E-LIBRARY, E-NAME, E-BASE, ...
        """
        opened = [Library.open(path) for path in self.libraries]
        for spec in self.routers:
            ROUTERS.parse(spec)
        base = self.base or base_of(opened[0])
        self.options(print)
        return self.model_copy(update={
            "libraries": tuple(str(library.path.absolute()) for library in opened), "base": absolute_name(base),
        })  # fmt: skip

    @property
    def n_at_once(self) -> int:
        """The most requests that a replica may be busy with before it refuses some itself."""
        return self.waiting + self.rows * (1 + len(self.libraries) * (len(self.routers) + 1)) + _ENDPOINTS

    def options(self, tell: Any) -> Options:
        """How each replica serves. Raises E-OPTION."""
        return Options(
            Limits(rows=self.rows, waiting=self.waiting), self.api_key, self.max_new_tokens, watch_s=self.watch_s,
            tell=tell, is_replica=True, origins=self.origins,
        )  # fmt: skip

    def make(self) -> FastAPI:
        """Load the base, route the libraries, and give the application of one replica, in the replica's process."""
        torch.set_num_threads(max(1, int(self.cpus)))
        base = load_base(self.base, **self.loading)
        shelf = Shelf(base, [Library.open(path) for path in self.libraries], self.routers, self.mix)
        return make_app(shelf, self.options(logging.getLogger("ray.serve").info))


def deployment(served: Served) -> Any:
    """Give the application that Ray Serve runs: n replicas, each with the same FastAPI app as `lorary serve` alone.

    Raises E-EXTRA, and what is wrong with what is to be served.
    """
    require_extra("replicas", "serving by replicas")
    from ray import serve

    settled = served.settled()

    def make() -> FastAPI:
        return settled.make()

    described = serve.deployment(
        name=NAME,
        num_replicas=settled.replicas,
        ray_actor_options={"num_cpus": settled.cpus, "num_gpus": settled.gpus},
        max_ongoing_requests=settled.n_at_once,
        max_queued_requests=settled.waiting,  # when all replicas are full; else they would wait without bound
        graceful_shutdown_wait_loop_s=_LOOK_S,
        graceful_shutdown_timeout_s=_DRAIN_S,
    )
    return described(serve.ingress(make)()).bind()


def run(served: Served, where: Ray, *, host: str, port: int, on_ready: Tell, tell: Tell) -> None:
    """Serve until SIGINT or SIGTERM: then nobody else is let in, and answers under way get some seconds.

    on_ready: hears the address once all replicas answer; tell: how many do when that changes. Raises E-PORT, E-WORKER
    for a cluster that isn't there or runs Ray Serve already, E-OPTION for replicas that have no room, and what keeps
    them from starting.
    """
    application = deployment(served)
    port = _free_port(host, port, where)
    ended = threading.Event()
    with cluster(where.address) as ray, on_end(ended.set):  # Ray, too, would end this process, but at once
        from ray import serve

        _require_room(ray, served, where)
        if serve.status().proxies:
            hint = "Deploy lorary.serving.ray_serve:deployment there, or end it with: serve shutdown."
            raise BuildError("E-WORKER", "Ray Serve runs in this cluster already, with an address of its own.", hint)
        with _serving(serve, host, port):
            target = serve.RunTarget(target=application, name=NAME, route_prefix="/")
            serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
            _follow(serve, served, ended, lambda: on_ready(f"http://{host}:{port}"), tell)


def _follow(serve: Any, served: Served, ended: threading.Event, on_ready: Callable[[], None], tell: Tell) -> None:
    """Watch the replicas until the end is asked for. Raises why they can't start."""
    before, is_ready = 0, False
    while not ended.wait(_LOOK_S):
        found = serve.status().applications[NAME]
        replicas = found.deployments.get(NAME)
        if not is_ready:
            told = f"{found.message}\n{replicas.message if replicas else ''}"
            if (ours := _OURS.findall(told)) or found.status == "DEPLOY_FAILED":
                reason = ours[-1] if ours else " ".join(told.split())
                raise BuildError("E-WORKER", f"the replicas can't start: {reason}")
        n_running = replicas.replica_states.get("RUNNING", 0) if replicas else 0
        if n_running != before and (is_ready or n_running < served.replicas):
            tell(f"{n_running} of {served.replicas} replicas answer")
        if not is_ready and found.status == "RUNNING":
            is_ready = True
            on_ready()
        before = n_running


@contextlib.contextmanager
def _serving(serve: Any, host: str, port: int) -> Iterator[None]:
    """Run Ray Serve in the cluster for a `with` block, quietly."""
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # of this process; the rest is said by `quiet`
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=quiet)
    try:
        yield
    finally:
        serve.shutdown()


def _require_room(ray: Any, served: Served, where: Ray) -> None:
    """Refuse what never fits on this machine; a cluster may grow. Raises E-OPTION."""
    if where.address is not None:
        return
    there = ray.cluster_resources()
    for what, each, word in (("CPU", served.cpus, "cpus"), ("GPU", served.gpus, "gpus")):
        if each * served.replicas > there.get(what, 0):
            raise OptionError(
                "E-OPTION",
                f"{served.replicas} replicas of {each:g} {what} each don't fit on this machine, which has "
                f"{there.get(what, 0):g}.",
                f"Ask for fewer, or for less each: --backend ray:{word}=0.5, or name a cluster: ray:address=auto.",
            )


def _free_port(host: str, port: int, where: Ray) -> int:
    """Give the port for the proxy, which runs on this machine unless the cluster is another's. Raises E-PORT."""
    if where.address is not None:
        if not port:
            raise OptionError("E-PORT", "--port 0 can't be found out in a cluster that runs already.", "Name a port.")
        return port
    with bind(host, port) as taken:
        found: int = taken.getsockname()[1]
    return found
