"""Which of several lines is the cause, and which of several failures comes first."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Weight

__all__ = ["best_evidence", "category_of", "order_of", "task_category"]

_TASK_CATEGORIES: Final = (
    ("do_fetch", Category.FETCH),
    ("do_unpack", Category.FETCH),
    ("do_kernel", Category.KERNEL),
    ("do_patch", Category.PATCH),
    ("do_configure", Category.CONFIGURE),
    ("do_generate_toolchain_file", Category.CONFIGURE),
    ("do_compile_kernelmodules", Category.KERNEL),
    ("do_compile", Category.COMPILE),
    ("do_install", Category.INSTALL),
    ("do_package_qa", Category.PACKAGE_QA),
    ("do_package", Category.PACKAGING),
    ("do_populate_lic", Category.LICENSE),
    ("do_populate_sysroot", Category.INSTALL),
    ("do_populate_sdk", Category.ROOTFS),
    ("do_prepare_recipe_sysroot", Category.SSTATE),
    ("do_rootfs", Category.ROOTFS),
    ("do_image", Category.IMAGE),
    ("do_bootimg", Category.IMAGE),
    ("do_sizecheck", Category.KERNEL),
    ("do_validate_branches", Category.KERNEL),
    ("do_bundle_initramfs", Category.KERNEL),
    ("do_shared_workdir", Category.KERNEL),
    ("do_uboot", Category.KERNEL),
    ("do_assemble_fitimage", Category.KERNEL),
    ("do_deploy", Category.INSTALL),
    ("do_sdk_depends", Category.ROOTFS),
    ("do_flush_pseudodb", Category.PSEUDO),
    ("do_recipe_qa", Category.PACKAGE_QA),
    ("do_vendor", Category.FETCH),
)
_KERNEL_RECIPE: Final = re.compile(
    r"^(?:linux(?!-firmware|-libc|-atm)(?:-[\w.+-]{1,80})?|virtual/kernel|.{1,40}-kernel)$"
)
_SETSCENE: Final = "_setscene"

_TOOLCHAIN: Final = frozenset({Category.COMPILE, Category.LINK})


def task_category(task: str | None, recipe: str | None) -> Category | None:
    """What a failure of this task usually is, when nothing better is known."""
    if not task:
        return None
    if task.endswith(_SETSCENE):
        return Category.SSTATE
    if task == "do_deploy" and recipe and _KERNEL_RECIPE.match(recipe):
        return Category.KERNEL
    for prefix, category in _TASK_CATEGORIES:
        if task.startswith(prefix):
            return category
    return None


def best_evidence(failure: Failure) -> Evidence | None:
    """The line that explains the failure best: the weightiest, of equals the first."""
    if not failure.evidence:
        return None
    items = [item for item in failure.evidence if item.log == "console"] or failure.evidence
    outside = [item for item in failure.evidence if item.log != "console"]
    best = max(items, key=lambda item: (item.weight, -item.number))
    if outside:
        inner = max(outside, key=lambda item: (item.weight, -item.number))
        if inner.weight > best.weight or best.weight < Weight.CAUSE:
            best = inner
    return best


def category_of(failure: Failure, item: Evidence | None) -> Category:
    """The category of a failure whose best line is `item`."""
    recipe = failure.name.recipe if failure.name else None
    by_task = task_category(failure.task, recipe)
    if item is None:
        return failure.category or by_task or Category.OTHER
    if failure.category is not None:
        weight = item.weight >= Weight.ROOT
        return item.rule.category if weight else failure.category
    if by_task and _task_decides(failure, item, by_task):
        return by_task
    return item.rule.category


def _task_decides(failure: Failure, item: Evidence, by_task: Category) -> bool:
    category = item.rule.category
    if by_task is Category.SSTATE and failure.task and failure.task.endswith(_SETSCENE):
        return item.weight < Weight.ROOT
    if item.rule.by_task or category is Category.OTHER:
        return True
    if by_task is Category.LICENSE and category is Category.PACKAGE_QA:
        return True
    if category in _TOOLCHAIN:
        return by_task is Category.CONFIGURE
    return category is Category.PYTHON_EXCEPTION and _is_tool(failure, item)


def _is_tool(failure: Failure, item: Evidence) -> bool:
    # What runs in a shell task, or is printed in its log, is the package's code, not BitBake's.
    if item.rule.name in _OF_BITBAKE and not item.in_block and item.log == "console":
        return False
    shell = ("do_configure", "do_compile", "do_install")
    return item.in_block or (failure.task or "").startswith(shell)


_OF_BITBAKE: Final = frozenset({"python-exception-bitbake", "python-exception-repr"})
"""How BitBake itself prints the exception of a Python task."""

_FIRST: Final = {
    Category.LAYER_COMPAT: 0,
    Category.LAYER_DEPENDENCY: 1,
    Category.OUT_OF_MEMORY: 1,
    Category.DISK_SPACE: 1,
    Category.SANITY: 2,
    Category.TASKHASH: 4,
    Category.TIMEOUT: 8,
    Category.CANCELLED: 9,
    Category.SERVER: 6,
}


def order_of(failure: Failure) -> tuple[int, int, int]:
    """Sorts failures: what explains the others first, then as they came."""
    item = best_evidence(failure)
    category = category_of(failure, item)
    if failure.task and failure.task.endswith(_SETSCENE):
        return (7, 0, failure.order)
    if item is not None and item.weight < Weight.FRAME and not failure.task:
        return (12, 0, failure.order)
    if item is None or item.weight <= Weight.ECHO:
        return (5 if failure.task else 7, 0, failure.order)
    if failure.category is None:
        return (_FIRST.get(category, 4), 0, failure.order)
    weak = item.weight < Weight.LIKELY
    return (_FIRST.get(category, 3) + 2 * weak, 0, failure.order)
