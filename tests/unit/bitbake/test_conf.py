"""From typed values to conf files."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from smidr_ci.bitbake.conf import (
    ConfInputs,
    Share,
    render_bblayers_conf,
    render_local_conf,
    write_conf,
)
from smidr_ci.config.models import ProjectConfig
from smidr_ci.errors import FailureKind, HostError, LayerError
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree


def layer_set(version: tuple[int, int] = (2, 8), *, core: bool = True) -> LayerSet:
    collection = "core" if core else "hello"
    tree = LayerTree("meta", "", "", "0" * 40, Path("/nowhere"), (FoundLayer(collection, "."),))
    return LayerSet(
        (tree,), (PurePosixPath("/smidr/layers/meta"),), PurePosixPath("/smidr/bb"), version
    )


def inputs(
    config: dict[str, Any] | None = None,
    version: tuple[int, int] = (2, 8),
    *,
    core: bool = True,
    **other: Any,
) -> ConfInputs:
    model = ProjectConfig.model_validate({"name": "demo", **(config or {})})
    return ConfInputs(model, layer_set(version, core=core), threads=3, make_jobs=5, **other)


def local_conf(*args: Any, **kwargs: Any) -> list[str]:
    return render_local_conf(inputs(*args, **kwargs)).splitlines()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"base": {"machine": "qemuarm64"}}, 'MACHINE = "qemuarm64"'),
        ({"base": {"machine": "a"}, "build": {"machine": "b"}}, 'MACHINE = "b"'),
        ({"base": {"distro": "poky"}}, 'DISTRO = "poky"'),
        ({"build": {"multiconfig": ["one", "two"]}}, 'BBMULTICONFIG = "one two"'),
        ({"build": {"extra_packages": ["vim", "gdb"]}}, 'IMAGE_INSTALL:append = " vim gdb"'),
        ({"packages": {"classes": ["ipk", "deb"]}}, 'PACKAGE_CLASSES = "package_ipk package_deb"'),
        ({"build": {"package_classes": ["rpm"]}}, 'PACKAGE_CLASSES = "package_rpm"'),
        (
            {"features": {"extra_image_features": ["ssh-server-dropbear"]}},
            'EXTRA_IMAGE_FEATURES = "ssh-server-dropbear"',
        ),
        ({"features": {"user_classes": ["buildstats"]}}, 'USER_CLASSES = "buildstats"'),
        ({"features": {"inherit_classes": ["rm_work"]}}, 'INHERIT += "rm_work"'),
        ({"advanced": {"license_flags": ["commercial"]}}, 'LICENSE_FLAGS_ACCEPTED = "commercial"'),
        ({"advanced": {"accept_fsl_eula": True}}, 'ACCEPT_FSL_EULA = "1"'),
        ({"advanced": {"conf_version": 7}}, 'CONF_VERSION = "7"'),
        (
            {"advanced": {"qemu_sdl": True}},
            'PACKAGECONFIG:append:pn-qemu-system-native = " sdl"',
        ),
        (
            {"advanced": {"qemu_gtk": True}},
            'PACKAGECONFIG:append:pn-qemu-system-native = " gtk+"',
        ),
        (
            {"advanced": {"sstate_mirrors": ["file://.* http://mirror/PATH"]}},
            'SSTATE_MIRRORS = "file://.* http://mirror/PATH"',
        ),
        (
            {
                "advanced": {"sstate_mirrors": ["file://.* http://mirror/PATH"]},
                "build": {"fetch_first": True},
            },
            'SSTATE_MIRROR_ALLOW_NETWORK = "1"',
        ),
        (
            {"advanced": {"premirrors": ["https?://.*/.* http://mirror/", "git://.* http://m/"]}},
            'PREMIRRORS:prepend = "https?://.*/.* http://mirror/ git://.* http://m/ "',
        ),
        ({"advanced": {"bb_no_network": True}}, 'BB_NO_NETWORK = "1"'),
        ({"advanced": {"bb_fetch_premirroronly": True}}, 'BB_FETCH_PREMIRRORONLY = "1"'),
        ({"advanced": {"bb_signature_handler": "OEEquivHash"}}, 'BB_HASHSERVE = "auto"'),
        ({"advanced": {"bb_hashserve": "h:1"}}, 'BB_SIGNATURE_HANDLER = "OEEquivHash"'),
        ({}, 'BB_SIGNATURE_HANDLER = "OEBasicHash"'),
        ({}, 'BB_HASHSERVE = ""'),
        ({}, 'BB_BASEHASH_IGNORE_VARS:append = " BB_NO_NETWORK"'),
        ({}, 'BB_NUMBER_THREADS = "3"'),
        ({}, 'BB_NUMBER_PARSE_THREADS = "3"'),
        ({}, 'PARALLEL_MAKE = "-j 5"'),
        ({}, 'TMPDIR = "${TOPDIR}/tmp"'),
        ({}, 'DL_DIR = "/smidr/downloads"'),
        ({}, 'SSTATE_DIR = "/smidr/sstate"'),
    ],
)
def test_each_key_becomes_its_variable(config: dict[str, Any], line: str) -> None:
    assert line in local_conf(config)


def test_the_configs_own_lines_come_last_and_untouched() -> None:
    lines = ['MACHINE = "other"', 'FOO[doc] = "it\'s \\"x\\""']
    assert local_conf({"base": {"machine": "m"}, "local_conf": lines})[-2:] == lines


def test_lines_of_caches_and_trust_come_before_the_configs_own() -> None:
    text = local_conf({"local_conf": ['A = "1"']}, extra=('SSTATE_MIRRORS = "x y"',))
    assert text.index('SSTATE_MIRRORS = "x y"') < text.index('A = "1"')


@pytest.mark.parametrize(
    ("version", "expected", "unexpected"),
    [
        ((1, 46), 'IMAGE_INSTALL_append = " vim"', ":append"),
        ((1, 50), 'LICENSE_FLAGS_WHITELIST = "x"', "ACCEPTED"),
        ((1, 50), 'CONF_VERSION = "1"', "HALT"),
        ((1, 52), 'IMAGE_INSTALL:append = " vim"', "_append"),
        ((1, 52), 'LICENSE_FLAGS_WHITELIST = "x"', "HALT"),
        ((1, 52), 'CONF_VERSION = "2"', "ACCEPTED"),
        ((2, 0), 'LICENSE_FLAGS_ACCEPTED = "x"', "ABORT"),
        ((2, 8), 'TCLIBCAPPEND = ""', "WHITELIST"),
        ((2, 9), 'LICENSE_FLAGS_ACCEPTED = "x"', "TCLIBCAPPEND"),
        ((2, 19), 'CONF_VERSION = "2"', "TCLIBCAPPEND"),
    ],
)
def test_words_are_those_of_the_release(
    version: tuple[int, int], expected: str, unexpected: str
) -> None:
    config = {"build": {"extra_packages": ["vim"]}, "advanced": {"license_flags": ["x"]}}
    text = local_conf(config, version)
    assert expected in text
    assert unexpected not in "\n".join(text)


def test_disk_is_watched_unless_switched_off() -> None:
    watched = next(line for line in local_conf() if line.startswith("BB_DISKMON_DIRS"))
    assert "STOPTASKS,${TMPDIR},1G,100K" in watched
    assert "HALT,${SSTATE_DIR}" in watched
    off = local_conf({"advanced": {"disk_monitoring": False}})
    assert not any(line.startswith("BB_DISKMON_DIRS") for line in off)


def test_a_deploy_directory_outside_is_set_and_watched() -> None:
    text = local_conf(deploy_dir="/smidr/deploy")
    assert 'DEPLOY_DIR = "/smidr/deploy"' in text
    assert any("STOPTASKS,${DEPLOY_DIR}" in line for line in text)


def test_a_bare_project_keeps_its_own_signature_handler() -> None:
    text = "\n".join(local_conf(core=False))
    assert "BB_SIGNATURE_HANDLER" not in text
    assert "BB_HASHSERVE" not in text
    assert "MACHINE" not in text


def test_bblayers_conf_has_the_layers_in_order() -> None:
    text = render_bblayers_conf(inputs()).splitlines()
    assert 'BBPATH = "${TOPDIR}"' in text
    assert 'BBLAYERS = "/smidr/layers/meta"' in text


def test_a_layer_path_with_a_blank_is_refused() -> None:
    layers = LayerSet((), (PurePosixPath("/smidr/layers/a b"),), PurePosixPath("/bb"), (2, 8))
    wrong = ConfInputs(ProjectConfig(name="demo"), layers, threads=1, make_jobs=1)
    with pytest.raises(LayerError, match="blank"):
        render_bblayers_conf(wrong)


def test_a_file_that_is_right_keeps_its_time(tmp_path: Path) -> None:
    write_conf(tmp_path, inputs())
    path = tmp_path / "conf" / "local.conf"
    os.utime(path, (1, 1))
    write_conf(tmp_path, inputs())
    assert path.stat().st_mtime == 1
    write_conf(tmp_path, inputs({"base": {"machine": "new"}}))
    assert path.stat().st_mtime > 1
    assert 'MACHINE = "new"' in path.read_text()


@pytest.mark.parametrize("name", ["local.conf", "bblayers.conf"])
def test_a_planted_symlink_is_replaced_and_its_target_untouched(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / name).symlink_to(victim)
    write_conf(tmp_path, inputs())
    assert victim.read_text() == "precious"
    assert not (tmp_path / "conf" / name).is_symlink()


def test_a_planted_conf_directory_link_is_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "conf").symlink_to(outside)
    write_conf(tmp_path / "top", inputs())
    assert list(outside.iterdir()) == []
    assert (tmp_path / "top" / "conf" / "local.conf").is_file()


def test_what_the_system_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("in the way")
    with pytest.raises(HostError) as caught:
        write_conf(tmp_path, inputs())
    assert caught.value.kind is FailureKind.HOST
    assert "conf" in caught.value.where


def test_what_hosts_share_is_asked_after_the_own_and_before_all_mirrors() -> None:
    config = {
        "advanced": {"sstate_mirrors": ["file://.* http://mirror/PATH"]},
        "local_conf": ['SSTATE_MIRRORS = "file://.* http://other/PATH"'],
    }
    share = Share("http://127.0.0.1:8773")
    lines = local_conf(config, share=share, sstate_mirror="file://.* file:///own/PATH")
    assert (
        'SSTATE_MIRRORS:prepend = "file://.* file:///own/PATH file://.*'
        ' http://127.0.0.1:8773/sstate/PATH;downloadfilename=PATH "'
    ) in lines
    (sources,) = (line for line in lines if line.startswith("PREMIRRORS"))
    assert "git://.*/.* http://127.0.0.1:8773/downloads/ " in sources
    assert "https?://.*/.* http://127.0.0.1:8773/downloads/ " in sources
    assert "file://" not in sources
    assert not [line for line in lines if "TARBALLS" in line or "ALLOW_NETWORK" in line]


def test_only_sstate_is_asked_for_where_downloads_are_not_shared() -> None:
    share = Share("http://127.0.0.1:8773", has_downloads=False)
    lines = local_conf({"build": {"fetch_first": True}}, share=share)
    assert not [line for line in lines if line.startswith("PREMIRRORS")]
    assert 'SSTATE_MIRROR_ALLOW_NETWORK = "1"' in lines


def test_repositories_are_packed_for_others_when_asked_for() -> None:
    share = Share("http://127.0.0.1:8773", packs_repositories=True)
    assert 'BB_GENERATE_MIRROR_TARBALLS = "1"' in local_conf({}, share=share)
