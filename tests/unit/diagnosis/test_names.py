from __future__ import annotations

import pytest

from smidr_ci.diagnosis.names import RecipeName, from_label, from_recipe_file, from_work_path


@pytest.mark.parametrize(
    ("label", "recipe", "version"),
    [
        ("zlib-1.3.1-r0", "zlib", "1.3.1"),
        ("u-boot-1_2025.07-r0", "u-boot", "2025.07"),
        (
            "linux-yocto-5.8.13+gitAUTOINC+34775c20bc_5981001bf0-r0",
            "linux-yocto",
            "5.8.13+gitAUTOINC+34775c20bc_5981001bf0",
        ),
        ("glib-2.0-2.66.7-r0", "glib-2.0", "2.66.7"),
        ("gstreamer1.0-plugins-base-1.18.4-r0", "gstreamer1.0-plugins-base", "1.18.4"),
        ("openjdk-8-292b10-r0", "openjdk-8", "292b10"),
        ("map-server-1.1.1-1-r0", "map-server", "1.1.1-1"),
        ("agent-git-r0", "agent", "git"),
        ("tool-v0.59+git-r0", "tool", "v0.59+git"),
        ("mc:lab:lib32-curl-8.0-r0", "lib32-curl", "8.0"),
        ("nativesdk-qemu-9.2.0-r0", "nativesdk-qemu", "9.2.0"),
        ("python3-numpy-native-1.26.4-r0", "python3-numpy-native", "1.26.4"),
        ("x264-r3039+git-r0", "x264-r3039+git", None),
    ],
)
def test_a_label_splits_into_recipe_and_version(
    label: str, recipe: str, version: str | None
) -> None:
    assert from_label(label) == RecipeName(recipe, version)


@pytest.mark.parametrize(
    ("path", "recipe", "version"),
    [
        ("/l/zlib_1.3.1.bb", "zlib", "1.3.1"),
        ("virtual:native:/l/sqlite3_3.43.2.bb", "sqlite3-native", "3.43.2"),
        ("virtual:nativesdk:/l/qemu_9.bb", "nativesdk-qemu", "9"),
        ("virtual:multilib:lib32:/l/curl_8.0.bb", "lib32-curl", "8.0"),
        ("mc:lab:virtual:native:/l/a_1.bb", "a-native", "1"),
        ("/l/linux-demo.bb", "linux-demo", None),
        ("/l/demo_%.bbappend", "demo", None),
        ("/l/demo_git.bb", "demo", "git"),
    ],
)
def test_a_recipe_path_names_recipe_and_version(
    path: str, recipe: str, version: str | None
) -> None:
    assert from_recipe_file(path) == RecipeName(recipe, version)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/b/tmp/work/core2-64-poky-linux/curl/8.0-r0/build/x.c", RecipeName("curl", "8.0")),
        ("/b/tmp/work/core2-64-poky-linux/curl/8.0/temp/log.do_x.1", RecipeName("curl", "8.0")),
        (
            "/b/tmp/work/x86_64-linux/sqlite3-native/3_3.43.2-r0/a",
            RecipeName("sqlite3-native", "3.43.2"),
        ),
        (
            "/b/tmp/work/armv7a-oe-linux/libtool-cross-2.4-r1/temp/a",
            RecipeName("libtool-cross", "2.4"),
        ),
        ("/home/me/work/oe/meta-demo/recipes-core/a/b", None),
        ("/b/tmp/work-shared/llvm-source-9.0-r0/git/a", None),
        ("no path here", None),
    ],
)
def test_a_work_directory_names_the_recipe(text: str, expected: RecipeName | None) -> None:
    assert from_work_path(text) == expected


def test_other_files_name_no_recipe() -> None:
    assert from_recipe_file("/l/classes/base.bbclass") is None
    assert from_recipe_file("conf/local.conf") is None
