"""The pods of a Deployment, in a cluster of one small HTTP server that speaks the API's shapes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from contextlib import asynccontextmanager
from math import nan
from pathlib import Path

import pytest

from controllers.scaling.agent_scaler import AgentScaler
from glowsim.core.types import InstanceChanged
from glowsim.live.calls import InstanceError

COST = "controller.kubernetes.io/pod-deletion-cost"
SCALE = "/apis/apps/v1/namespaces/fleet/deployments/tax/scale"
DEADLINE_S = 60.0
PODS = "/api/v1/namespaces/fleet/pods"


@pytest.fixture(autouse=True)
def _cluster_client(_serving):
    try:
        from kubernetes.aio.client import ApiClient, AppsV1Api, CoreV1Api  # noqa: F401  # slow, so not in a test
    except ImportError:
        if os.environ.get("GLOWSIM_CI") == "1":
            raise
        pytest.skip("the kubernetes extra is not installed")


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """What was slept, in seconds; nothing takes time."""
    slept, sleep = [], asyncio.sleep

    async def at_once(delay, result=None):
        if delay:
            slept.append(delay)
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", at_once)
    return slept


class Cluster:
    """One Deployment with its ReplicaSet, and the part of the API that has to do with its number and its pods."""

    def __init__(self, replicas=0, comes_up=True):
        self.replicas = replicas
        self.version = 100
        self.oldest = 0
        """Events up to here are forgotten."""
        self.pods = {}
        self.events = []
        self.changed = asyncio.Event()
        self.watches = []
        """(response, from which version)."""
        self.asked = []
        self.refusals = {}
        """(method, path's end) -> answers to give before anything is done."""
        self.comes_up = comes_up
        """Whether a new pod gets ready."""
        self.lingers = False
        """Whether a pod that is deleted stays until `reap`."""
        self._numbers = itertools.count(1)
        self.reconcile()

    # --- what Kubernetes does -------------------------------------------------------------------------

    def _told(self, kind, pod):
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, {"type": kind, "object": json.loads(json.dumps(pod))}))
        self.changed.set()

    def reconcile(self):
        """Have as many pods as are wanted: kubernetes.io, "ReplicaSet", "Scaling a ReplicaSet"."""
        live = [pod for pod in self.pods.values() if "deletionTimestamp" not in pod["metadata"]]
        for _ in range(self.replicas - len(live)):
            self.make()

        def rank(pod):
            annotations = pod["metadata"].get("annotations", {})
            return (
                ready(pod),
                int(annotations.get(COST, 0)),
                -int(pod["metadata"]["name"].rpartition("-")[2]),
            )

        for pod in sorted(live, key=rank)[: max(0, len(live) - self.replicas)]:
            self.delete(pod["metadata"]["name"])

    def make(self):
        number = next(self._numbers)
        name = f"tax-{number}"
        self.pods[name] = {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "fleet"},
            "status": {
                "phase": "Pending",
                "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
        }
        self._told("ADDED", self.pods[name])
        if self.comes_up:
            self.up(name)

    def up(self, name):
        self.pods[name]["status"] = {
            "phase": "Running",
            "podIP": f"10.0.0.{name.rpartition('-')[2]}",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"running": {}}}],
        }
        self._told("MODIFIED", self.pods[name])

    def delete(self, name):
        self.pods[name]["metadata"]["deletionTimestamp"] = "2026-11-22T17:00:00Z"
        self._told("MODIFIED", self.pods[name])
        if not self.lingers:
            self.reap(name)
        self.reconcile()

    def evict(self, name):
        """End a pod that stays listed, as the kubelet does."""
        self.pods[name]["status"] = {"phase": "Failed", "reason": "Evicted"}
        self._told("MODIFIED", self.pods[name])

    def reap(self, name):
        self._told("DELETED", self.pods.pop(name))

    def annotations(self):
        return {name: pod["metadata"].get("annotations") for name, pod in self.pods.items()}

    # --- what the API answers -------------------------------------------------------------------------

    async def handle(self, request):
        from aiohttp import web

        asked = (request.method, request.path.rpartition("/")[2])
        self.asked.append((*asked, dict(request.query), await request.text()))
        if self.refusals.get(asked):
            status, headers = self.refusals[asked].pop(0)
            return web.json_response(failure(status), status=status, headers=headers)
        if request.path == SCALE:
            return self._scale(request)
        if request.path == PODS and "watch" in request.query:
            return await self._watch(request)
        if request.path == PODS:
            assert request.query["labelSelector"] == "app=tax"
            items = list(self.pods.values())
            return web.json_response(
                {"kind": "PodList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
            )
        name = request.path.rpartition("/")[2]
        if name not in self.pods:
            return web.json_response(failure(404), status=404)
        if request.method == "DELETE":
            self.delete(name)
        else:
            self._annotate(request, name)
        return web.json_response(self.pods.get(name, {}))

    def _scale(self, request):
        from aiohttp import web

        if request.method == "PATCH":
            assert request.content_type == "application/merge-patch+json"
            body = json.loads(self.asked[-1][3])
            if body["metadata"]["resourceVersion"] != str(self.version):
                return web.json_response(failure(409), status=409)
            self.replicas = body["spec"]["replicas"]
            self.version += 1
            asyncio.get_running_loop().call_soon(self.reconcile)
        return web.json_response(
            {
                "kind": "Scale",
                "metadata": {"name": "tax", "namespace": "fleet", "resourceVersion": str(self.version)},
                "spec": {"replicas": self.replicas} if self.replicas else {},
                "status": {"replicas": len(self.pods), "selector": "app=tax"},
            }
        )

    def _annotate(self, request, name):
        assert request.content_type == "application/merge-patch+json"
        annotations = self.pods[name]["metadata"].setdefault("annotations", {})
        for key, value in json.loads(self.asked[-1][3])["metadata"]["annotations"].items():
            if value is None:
                annotations.pop(key, None)
            else:
                annotations[key] = value
        self._told("MODIFIED", self.pods[name])

    async def _watch(self, request):
        from aiohttp import web

        version = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        self.watches.append((request, version))
        if version < self.oldest:
            gone = failure(410)
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        while True:
            self.changed.clear()
            for at, event in self.events:
                if at > version:
                    version = at
                    await response.write(
                        event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
                    )
            await self.changed.wait()

    def break_watches(self):
        for request, _ in self.watches:
            if request.transport is not None:
                request.transport.abort()


def ready(pod):
    return any(each == {"type": "Ready", "status": "True"} for each in pod["status"].get("conditions", ()))


def failure(status):
    reasons = {409: "Conflict", 410: "Expired", 403: "Forbidden", 404: "NotFound"}
    return {"kind": "Status", "status": "Failure", "code": status, "reason": reasons.get(status, "Other")}


@asynccontextmanager
async def deployment(replicas=0, opened=True, comes_up=True, **given):
    """Yield a cluster, its Deployment behind the adapter, and the instances that were lost."""
    from aiohttp import web
    from aiohttp.test_utils import TestServer
    from kubernetes.aio.client import ApiClient, Configuration

    from glowsim.live.adapters.kubernetes import Deployment

    cluster, lost = Cluster(replicas, comes_up), []
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", cluster.handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(shutdown_timeout=0.1)
    given = {
        "namespace": "fleet", "name": "tax", "port": 8000, "connect": lambda url: url, "lost": lost.append,
        "max_instances": 10, "startup_timeout_s": DEADLINE_S, "stop_timeout_s": DEADLINE_S,
    } | given  # fmt: skip
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            ApiClient(Configuration(host=str(server.make_url("")).rstrip("/"))) as api,
        ):
            some = Deployment(api, **given)
            try:
                if opened:
                    assert await some.open() == replicas
                yield cluster, some, lost
            finally:
                await some.close()
    finally:
        await server.close()


async def until(holds):
    while not holds():
        await asyncio.sleep(0)


def run(main):
    asyncio.run(main())


def patches(cluster):
    return [
        json.loads(each[3])["spec"]["replicas"] for each in cluster.asked if each[:2] == ("PATCH", "scale")
    ]


# --- starts and stops -------------------------------------------------------------------------------


def test_the_pods_that_are_there_are_taken_and_nothing_is_scaled():
    async def main():
        async with deployment(2) as (cluster, some, _):
            urls = await asyncio.gather(some.start(0), some.start(1))
            assert urls == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
            assert some.addresses() == dict(enumerate(urls))
            assert patches(cluster) == []

    run(main)


def test_a_start_raises_the_number_and_a_stop_takes_its_own_pod():
    async def main():
        async with deployment() as (cluster, some, lost):
            for number in range(3):
                await some.start(number)
            assert patches(cluster) == [1, 2, 3]
            await some.stop(0)  # the oldest: the last that Kubernetes would choose
            assert list(cluster.pods) == ["tax-2", "tax-3"]
            assert list(some.addresses()) == [1, 2]
            await asyncio.gather(some.stop(1), some.stop(2))
            assert cluster.pods == {}
            assert lost == []

    run(main)


def test_of_three_that_serve_two_that_stop_at_once_leave_the_third_alone():
    async def main():
        async with deployment(3) as (cluster, some, lost):
            await asyncio.gather(*map(some.start, range(3)))
            await asyncio.gather(some.stop(0), some.stop(1))
            assert list(cluster.pods) == ["tax-3"]
            assert lost == []

    run(main)


def test_where_kubernetes_takes_a_pod_that_starts_the_stopped_one_is_deleted_by_name():
    async def main():
        async with deployment(1) as (cluster, some, lost):
            await some.start(0)
            cluster.comes_up = False
            start = asyncio.ensure_future(some.start(1))
            await until(lambda: "tax-2" in cluster.pods)
            cluster.comes_up = True
            await some.stop(0)
            assert await start == "http://10.0.0.3:8000"
            assert (list(cluster.pods), cluster.replicas) == (["tax-3"], 1)
            assert lost == []
            assert ("DELETE", "tax-1") in {each[:2] for each in cluster.asked}

    run(main)


def test_a_stop_returns_when_the_pod_is_gone():
    async def main():
        async with deployment(2) as (cluster, some, lost):
            await asyncio.gather(*map(some.start, range(2)))
            cluster.lingers = True
            stop = asyncio.ensure_future(some.stop(0))
            await until(lambda: some._pods["tax-1"].leaving)
            assert not stop.done()
            cluster.reap("tax-1")
            await stop
            assert list(some.addresses()) == [1]
            assert lost == []

    run(main)


def test_a_pod_that_is_evicted_as_it_goes_is_gone():
    async def main():
        async with deployment(1) as (cluster, some, lost):
            await some.start(0)
            cluster.lingers = True
            stop = asyncio.ensure_future(some.stop(0))
            await until(lambda: some._pods["tax-1"].leaving)
            cluster.evict("tax-1")
            await stop
            assert lost == []

    run(main)


def test_a_pod_that_does_not_go_is_an_error():
    async def main():
        async with deployment(1, stop_timeout_s=0.05) as (cluster, some, lost):
            await some.start(0)
            cluster.lingers = True
            with pytest.raises(InstanceError, match=re.escape("pod tax-1 is not gone after 0.05 s")):
                await some.stop(0)
            assert some.addresses() == {}
            assert lost == []

    run(main)


def test_a_pod_that_never_gets_ready_is_given_up_and_the_error_says_what_it_waits_for():
    async def main():
        async with deployment(1, comes_up=False, startup_timeout_s=0.05) as (cluster, some, _):
            with pytest.raises(InstanceError) as error:
                await some.start(0)
            assert str(error.value) == "no pod of tax got ready within 0.05 s; tax-1: ImagePullBackOff"
            await until(lambda: cluster.replicas == 0 and not cluster.pods)

    run(main)


def test_a_start_that_is_cancelled_lowers_the_number_again():
    async def main():
        async with deployment() as (cluster, some, _):
            cluster.comes_up = False
            start = asyncio.ensure_future(some.start(0))
            await until(lambda: cluster.pods)
            start.cancel()
            await some.stop(0)  # as the driver does
            assert patches(cluster) == [1, 0]

    run(main)


def test_there_are_no_more_instances_than_allowed():
    async def main():
        async with deployment(max_instances=1) as (_, some, _):
            await some.start(0)
            with pytest.raises(InstanceError, match="there are 1 instances already: raise max_instances"):
                await some.start(1)

    run(main)


# --- pods that go by themselves ---------------------------------------------------------------------


def test_a_pod_that_goes_by_itself_is_lost_and_the_next_start_takes_its_replacement():
    async def main():
        async with deployment(2) as (cluster, some, _):
            started = []
            some._lost = lambda instance: started.append(asyncio.ensure_future(some.start(instance + 10)))
            await asyncio.gather(*map(some.start, range(2)))
            cluster.delete("tax-1")
            await until(lambda: started)
            assert await started[0] == "http://10.0.0.3:8000"
            assert list(some.addresses()) == [1, 10]
            assert patches(cluster) == []

    run(main)


def test_a_lost_pod_that_nobody_replaces_lowers_the_number():
    async def main():
        async with deployment(2) as (cluster, some, lost):
            await asyncio.gather(*map(some.start, range(2)))
            cluster.evict("tax-2")
            await until(lambda: patches(cluster) == [1])
            assert lost == [1]

    run(main)


def test_a_pod_that_a_stop_marked_in_vain_is_as_dear_as_any_when_it_serves_again():
    async def main():
        async with deployment(1) as (cluster, some, _):
            await some.start(0)
            cluster.refusals[("PATCH", "scale")] = [(403, {})]
            with pytest.raises(InstanceError, match="not allowed to patch deployments/scale"):
                await some.stop(0)
            assert cluster.annotations() == {"tax-1": {COST: "-2147483647"}}
            await until(lambda: some._pods["tax-1"].marked)
            assert await some.start(1) == "http://10.0.0.1:8000"
            assert cluster.annotations() == {"tax-1": {}}

    run(main)


# --- a cluster that is busy, away, or refuses -------------------------------------------------------


def test_a_conflict_is_tried_again_with_what_is_there_now(slept):
    async def main():
        async with deployment() as (cluster, some, _):
            cluster.refusals[("PATCH", "scale")] = [(409, {})] * 3
            await some.start(0)
            assert patches(cluster) == [1] * 4
            cluster.refusals[("PATCH", "scale")] = [(409, {})] * 50
            with pytest.raises(
                InstanceError, match=r"changed by others 8 times in a row .* another autoscaler"
            ):
                await some.start(1)

    run(main)


def test_a_busy_cluster_is_given_the_time_that_it_asks_for(slept):
    async def main():
        async with deployment() as (cluster, some, _):
            cluster.refusals[("GET", "scale")] = [
                (429, {"Retry-After": "7"}),
                (503, {}),
                (429, {"Retry-After": "999"}),
            ]
            await some.start(0)
            assert [each for each in slept if each >= 7.0] == [7.0, 30.0]

    run(main)


def test_a_cluster_that_stays_away_is_an_error(slept):
    async def main():
        async with deployment(opened=False) as (cluster, some, _):
            cluster.refusals[("GET", "scale")] = [(500, {})] * 50
            with pytest.raises(InstanceError, match=r"did not get deployments/scale after 8 tries: .*500"):
                await some.open()

    run(main)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not know who asks to get deployments/scale: renew the credentials"),
        (
            403,
            "not allowed to get deployments/scale in namespace fleet: give the daemon's service account the Role in",
        ),
        (404, "there is no deployment tax in namespace fleet: apply it first, or correct the name"),
        (422, "the cluster refused to get deployments/scale: 422"),
    ],
)
def test_a_refusal_names_what_is_missing_and_is_not_tried_again(status, message):
    async def main():
        async with deployment(opened=False) as (cluster, some, _):
            cluster.refusals[("GET", "scale")] = [(status, {})]
            with pytest.raises(InstanceError, match=re.escape(message)):
                await some.open()
            assert len(cluster.asked) == 1

    run(main)


def test_what_is_no_scale_and_no_list_is_an_error():
    async def main():
        async with deployment(opened=False) as (_, some, _):
            for what, said in (
                ("_scale", {"spec": {}}),
                ("_list", {"items": [{}], "metadata": {"resourceVersion": "1"}}),
            ):
                with pytest.MonkeyPatch.context() as patch:
                    from glowsim.live.adapters import kubernetes

                    async def odd(asking, said=said):
                        (await asking).release()
                        return said

                    patch.setattr(kubernetes, "_asked", odd)
                    with pytest.raises(InstanceError, match="the cluster told what is no"):
                        await getattr(some, what)()

    run(main)


# --- following the pods -----------------------------------------------------------------------------


def lists(cluster):
    return sum(each[:2] == ("GET", "pods") and "watch" not in each[2] for each in cluster.asked)


def test_a_watch_that_breaks_off_is_resumed_where_it_was():
    async def main():
        async with deployment(1) as (cluster, some, lost):
            await some.start(0)
            await until(lambda: cluster.watches)
            cluster.make()
            await until(lambda: "tax-2" in some._pods)
            known = cluster.version
            cluster.break_watches()
            cluster.delete("tax-1")
            await until(lambda: lost == [0])
            assert cluster.watches[1][1] == known
            assert lists(cluster) == 1

    run(main)


@pytest.mark.parametrize("how", ["event", "status"])
def test_after_410_the_pods_are_listed_again_and_those_that_went_meanwhile_are_lost(how):
    async def main():
        async with deployment(2) as (cluster, some, lost):
            await asyncio.gather(*map(some.start, range(2)))
            await until(lambda: cluster.watches)
            if how == "status":
                cluster.refusals[("GET", "pods")] = [(410, {})]
            cluster.break_watches()
            cluster.replicas = 1
            cluster.delete("tax-1")
            cluster.oldest = cluster.version
            cluster.events.clear()
            await until(lambda: lost == [0])
            assert lists(cluster) == 2
            await until(lambda: len(cluster.watches) >= 2)
            cluster.make()
            await until(lambda: "tax-3" in some._pods)

    run(main)


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b'{"type": "ADDED", "object": {}}\n',
        b'{"type": "NEWS", "object": {}}\n',
        b"x" * 9_000_000,
    ],
    ids=["text", "list", "no pod", "unknown", "too long"],
)
def test_an_event_that_cannot_be_read_breaks_the_watch_off_and_no_more(line):
    async def main():
        async with deployment(1) as (cluster, some, lost):
            await some.start(0)
            await until(lambda: cluster.watches)
            cluster.events.append((cluster.version, None))
            cluster.version += 1
            cluster.events[-1] = (cluster.version, line)
            cluster.changed.set()
            await until(lambda: len(cluster.watches) >= 2)
            cluster.events.clear()
            cluster.delete("tax-1")
            await until(lambda: lost == [0])

    run(main)


def test_bookmarks_move_the_version_on():
    async def main():
        async with deployment(1) as (cluster, some, _):
            await until(lambda: cluster.watches)
            cluster.version += 50
            bookmark = {
                "type": "BOOKMARK",
                "object": {"kind": "Pod", "metadata": {"resourceVersion": str(cluster.version)}},
            }
            cluster.events.append((cluster.version, bookmark))
            cluster.changed.set()
            await until(lambda: some._version == str(cluster.version))
            cluster.break_watches()
            await until(lambda: len(cluster.watches) >= 2)
            assert cluster.watches[1][1] == cluster.version
            assert list(some._pods) == ["tax-1"]

    run(main)


# --- the client -------------------------------------------------------------------------------------


def test_the_client_comes_from_a_kubeconfig_and_shows_its_token(tmp_path, monkeypatch):
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from glowsim.live.adapters.kubernetes import Deployment, api_client

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def main():
        cluster, tokens = Cluster(4), set()

        async def handle(request):
            tokens.add(request.headers.get("Authorization"))
            return await cluster.handle(request)

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handle)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server(shutdown_timeout=0.1)
        path = tmp_path / "config"
        path.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [{"name": "k", "cluster": {"server": str(server.make_url("")).rstrip("/")}}],
                    "users": [{"name": "u", "user": {"token": "t-123"}}],
                }
            )
        )
        try:
            async with asyncio.timeout(DEADLINE_S), await api_client(path) as api:
                some = Deployment(
                    api, namespace="fleet", name="tax", port=1, connect=print, lost=print, max_instances=9
                )
                assert await some.open() == 4
                await some.close()
        finally:
            await server.close()
        assert tokens == {"Bearer t-123"}
        with pytest.raises(InstanceError, match="there is no usable configuration of a cluster"):
            await api_client(tmp_path / "none")

    run(main)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 0}, "port: 0 is not from 1 to 65535"),
        ({"max_instances": 0}, "max_instances: 0 is not at least 1"),
        ({"startup_timeout_s": nan}, "startup_timeout_s: nan"),
        ({"stop_timeout_s": 0.0}, "stop_timeout_s: 0.0"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    async def main():
        with pytest.raises(ValueError, match=re.escape(message)):
            async with deployment(**given):
                pass

    run(main)


# --- under a driver ---------------------------------------------------------------------------------


def test_a_fleet_of_pods_grows_with_its_load_shrinks_and_survives_a_loss(live):
    async def main():
        def scaler():
            return AgentScaler(
                min_instances=1,
                max_instances=3,
                cooldown_s=0.0,
                cooldown_down_s=0.2,
                idle_s=60.0,
                look_s=0.05,
            )

        states, hold = {}, asyncio.Event()

        def saw(event, commands):
            if isinstance(event, InstanceChanged):
                states[event.instance] = event.state.name

        async def serve(call):
            await hold.wait()
            return await live.takes(0.0)(call)

        stage = live.Stage(scaler=scaler, watch=saw)
        async with deployment(1, connect=lambda url: serve, lost=stage.driver.lost) as (cluster, some, _):
            stage.driver.scalers[0] = some
            stage.driver.start(0)
            work = [stage.start() for _ in range(6)]
            await until(lambda: list(states.values()) == ["READY"] * 3)
            cluster.delete("tax-2")
            await until(lambda: "FAILED" in states.values() and list(states.values()).count("READY") == 3)
            hold.set()
            assert {each.content for each in await asyncio.gather(*work)} == {"HELLO"}
            await until(lambda: list(states.values()).count("GONE") == 2)
            assert len(cluster.pods) == 1
            await stage.close(grace_s=1.0)

    run(main)


# --- the manifests ----------------------------------------------------------------------------------


def manifests():
    """Return the objects in the documentation."""
    from ruamel.yaml import YAML

    text = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return [each for block in blocks for each in YAML(typ="safe").load_all(block) if "kind" in each]


def test_the_role_in_the_documentation_allows_what_is_asked_and_no_more():
    async def main():
        async with deployment(1) as (cluster, some, _):
            await some.start(0)
            await until(lambda: cluster.watches)
            cluster.comes_up = False
            start = asyncio.ensure_future(some.start(1))
            await until(lambda: "tax-2" in cluster.pods)
            cluster.comes_up = True
            await some.stop(0)
            await start
            for method, end, query, _ in cluster.asked:
                verb = "list" if end == "pods" else method.lower()
                asked.add(
                    ("deployments/scale" if end == "scale" else "pods", "watch" if "watch" in query else verb)
                )

    asked = set()
    run(main)
    (role,) = (each for each in manifests() if each["kind"] == "Role")
    allowed = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert asked == allowed


def test_the_manifests_are_objects_that_the_client_knows():
    from kubernetes.aio.client import models

    found = [each["kind"] for each in manifests()]
    assert found == [
        "Deployment", "ServiceAccount", "Role", "RoleBinding", "Deployment", "PersistentVolumeClaim", "Service",
    ]  # fmt: skip
    for each in manifests():
        assert set(each) <= {"apiVersion", "kind", "metadata", "spec", "rules", "roleRef", "subjects"}
        known = getattr(models, f"V1{each['kind']}").from_dict(each)
        assert json.loads(known.to_json()) == each, "no field has a name that Kubernetes does not know"
