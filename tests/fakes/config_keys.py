"""Every key of a configuration model with an example value, so that no key goes untested.

A test of effect asks for two configs that differ in one key only, and shows that what is made from
them differs. A key without an example fails `iter_keys`, so a new key can't be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from smidr_ci.config.base import KeyPath, Model
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.tree import dotted

__all__ = [
    "AGENT_BASELINE",
    "AGENT_EXAMPLES",
    "BASELINE",
    "EXAMPLES",
    "Key",
    "assert_effect",
    "iter_keys",
    "unproven",
]

BASELINE: Mapping[str, Any] = {
    "name": "project",
    "layers": [{"name": "bitbake", "git": "https://git.example.com/bitbake"}],
    "build": {"image": "core-image-minimal"},
}
"""The config that each example is put into."""

EXAMPLES: Mapping[str, Any] = {
    "config_version": 1,
    "name": "other-project",
    "description": "What it is",
    "yocto_series": "scarthgap",
    "base.provider": "bitbake",
    "base.machine": "qemuarm64",
    "base.distro": "poky",
    "base.version": "kirkstone",
    "layers[].name": "meta-other",
    "layers[].git": "https://git.example.com/other",
    "layers[].path": "meta-local",
    "layers[].branch": "scarthgap",
    "layers[].tag": "v1.0",
    "layers[].commit": "0123456789abcdef0123456789abcdef01234567",
    "layers[].mirrors": ["https://mirror.example.com/bitbake"],
    "layers[].layers": ["meta"],
    "build.image": "core-image-base",
    "build.targets": ["busybox"],
    "build.machine": "qemux86",
    "build.multiconfig": ["second"],
    "build.extra_packages": ["htop"],
    "build.parallel_make": 3,
    "build.bb_number_threads": 5,
    "build.fetch_first": True,
    "build.workspace": "fresh",
    "build.fail_on_warnings": ["package-qa"],
    "build.sstate": "cache/sstate",
    "build.tmp": "cache/tmp",
    "build.deploy": "cache/deploy",
    "build.package_classes": ["deb"],
    "build.extra_image_features": ["ssh-server-dropbear"],
    "build.inherit_classes": ["rm_work"],
    "directories.layers": "cache/layers",
    "directories.downloads": "cache/downloads",
    "directories.sstate": "cache/sstate",
    "directories.source": ".",
    "directories.build": "cache/build",
    "directories.tmp": "cache/tmp",
    "directories.deploy": "cache/deploy",
    "packages.classes": ["ipk"],
    "features.extra_image_features": ["tools-debug"],
    "features.user_classes": ["buildstats"],
    "features.inherit_classes": ["buildhistory"],
    "advanced.bb_hashserve": "hashserv.example.com:8686",
    "advanced.bb_signature_handler": "OEEquivHash",
    "advanced.license_flags": ["commercial"],
    "advanced.conf_version": "3",
    "advanced.disk_monitoring": False,
    "advanced.qemu_sdl": True,
    "advanced.qemu_gtk": True,
    "advanced.accept_fsl_eula": True,
    "advanced.build_timeout": 90,
    "advanced.sstate_mirrors": ["file://.* https://cache.example.com/PATH"],
    "advanced.premirrors": ["https?://.*/.* https://sources.example.com/"],
    "advanced.bb_no_network": True,
    "advanced.bb_fetch_premirroronly": True,
    "artifacts": ["images/*.wic"],
    "container.base_image": "debian:12",
    "container.packages": ["gcc"],
    "container.bootstrap": "always",
    "container.memory": "3G",
    "container.cpu_count": 1.5,
    "container.pids": 4096,
    "container.shm_size": "128M",
    "container.entrypoint": "nice -n 5",
    "cache.retention": 7,
    "local_conf": 'EXAMPLE = "1"',
    "environment": {"RELEASE_CHANNEL": "testing"},
}
"""One valid value per key of `smidr.yaml`, different from the default where there is another."""

AGENT_BASELINE: Mapping[str, Any] = {
    "git": {"credentials": [{"host": "git.example.com", "token_file": "/secrets/token"}]},
    "api": {
        "tls_certificate_file": "/secrets/server.pem",
        "tls_key_file": "/secrets/server.key",
        "client_ca_file": "/secrets/ca.pem",
    },
}
"""The `agent.yaml` that each example is put into."""

AGENT_EXAMPLES: Mapping[str, Any] = {
    "substitution": ["CI_TAG"],
    "environment": ["CI_TAG"],
    "allow_config_directories": False,
    "git.credentials[].host": "other.example.com",
    "git.credentials[].username": "robot",
    "git.credentials[].token_file": "/secrets/other-token",
    "git.credentials[].netrc_file": "/secrets/netrc",
    "git.credentials[].ssh_key_file": "/secrets/key",
    "git.credentials[].known_hosts_file": "/secrets/known_hosts",
    "git.timeout_s": 5,
    "git.attempts": 1,
    "engine.url": "unix:///run/other.sock",
    "engine.network": "builds",
    "engine.builder_user": "4711:4711",
    "engine.registry_auth_file": "/secrets/config.json",
    "images.default_base": "registry.example.com/base:1",
    "images.bootstrap_suite": "trixie",
    "images.bootstrap_mirror": "http://debian.example.com/debian",
    "images.extra_apt_sources": ["deb http://packages.example.com/debian bookworm main"],
    "limits.cpus_per_build": 0.5,
    "limits.memory_per_build": "1G",
    "limits.max_concurrent_builds": 3,
    "limits.max_queued_builds": 2,
    "limits.builds_per_customer": 2,
    "limits.customers": {"acme": 2},
    "limits.memory_budget": "1G",
    "limits.max_memory_pressure": 50,
    "limits.min_free_disk": "4000T",
    "limits.min_free_disk_percent": 99,
    "limits.kept_workspaces_size": 1,
    "limits.kept_workspaces_count": 0,
    "history.max_builds": 6,
    "history.max_days": 3,
    "history.max_size": "1K",
    "history.keep_newest": 1,
    "history.purge_after_days": 1,
    "cache.sstate_max_size": "1K",
    "cache.sstate_max_age": "1h",
    "cache.downloads_max_size": "1K",
    "cache.downloads_max_age": "1d",
    "cache.layers_max_size": "1K",
    "cache.layers_max_age": "1w",
    "cache.workspaces_max_age": "1w",
    "cache.images_max_size": "1K",
    "cache.images_max_age": 7,
    "cache.parse_cache_max_size": "1K",
    "cache.parse_cache_max_age": "1w",
    "cache.job_caches_max_size": "1K",
    "cache.job_caches_max_age": "1w",
    "cache.gc_below_free": 0,
    "cache.gc_until_free": 95,
    "cache.keep_builds": 1,
    "cache.hash_server": False,
    "cache.hash_server_upstream": "hashserv.example.com:8686",
    "cache.sstate_mirrors": ["file://.* https://cache.example.com/PATH"],
    "cache.premirrors": ["https?://.*/.* https://sources.example.com/"],
    "cache.hash_server_address": "hashserv.example.com:8686",
    "cache.hash_server_read_only_address": "hashserv.example.com:8687",
    "cache.hash_server_doors[].address": "192.0.2.1:8686",
    "cache.hash_server_doors[].writable": True,
    "cache.hash_server_doors[].release": "2.8",
    "cache.share.url": "file:///srv/share",
    "cache.share.credentials_file": "/secrets/share",
    "cache.share.ca_file": "/secrets/ca.pem",
    "cache.share.endpoint": "https://s3.example.com",
    "cache.share.region": "eu-north-1",
    "cache.share.upload": False,
    "cache.share.downloads": False,
    "cache.share.repositories": True,
    "cache.share.read_url": "https://cdn.example.com/share",
    "cache.yocto_mirror": True,
    "workspaces.mode": "warm",
    "workspaces.warm_refs": ["main"],
    "workspaces.fresh_refs": ["main"],
    "workspaces.max_count": 0,
    "workspaces.max_size": 1,
    "workspaces.rm_work": True,
    "builds.share": "all",
    "trust.untrusted_may_read_caches": False,
    "trust.private_cache_size": 1,
    "trust.untrusted_may_use_credentials": ["git.example.com", "other.example.com"],
    "trust.untrusted_images": ["debian:*"],
    "trust.untrusted_network": "strangers",
    "trust.untrusted_cpus": 0.5,
    "trust.untrusted_memory": "1G",
    "trust.untrusted_time_limit": 5,
    "gitlab.trusted_refs": "project",
    "gitlab.trusted_projects": ["other/*"],
    "gitlab.largest_artifact": 10,
    "gitlab.keep_checkouts_days": 1,
    "github.trusted_refs": "none",
    "github.trusted_repositories": ["other/*"],
    "github.forks": "refuse",
    "github.build_forks_in_privileged_events": True,
    "github.largest_artifact": 10,
    "github.only_smidr_jobs": "always",
    "github.smidr_actions": ["acme/build"],
    "github.runners.mode": "container",
    "github.runners.slots": 7,
    "github.runners.tarball": "/srv/other.tar.gz",
    "github.runners.sha256": "b" * 64,
    "github.runners.user": "4711:4711",
    "github.runners.directory": "/srv/runners",
    "github.runners.image": "registry.example.com/runner:2",
    "github.runners.cpus": 0.5,
    "github.runners.memory": "1G",
    "github.runners.environment": ["CI_TAG"],
    "directories.downloads": "/srv/downloads",
    "directories.sstate": "/srv/sstate",
    "directories.layers": "/srv/layers",
    "directories.workspaces": "/srv/workspaces",
    "directories.artifacts": "/srv/artifacts",
    "artifacts.external_store.url": "file:///srv/big",
    "artifacts.external_store.credentials_file": "/secrets/big",
    "artifacts.external_store.ca_file": "/secrets/ca.pem",
    "artifacts.external_store.endpoint": "https://s3.example.com",
    "artifacts.external_store.region": "eu-north-1",
    "artifacts.external_store.public_url": "https://files.example.com/big",
    "artifacts.external_store.link_days": 1,
    "artifacts.external_store.untrusted": True,
    "api.address": "127.0.0.1:50051",
    "api.http_address": "[::1]:8080",
    "api.tls_certificate_file": "/secrets/renewed.pem",
    "api.tls_key_file": "/secrets/renewed.key",
    "api.client_ca_file": "/secrets/other-ca.pem",
    "api.client_certificates": {"ops": "admin"},
    "api.requests_per_minute": 3,
}
"""One valid value per key of `agent.yaml`, different from the default."""

_EXCLUDES: Mapping[str, str] = {
    "layers[].path": "git",
    "git.credentials[].netrc_file": "token_file",
}
"""Keys that take another one's place."""

_RUNNER_ARCHIVE: Mapping[str, Any] = {
    "github": {"runners": {"tarball": str(Path(__file__)), "sha256": "a" * 64}}
}

_DOOR: Mapping[str, Any] = {"cache": {"hash_server_doors": [{"address": "192.0.2.1:8687"}]}}
_SHARE: Mapping[str, Any] = {"cache": {"share": {"url": "https://127.0.0.1:9/share"}}}
_BIG: Mapping[str, Any] = {"artifacts": {"external_store": {"url": "https://127.0.0.1:9/big"}}}
_S3_BIG: Mapping[str, Any] = {
    "artifacts": {"external_store": {"url": "s3://bucket/big", "credentials_file": "/secrets/s3"}}
}
_S3_SHARE: Mapping[str, Any] = {"cache": {"share": {"url": "s3://bucket/share"}}}

_CONTEXT: Mapping[str, Mapping[str, Any]] = {
    "artifacts.external_store.credentials_file": _BIG,
    "artifacts.external_store.ca_file": _BIG,
    "artifacts.external_store.endpoint": _S3_BIG,
    "artifacts.external_store.region": _S3_BIG,
    "artifacts.external_store.public_url": _BIG,
    "artifacts.external_store.link_days": _S3_BIG,
    "artifacts.external_store.untrusted": _BIG,
    "cache.hash_server_read_only_address": {
        "cache": {"hash_server_address": "hashserv.example.com:8686"}
    },
    "cache.hash_server_doors[].address": _DOOR,
    "cache.hash_server_doors[].writable": _DOOR,
    "cache.hash_server_doors[].release": _DOOR,
    "cache.share.credentials_file": _SHARE,
    "cache.share.ca_file": _SHARE,
    "cache.share.endpoint": _S3_SHARE,
    "cache.share.region": _S3_SHARE,
    "cache.share.upload": _SHARE,
    "cache.share.downloads": _SHARE,
    "cache.share.repositories": _SHARE,
    "cache.share.read_url": _SHARE,
    "github.runners.mode": {"github": {"runners": {"image": "registry.example.com/runner:1"}}},
    "github.runners.tarball": _RUNNER_ARCHIVE,
    "github.runners.sha256": _RUNNER_ARCHIVE,
    "history.keep_newest": {"history": {"max_builds": 1}},
    "workspaces.fresh_refs": {"workspaces": {"mode": "warm"}},
    "workspaces.max_count": {"workspaces": {"mode": "warm"}},
    "workspaces.max_size": {"workspaces": {"mode": "warm"}},
    "base.version": {"base": {"provider": "oe-core"}, "yocto_series": "scarthgap"},
}
"""What else both configs need for a key to mean anything."""


@dataclass(frozen=True)
class Key:
    """One key, and the raw configs with and without it."""

    path: KeyPath
    """Such as `("layers", 0, "git")`."""
    name: str
    """Such as `layers[].git`."""
    example: Any
    baseline: Mapping[str, Any]

    def raw_without(self) -> dict[str, Any]:
        """The baseline, with what this key needs beside it."""
        raw: dict[str, Any] = deepcopy(dict(self.baseline))
        for section, value in _CONTEXT.get(self.name, {}).items():
            raw[section] = deepcopy(value)
        return raw

    def raw_with(self) -> dict[str, Any]:
        """The same, with this key."""
        raw = self.raw_without()
        holder: Any = raw
        for step in self.path[:-1]:
            holder = holder[step] if isinstance(step, int) else holder.setdefault(step, {})
        holder.pop(_EXCLUDES.get(self.name), None)
        holder[self.path[-1]] = deepcopy(self.example)
        return raw


def iter_keys(
    model: type[Model] = ProjectConfig,
    examples: Mapping[str, Any] = EXAMPLES,
    baseline: Mapping[str, Any] = BASELINE,
) -> Iterator[Key]:
    """Every key of the model, sections opened; raises `KeyError` for one without an example."""
    for path in _paths(model, ()):
        name = dotted(path).replace("[0]", "[]")
        yield Key(path, name, examples[name], baseline)


def _paths(model: type[Model], path: KeyPath) -> Iterator[KeyPath]:
    for name, info in model.model_fields.items():
        inner, is_list = _section(info.annotation)
        if inner is None:
            yield (*path, name)
        else:
            yield from _paths(inner, (*path, name, 0) if is_list else (*path, name))


def _section(annotation: object) -> tuple[type[Model] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation, False
    for choice in get_args(annotation):
        inner, is_list = _section(choice)
        if inner is not None:
            return inner, is_list or getattr(annotation, "__origin__", None) is tuple
    return None, False


def unproven(keys: Iterator[Key], consumers: Mapping[str, object]) -> list[str]:
    """Names of keys that have no consumer, and of consumers that have no key."""
    names = {key.name for key in keys}
    return sorted(names ^ set(consumers))


_Config = TypeVar("_Config", bound=Model)


def assert_effect(key: Key, model: type[_Config], make: Callable[[_Config], object]) -> None:
    """What `make` builds from a config must not be the same with and without the key."""
    without = make(model.model_validate(key.raw_without()))
    with_key = make(model.model_validate(key.raw_with()))
    assert with_key != without, f"{key.name} changes nothing: {with_key!r}"
