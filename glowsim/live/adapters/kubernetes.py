"""The ``kubernetes`` adapter: instances are the pods of a Deployment.

The driver starts and stops single instances; a Deployment is told how many pods it is to have. So: a start
raises the number by one and takes the next pod that is ready and has no instance yet; a stop marks its pod as
the cheapest to delete and lowers the number by one. A pod that goes by itself is lost, and its replacement,
which the Deployment makes on its own, is taken by the start that the control plane then orders.

The asyncio part of the official client (``kubernetes.aio``, from version 37) does the authentication and the
requests: nothing blocks, and no thread is needed. Its watch is not used: it asks again at once, and with the
same old version, after 410.

Sources: kubernetes.io, "API concepts" (resource versions, watch, 410 Gone) and "ReplicaSet" (which pods go
first, pod deletion cost).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from glowsim.live.calls import InstanceError, Serve

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

__all__ = ["Deployment", "api_client"]

_log = logging.getLogger(__name__)
_MERGE = "application/merge-patch+json"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_CHEAPEST = "-2147483647"
_CALL_S = 15.0
"""Longest time for one request, a watch apart."""
_WATCH_S = 240
"""After which the server ends a watch and it is resumed: one that has died unnoticed lasts no longer than 300 s."""
_TRIES = 8
"""Requests for one thing: while the cluster is busy or away, or while others change the same object."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_LONGEST_BODY = 64 * 1024 * 1024
_LONGEST_EVENT = 4 * 1024 * 1024
_ROLE = "give the daemon's service account the Role in docs/kubernetes.md"


async def api_client(kubeconfig: Path | None = None, context: str | None = None) -> ApiClient:
    """Return a client of the cluster; close it after the last use.

    Parameters
    ----------
    kubeconfig
        The file; None: the service account if this runs inside a cluster, else the user's own file.
    context
        In that file; None: its current one.

    Raises
    ------
    InstanceError
        The extra is not installed, or there is no usable configuration.
    """
    config: Any  # its types are not stated
    try:
        from kubernetes.aio import client, config
    except ImportError as error:
        raise InstanceError("the kubernetes extra is missing: pip install 'glowsim[kubernetes]'") from error
    configuration = client.Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            file = None if kubeconfig is None else str(kubeconfig)
            await config.load_kube_config(file, context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise InstanceError(f"there is no usable configuration of a cluster: {error}") from error
    return client.ApiClient(configuration)


class _Answer(Exception):
    """The cluster said no: its status and reason."""

    def __init__(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.retry_after_s = retry_after_s


class _Scale(NamedTuple):
    replicas: int
    version: str
    selector: str


class _Pod(NamedTuple):
    name: str
    ip: str
    ready: bool
    leaving: bool
    """It is being deleted."""
    ended: bool
    """Evicted, say: it is listed still, and counts no more."""
    marked: bool
    """It is to be the first to go."""
    why: str
    """Why it is not ready, as far as the cluster says."""


class Deployment:
    """Scales the pods of one Deployment: a `Scaler`.

    Nobody else may scale the Deployment, be it a person or a HorizontalPodAutoscaler: a number that somebody
    raised is lowered again at the next stop.

    When it has fewer pods to have, Kubernetes deletes those first that are not ready, whatever they cost, and it
    gives no guarantee. Where it spared the pod that was stopped and took one that still starts, the stopped one
    is deleted by name, and its replacement serves the start. Where it took one that served, that is lost.

    Parameters
    ----------
    api
        A client of the cluster; closed by who made it.
    namespace, name
        Of the Deployment.
    port
        Where its pods listen, 1 to 65535.
    connect
        Makes the instance of a base URL such as ``http://10.1.2.3:8000``. The pod is ready then, as its readiness
        probe says.
    lost
        Is told the number of an instance whose pod went by itself: `Driver.lost`.
    max_instances
        Pods at most, at least 1; a start beyond is an `InstanceError`.
    startup_timeout_s
        Seconds, above 0, within which a pod must be ready.
    stop_timeout_s
        Seconds, above 0, within which a pod must be gone: above its terminationGracePeriodSeconds.

    Raises
    ------
    ValueError
        A bound is broken.
    """

    def __init__(
        self, api: ApiClient, *, namespace: str, name: str, port: int, connect: Callable[[str], Serve],
        lost: Callable[[int], None], max_instances: int, startup_timeout_s: float = 600.0,
        stop_timeout_s: float = 120.0,
    ) -> None:  # fmt: skip
        from kubernetes.aio.client import AppsV1Api, CoreV1Api

        if not 1 <= port <= 65535:
            raise ValueError(f"port: {port} is not from 1 to 65535")
        if max_instances < 1:
            raise ValueError(f"max_instances: {max_instances} is not at least 1")
        for what, seconds in (("startup_timeout_s", startup_timeout_s), ("stop_timeout_s", stop_timeout_s)):
            if not (seconds > 0.0 and isfinite(seconds)):
                raise ValueError(f"{what}: {seconds} is not a number of seconds above 0")
        self._deployments, self._all_pods = AppsV1Api(api), CoreV1Api(api)
        self._namespace = namespace
        self._name = name
        self._port = port
        self._connect = connect
        self._lost = lost
        self._max = max_instances
        self._startup_timeout_s = startup_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._selector = ""
        self._version = ""
        """Of the pods, up to which they are known; none: they are to be listed."""
        self._events = 0
        self._pods: dict[str, _Pod] = {}
        self._bound: dict[int, str] = {}
        """Instance -> its pod."""
        self._waiting: dict[int, None] = {}
        """Instances that are starting, the first first."""
        self._going: set[str] = set()
        """Pods of instances that are being stopped."""
        self._scaling = asyncio.Lock()
        self._chores: set[asyncio.Future[None]] = set()
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Replaced whenever a pod has changed."""

    async def open(self) -> int:
        """Begin to follow the pods; return how many the Deployment is to have now.

        Start as many instances: they take the pods that are there, and a restart of the daemon ends none.

        Raises
        ------
        InstanceError
            The Deployment is not there, or may not be read: the error names the remedy.
        """
        scale = await self._scale()
        self._selector = scale.selector
        await self._tried("list pods", self._list)
        self._chore(self._follow())
        return scale.replicas

    async def close(self) -> None:
        """Follow the pods no more; the Deployment keeps them."""
        for chore in self._chores:
            chore.cancel()
        if self._chores:
            await asyncio.wait(self._chores)

    def addresses(self) -> dict[int, str]:
        """Return the base URLs of the pods that serve, by instance."""
        return {number: self._url(name) for number, name in self._bound.items() if name not in self._going}

    async def start(self, instance: int) -> Serve:
        """Return an instance on a pod that is ready.

        Raises
        ------
        InstanceError
            No pod got ready in time, and why as far as the cluster says; there are too many; or the cluster
            refused, and what is missing.
        """
        if len(self._bound) + len(self._waiting) >= self._max:
            raise InstanceError(f"there are {self._max} instances already: raise max_instances to have more")
        self._waiting[instance] = None
        try:
            async with asyncio.timeout(self._startup_timeout_s):
                await self._settle(lower=False)
                self._assign()
                await self._until(lambda: instance in self._bound)
                name = self._bound[instance]
                if name in self._pods and self._pods[name].marked:  # by a stop that came to nothing
                    await self._mark(name, None)
                    if instance not in self._bound:
                        raise InstanceError(f"pod {name} went by itself as it was taken")
        except TimeoutError:
            raise InstanceError(
                f"no pod of {self._name} got ready within {self._startup_timeout_s:g} s{self._why()}"
            ) from None
        finally:
            if instance in self._waiting:
                del self._waiting[instance]
                self._chore(self._lower())
        return self._connect(self._url(name))

    async def stop(self, instance: int) -> None:
        """Return when the pod of an instance is gone.

        Raises
        ------
        InstanceError
            It is not gone in time, or the cluster refused, and what is missing. The pod is free for another
            instance then.
        """
        if instance not in self._bound:
            await self._settle()
            return
        name = self._bound[instance]
        self._going.add(name)
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                try:  # it counts until it is marked: were the number lower before, any pod might be taken
                    await self._mark(name, _CHEAPEST)
                finally:
                    self._bound.pop(instance, None)
                await self._settle()
                await self._until(lambda: self._leaves(name) or self._spared())
                if not self._leaves(name):
                    await self._delete(name)
                await self._until(lambda: name not in self._pods)
        except TimeoutError:
            raise InstanceError(f"pod {name} is not gone after {self._stop_timeout_s:g} s") from None
        finally:
            self._going.discard(name)

    # --- pods and instances ---------------------------------------------------------------------------

    def _url(self, name: str) -> str:
        ip = self._pods[name].ip
        return f"http://[{ip}]:{self._port}" if ":" in ip else f"http://{ip}:{self._port}"

    def _leaves(self, name: str) -> bool:
        return name not in self._pods or self._pods[name].leaving

    def _spared(self) -> bool:
        """Whether there are no more pods than there are to be: another one than the stopped one went."""
        return sum(not pod.leaving for pod in self._pods.values()) <= self._wanted()

    def _wanted(self) -> int:
        return len(self._bound) + len(self._waiting)

    def _why(self) -> str:
        taken = set(self._bound.values())
        said = [f"{pod.name}: {pod.why}" for pod in self._pods.values() if pod.why and pod.name not in taken]
        return f"; {'; '.join(said)[:500]}" if said else ""

    def _assign(self) -> None:
        """Give pods that are ready and free to the instances that wait."""
        taken = {*self._bound.values(), *self._going}
        free = [
            pod.name for pod in self._pods.values() if pod.ready and not pod.leaving and pod.name not in taken
        ]
        for instance, name in zip(list(self._waiting), free, strict=False):
            del self._waiting[instance]
            self._bound[instance] = name

    def _changed(self, pods: dict[str, _Pod]) -> None:
        """Take in what the pods are now."""
        self._pods = pods
        for instance, name in list(self._bound.items()):
            if self._leaves(name) and name not in self._going:
                del self._bound[instance]
                _log.warning("instance %d: pod %s went by itself", instance, name)
                self._lost(instance)
                self._chore(self._lower())  # unless a start has come meanwhile, as a replacement
        self._assign()
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.shield(self._news)

    def _chore(self, work: Awaitable[None]) -> None:
        def ended(task: asyncio.Future[None]) -> None:
            self._chores.discard(task)
            if not task.cancelled() and task.exception() is not None:
                _log.error("the pods of %s are not followed any more", self._name, exc_info=task.exception())

        task = asyncio.ensure_future(work)
        self._chores.add(task)
        task.add_done_callback(ended)

    # --- the Deployment's number ----------------------------------------------------------------------

    async def _settle(self, *, lower: bool = True) -> None:
        """Have the Deployment want as many pods as there are instances; a start takes no pod away."""
        async with self._scaling:
            for number in range(_TRIES):
                scale = await self._scale()
                wanted = self._wanted()
                if wanted == scale.replicas or (wanted < scale.replicas and not lower):
                    return
                try:
                    await self._patch_scale(scale.version, wanted)
                except _Answer as answer:
                    if answer.status != 409:
                        raise
                    await asyncio.sleep(
                        _pause_s(number) / 10.0
                    )  # a status that was written meanwhile suffices
                else:
                    return
        raise InstanceError(
            f"deployment {self._name} in namespace {self._namespace} was changed by others {_TRIES} times in a row "
            "before it could be scaled: is there another autoscaler? Only one may scale it"
        )

    async def _lower(self) -> None:
        try:
            await self._settle()
        except InstanceError as error:
            _log.warning("%s may have a pod too many until the next stop: %s", self._name, error)

    async def _scale(self) -> _Scale:
        read = self._deployments.read_namespaced_deployment_scale_without_preload_content
        said = await self._tried("get deployments/scale", lambda: _asked(read(self._name, self._namespace)))
        match said:
            case {
                "metadata": {"resourceVersion": str(version)},
                "spec": dict(spec),
                "status": {"selector": str(selector)},
            }:
                return _Scale(int(spec.get("replicas") or 0), version, selector)  # 0 is left out
        raise InstanceError(f"the cluster told what is no scale: {str(said)[:200]!r}")

    async def _patch_scale(self, version: str, replicas: int) -> None:
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        patch = self._deployments.patch_namespaced_deployment_scale_without_preload_content
        await self._tried(
            "patch deployments/scale",
            lambda: _asked(patch(self._name, self._namespace, body, _content_type=_MERGE)),
        )

    async def _mark(self, name: str, cost: str | None) -> None:
        """Say what it costs to delete a pod; None: as much as any."""
        body = {"metadata": {"annotations": {_DELETION_COST: cost}}}
        patch = self._all_pods.patch_namespaced_pod_without_preload_content
        await self._tried(
            "patch pods", lambda: _gone_or(_asked(patch(name, self._namespace, body, _content_type=_MERGE)))
        )

    async def _delete(self, name: str) -> None:
        delete = self._all_pods.delete_namespaced_pod_without_preload_content
        await self._tried("delete pods", lambda: _gone_or(_asked(delete(name, self._namespace))))

    async def _tried(self, what: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until there is an answer that holds; a conflict is for the caller."""
        for number in range(_TRIES):
            pause_s = _pause_s(number)
            try:
                async with asyncio.timeout(_CALL_S):
                    return await ask()
            except _Answer as answer:
                if answer.status == 409:
                    raise
                if answer.status != 429 and answer.status < 500:
                    raise self._refused(what, answer) from answer
                last: Exception = answer
                if answer.retry_after_s is not None:
                    pause_s = min(answer.retry_after_s, _LONGEST_PAUSE_S)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = error
            if number < _TRIES - 1:
                await asyncio.sleep(pause_s)
        raise InstanceError(f"the cluster did not {what} after {_TRIES} tries: {last!r}") from last

    def _refused(self, what: str, answer: _Answer) -> InstanceError:
        match answer.status:
            case 401:
                return InstanceError(
                    f"the cluster does not know who asks to {what}: renew the credentials ({answer})"
                )
            case 403:
                return InstanceError(
                    f"not allowed to {what} in namespace {self._namespace}: {_ROLE} ({answer})"
                )
            case 404:
                return InstanceError(
                    f"there is no deployment {self._name} in namespace {self._namespace}: apply it first, or "
                    f"correct the name ({answer})"
                )
        return InstanceError(f"the cluster refused to {what}: {answer}")

    # --- following the pods ---------------------------------------------------------------------------

    async def _list(self) -> None:
        """Take in all pods as they are."""
        ask = self._all_pods.list_namespaced_pod_without_preload_content
        match await _asked(ask(self._namespace, label_selector=self._selector)):
            case {"items": list(items), "metadata": {"resourceVersion": str(version)}}:
                pods = [_pod(item) for item in items]
            case said:
                raise InstanceError(f"the cluster told what is no list of pods: {str(said)[:200]!r}")
        self._changed({pod.name: pod for pod in pods if not pod.ended})
        self._version = version

    async def _follow(self) -> None:
        """Follow the pods for ever: resume what breaks off, list anew what is too old."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            begun_s, before, wait_s = loop.time(), self._events, 0.0
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except _Answer as answer:
                if answer.status == 410:
                    self._version = ""
                else:
                    wait_s = answer.retry_after_s or 0.0
                    _log.warning("the pods of %s cannot be followed: %s", self._name, answer)
            except (aiohttp.ClientError, TimeoutError, OSError, InstanceError) as error:
                _log.info("following the pods of %s broke off: %r", self._name, error)
            if self._events != before or loop.time() - begun_s > _LONGEST_PAUSE_S:
                failures = 0
            await asyncio.sleep(min(max(wait_s, _pause_s(failures)), _LONGEST_PAUSE_S))
            failures += 1

    async def _watch(self) -> None:
        """Take in changes until the server ends the watch."""
        response = await self._all_pods.list_namespaced_pod_without_preload_content(
            self._namespace, label_selector=self._selector, resource_version=self._version, watch=True,
            allow_watch_bookmarks=True, timeout_seconds=_WATCH_S,
        )  # fmt: skip
        try:
            _check(response)
            waiting = b""
            async for chunk in response.content.iter_any():
                *lines, waiting = (waiting + chunk).split(b"\n")
                if len(waiting) > _LONGEST_EVENT:
                    raise InstanceError(f"an event of the pods is longer than {_LONGEST_EVENT} bytes")
                for line in lines:
                    self._version = self._heard(_json(line))
                    self._events += 1
        finally:
            response.close()

    def _heard(self, event: Any) -> str:
        """Take in a change; return its version."""
        match event:
            case {"type": "ERROR", "object": {"code": int(code), **more}}:
                raise _Answer(code, str(more.get("reason", "")))
            case {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}:
                return version
            case {"type": "DELETED", "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}:
                self._changed({other: pod for other, pod in self._pods.items() if other != name})
                return version
            case {
                "type": "ADDED" | "MODIFIED",
                "object": {"metadata": {"resourceVersion": str(version)}} as item,
            }:
                pod = _pod(item)
                others = {name: other for name, other in self._pods.items() if name != pod.name}
                self._changed(others if pod.ended else others | {pod.name: pod})
                return version
        raise InstanceError(f"the cluster told what is no event of a pod: {str(event)[:200]!r}")


def _pod(item: Any) -> _Pod:
    try:
        metadata, status = item["metadata"], item.get("status") or {}
        conditions: dict[str, Any] = {each["type"]: each for each in status.get("conditions") or ()}
        ip = str(status.get("podIP") or "")
        ready = bool(ip) and conditions.get("Ready", {}).get("status") == "True"
        leaving = "deletionTimestamp" in metadata
        ended = status.get("phase") in ("Failed", "Succeeded")
        marked = (metadata.get("annotations") or {}).get(_DELETION_COST) == _CHEAPEST
        why = "" if ready else _hindrance(status, conditions)
        return _Pod(str(metadata["name"]), ip, ready, leaving, ended, marked, why)
    except (AttributeError, KeyError, TypeError) as error:
        raise InstanceError(f"the cluster told what is no pod: {str(item)[:200]!r}") from error


def _hindrance(status: dict[str, Any], conditions: dict[str, Any]) -> str:
    """Return why a pod is not ready: no place for it, or what its containers wait for."""
    scheduled = conditions.get("PodScheduled", {})
    said = [scheduled.get("message", "")] if scheduled.get("status") == "False" else []
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        said.append(waiting.get("reason", ""))
    return ", ".join(filter(None, said)) or "not ready"


async def _asked(asking: Awaitable[aiohttp.ClientResponse]) -> Any:
    """Return the JSON of an answer."""
    response = await asking
    try:
        _check(response)
        read = bytearray()
        async for chunk in response.content.iter_any():
            read += chunk
            if len(read) > _LONGEST_BODY:
                raise InstanceError(f"an answer of the cluster is longer than {_LONGEST_BODY} bytes")
        return _json(bytes(read))
    finally:
        response.release()


async def _gone_or(asking: Awaitable[Any]) -> None:
    """Ask for something about a pod, which may have gone meanwhile."""
    try:
        await asking
    except _Answer as answer:
        if answer.status != 404:
            raise


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        wait = response.headers.get("Retry-After", "")
        raise _Answer(response.status, response.reason or "", float(wait) if wait.isdecimal() else None)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"the cluster's answer is not JSON: {error}") from error


def _pause_s(failures: int) -> float:
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures, 20), _LONGEST_PAUSE_S)
