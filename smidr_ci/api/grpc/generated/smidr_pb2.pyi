import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BuildState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUILD_STATE_UNSPECIFIED: _ClassVar[BuildState]
    BUILD_STATE_QUEUED: _ClassVar[BuildState]
    BUILD_STATE_PREPARING: _ClassVar[BuildState]
    BUILD_STATE_BUILDING: _ClassVar[BuildState]
    BUILD_STATE_EXTRACTING: _ClassVar[BuildState]
    BUILD_STATE_COMPLETED: _ClassVar[BuildState]
    BUILD_STATE_FAILED: _ClassVar[BuildState]
    BUILD_STATE_CANCELLED: _ClassVar[BuildState]

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_USAGE: _ClassVar[FailureKind]
    FAILURE_KIND_CONFIG: _ClassVar[FailureKind]
    FAILURE_KIND_LAYERS: _ClassVar[FailureKind]
    FAILURE_KIND_ENGINE: _ClassVar[FailureKind]
    FAILURE_KIND_IMAGE: _ClassVar[FailureKind]
    FAILURE_KIND_DISK: _ClassVar[FailureKind]
    FAILURE_KIND_CACHE: _ClassVar[FailureKind]
    FAILURE_KIND_HOST: _ClassVar[FailureKind]
    FAILURE_KIND_FORGE: _ClassVar[FailureKind]
    FAILURE_KIND_BUILD: _ClassVar[FailureKind]
    FAILURE_KIND_FETCH: _ClassVar[FailureKind]
    FAILURE_KIND_OUT_OF_MEMORY: _ClassVar[FailureKind]
    FAILURE_KIND_TIMEOUT: _ClassVar[FailureKind]
    FAILURE_KIND_ARTIFACTS: _ClassVar[FailureKind]
    FAILURE_KIND_INTERRUPTED: _ClassVar[FailureKind]
    FAILURE_KIND_CANCELLED: _ClassVar[FailureKind]
    FAILURE_KIND_INTERNAL: _ClassVar[FailureKind]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_ERROR: _ClassVar[Severity]
    SEVERITY_WARNING: _ClassVar[Severity]

class Trust(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUST_UNSPECIFIED: _ClassVar[Trust]
    TRUST_TRUSTED: _ClassVar[Trust]
    TRUST_UNTRUSTED: _ClassVar[Trust]

class CancelLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_LEVEL_UNSPECIFIED: _ClassVar[CancelLevel]
    CANCEL_LEVEL_GRACEFUL: _ClassVar[CancelLevel]
    CANCEL_LEVEL_NOW: _ClassVar[CancelLevel]
BUILD_STATE_UNSPECIFIED: BuildState
BUILD_STATE_QUEUED: BuildState
BUILD_STATE_PREPARING: BuildState
BUILD_STATE_BUILDING: BuildState
BUILD_STATE_EXTRACTING: BuildState
BUILD_STATE_COMPLETED: BuildState
BUILD_STATE_FAILED: BuildState
BUILD_STATE_CANCELLED: BuildState
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_USAGE: FailureKind
FAILURE_KIND_CONFIG: FailureKind
FAILURE_KIND_LAYERS: FailureKind
FAILURE_KIND_ENGINE: FailureKind
FAILURE_KIND_IMAGE: FailureKind
FAILURE_KIND_DISK: FailureKind
FAILURE_KIND_CACHE: FailureKind
FAILURE_KIND_HOST: FailureKind
FAILURE_KIND_FORGE: FailureKind
FAILURE_KIND_BUILD: FailureKind
FAILURE_KIND_FETCH: FailureKind
FAILURE_KIND_OUT_OF_MEMORY: FailureKind
FAILURE_KIND_TIMEOUT: FailureKind
FAILURE_KIND_ARTIFACTS: FailureKind
FAILURE_KIND_INTERRUPTED: FailureKind
FAILURE_KIND_CANCELLED: FailureKind
FAILURE_KIND_INTERNAL: FailureKind
SEVERITY_UNSPECIFIED: Severity
SEVERITY_ERROR: Severity
SEVERITY_WARNING: Severity
TRUST_UNSPECIFIED: Trust
TRUST_TRUSTED: Trust
TRUST_UNTRUSTED: Trust
CANCEL_LEVEL_UNSPECIFIED: CancelLevel
CANCEL_LEVEL_GRACEFUL: CancelLevel
CANCEL_LEVEL_NOW: CancelLevel

class Error(_message.Message):
    __slots__ = ("kind", "message", "where", "hint", "retry_after_s")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    kind: FailureKind
    message: str
    where: str
    hint: str
    retry_after_s: float
    def __init__(self, kind: _Optional[_Union[FailureKind, str]] = ..., message: _Optional[str] = ..., where: _Optional[str] = ..., hint: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "started", "ended")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    started: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("path", "size_bytes", "sha256")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    sha256: str
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class SstateSummary(_message.Message):
    __slots__ = ("wanted", "local", "mirrors", "missed", "current")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    MIRRORS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    wanted: int
    local: int
    mirrors: int
    missed: int
    current: int
    def __init__(self, wanted: _Optional[int] = ..., local: _Optional[int] = ..., mirrors: _Optional[int] = ..., missed: _Optional[int] = ..., current: _Optional[int] = ...) -> None: ...

class ExcerptLine(_message.Message):
    __slots__ = ("number", "offset", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    offset: int
    text: str
    def __init__(self, number: _Optional[int] = ..., offset: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Consequence(_message.Message):
    __slots__ = ("message", "recipe", "task")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    message: str
    recipe: str
    task: str
    def __init__(self, message: _Optional[str] = ..., recipe: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("category", "severity", "message", "rule", "recipe", "version", "task", "file", "line", "column", "repo_path", "layer", "hint", "excerpt", "log", "log_line", "task_log", "retryable", "cause_visible", "reproduce", "fingerprint", "consequences", "consequence_count")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    REPO_PATH_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    EXCERPT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_LINE_FIELD_NUMBER: _ClassVar[int]
    TASK_LOG_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_VISIBLE_FIELD_NUMBER: _ClassVar[int]
    REPRODUCE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONSEQUENCES_FIELD_NUMBER: _ClassVar[int]
    CONSEQUENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    category: str
    severity: Severity
    message: str
    rule: str
    recipe: str
    version: str
    task: str
    file: str
    line: int
    column: int
    repo_path: str
    layer: str
    hint: str
    excerpt: _containers.RepeatedCompositeFieldContainer[ExcerptLine]
    log: str
    log_line: int
    task_log: str
    retryable: bool
    cause_visible: bool
    reproduce: str
    fingerprint: str
    consequences: _containers.RepeatedCompositeFieldContainer[Consequence]
    consequence_count: int
    def __init__(self, category: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., message: _Optional[str] = ..., rule: _Optional[str] = ..., recipe: _Optional[str] = ..., version: _Optional[str] = ..., task: _Optional[str] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ..., repo_path: _Optional[str] = ..., layer: _Optional[str] = ..., hint: _Optional[str] = ..., excerpt: _Optional[_Iterable[_Union[ExcerptLine, _Mapping]]] = ..., log: _Optional[str] = ..., log_line: _Optional[int] = ..., task_log: _Optional[str] = ..., retryable: _Optional[bool] = ..., cause_visible: _Optional[bool] = ..., reproduce: _Optional[str] = ..., fingerprint: _Optional[str] = ..., consequences: _Optional[_Iterable[_Union[Consequence, _Mapping]]] = ..., consequence_count: _Optional[int] = ...) -> None: ...

class RebuildReason(_message.Message):
    __slots__ = ("recipe", "task", "kind", "name", "how", "old", "new", "text", "others", "recipes", "recipe_count")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    RECIPE_COUNT_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    task: str
    kind: str
    name: str
    how: str
    old: str
    new: str
    text: str
    others: int
    recipes: _containers.RepeatedScalarFieldContainer[str]
    recipe_count: int
    def __init__(self, recipe: _Optional[str] = ..., task: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., how: _Optional[str] = ..., old: _Optional[str] = ..., new: _Optional[str] = ..., text: _Optional[str] = ..., others: _Optional[int] = ..., recipes: _Optional[_Iterable[str]] = ..., recipe_count: _Optional[int] = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("executed_s", "spared_s", "restored", "timed", "restored_bytes")
    EXECUTED_S_FIELD_NUMBER: _ClassVar[int]
    SPARED_S_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    TIMED_FIELD_NUMBER: _ClassVar[int]
    RESTORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    executed_s: float
    spared_s: float
    restored: int
    timed: int
    restored_bytes: int
    def __init__(self, executed_s: _Optional[float] = ..., spared_s: _Optional[float] = ..., restored: _Optional[int] = ..., timed: _Optional[int] = ..., restored_bytes: _Optional[int] = ...) -> None: ...

class Build(_message.Message):
    __slots__ = ("build_id", "customer", "project", "targets", "state", "created", "started", "ended", "config_text", "config_path", "description", "requested_by", "exit_code", "failure_kind", "failure_message", "image", "layer_commits", "stages", "sstate", "tasks", "findings", "artifacts", "rebuilt", "workspace", "owner_pid", "is_resumable", "cancel_reason", "is_summary", "trust", "warm_from", "shared_run", "work")
    class LayerCommitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_TEXT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_PATH_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_KIND_FIELD_NUMBER: _ClassVar[int]
    FAILURE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LAYER_COMMITS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    SSTATE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    REBUILT_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    OWNER_PID_FIELD_NUMBER: _ClassVar[int]
    IS_RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REASON_FIELD_NUMBER: _ClassVar[int]
    IS_SUMMARY_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    WARM_FROM_FIELD_NUMBER: _ClassVar[int]
    SHARED_RUN_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    customer: str
    project: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    state: BuildState
    created: _timestamp_pb2.Timestamp
    started: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    config_text: str
    config_path: str
    description: str
    requested_by: str
    exit_code: int
    failure_kind: FailureKind
    failure_message: str
    image: str
    layer_commits: _containers.ScalarMap[str, str]
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    sstate: SstateSummary
    tasks: _containers.ScalarMap[str, int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    rebuilt: _containers.RepeatedCompositeFieldContainer[RebuildReason]
    workspace: str
    owner_pid: int
    is_resumable: bool
    cancel_reason: str
    is_summary: bool
    trust: Trust
    warm_from: str
    shared_run: str
    work: Work
    def __init__(self, build_id: _Optional[str] = ..., customer: _Optional[str] = ..., project: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[BuildState, str]] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., config_text: _Optional[str] = ..., config_path: _Optional[str] = ..., description: _Optional[str] = ..., requested_by: _Optional[str] = ..., exit_code: _Optional[int] = ..., failure_kind: _Optional[_Union[FailureKind, str]] = ..., failure_message: _Optional[str] = ..., image: _Optional[str] = ..., layer_commits: _Optional[_Mapping[str, str]] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., sstate: _Optional[_Union[SstateSummary, _Mapping]] = ..., tasks: _Optional[_Mapping[str, int]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., rebuilt: _Optional[_Iterable[_Union[RebuildReason, _Mapping]]] = ..., workspace: _Optional[str] = ..., owner_pid: _Optional[int] = ..., is_resumable: _Optional[bool] = ..., cancel_reason: _Optional[str] = ..., is_summary: _Optional[bool] = ..., trust: _Optional[_Union[Trust, str]] = ..., warm_from: _Optional[str] = ..., shared_run: _Optional[str] = ..., work: _Optional[_Union[Work, _Mapping]] = ...) -> None: ...

class RunningTask(_message.Message):
    __slots__ = ("pid", "pn", "task", "started", "mc")
    PID_FIELD_NUMBER: _ClassVar[int]
    PN_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    MC_FIELD_NUMBER: _ClassVar[int]
    pid: int
    pn: str
    task: str
    started: float
    mc: str
    def __init__(self, pid: _Optional[int] = ..., pn: _Optional[str] = ..., task: _Optional[str] = ..., started: _Optional[float] = ..., mc: _Optional[str] = ...) -> None: ...

class TaskFailure(_message.Message):
    __slots__ = ("task", "file", "pn", "pv", "mc", "exit_code", "logfile")
    TASK_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    PN_FIELD_NUMBER: _ClassVar[int]
    PV_FIELD_NUMBER: _ClassVar[int]
    MC_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    LOGFILE_FIELD_NUMBER: _ClassVar[int]
    task: str
    file: str
    pn: str
    pv: str
    mc: str
    exit_code: int
    logfile: str
    def __init__(self, task: _Optional[str] = ..., file: _Optional[str] = ..., pn: _Optional[str] = ..., pv: _Optional[str] = ..., mc: _Optional[str] = ..., exit_code: _Optional[int] = ..., logfile: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("phase", "stage", "bitbake", "recipes", "recipes_done", "recipes_cached", "recipes_parsed", "recipe_errors", "tasks_total", "tasks_completed", "tasks_active", "tasks_failed", "tasks_executed", "tasks_from_sstate", "setscene_total", "setscene_covered", "setscene_failed", "running", "sstate", "failures", "errors", "warnings", "exit_code")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BITBAKE_FIELD_NUMBER: _ClassVar[int]
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    RECIPES_DONE_FIELD_NUMBER: _ClassVar[int]
    RECIPES_CACHED_FIELD_NUMBER: _ClassVar[int]
    RECIPES_PARSED_FIELD_NUMBER: _ClassVar[int]
    RECIPE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    TASKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TASKS_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    TASKS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FAILED_FIELD_NUMBER: _ClassVar[int]
    TASKS_EXECUTED_FIELD_NUMBER: _ClassVar[int]
    TASKS_FROM_SSTATE_FIELD_NUMBER: _ClassVar[int]
    SETSCENE_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SETSCENE_COVERED_FIELD_NUMBER: _ClassVar[int]
    SETSCENE_FAILED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SSTATE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    phase: str
    stage: str
    bitbake: str
    recipes: int
    recipes_done: int
    recipes_cached: int
    recipes_parsed: int
    recipe_errors: int
    tasks_total: int
    tasks_completed: int
    tasks_active: int
    tasks_failed: int
    tasks_executed: int
    tasks_from_sstate: int
    setscene_total: int
    setscene_covered: int
    setscene_failed: int
    running: _containers.RepeatedCompositeFieldContainer[RunningTask]
    sstate: SstateSummary
    failures: _containers.RepeatedCompositeFieldContainer[TaskFailure]
    errors: _containers.RepeatedScalarFieldContainer[str]
    warnings: int
    exit_code: int
    def __init__(self, phase: _Optional[str] = ..., stage: _Optional[str] = ..., bitbake: _Optional[str] = ..., recipes: _Optional[int] = ..., recipes_done: _Optional[int] = ..., recipes_cached: _Optional[int] = ..., recipes_parsed: _Optional[int] = ..., recipe_errors: _Optional[int] = ..., tasks_total: _Optional[int] = ..., tasks_completed: _Optional[int] = ..., tasks_active: _Optional[int] = ..., tasks_failed: _Optional[int] = ..., tasks_executed: _Optional[int] = ..., tasks_from_sstate: _Optional[int] = ..., setscene_total: _Optional[int] = ..., setscene_covered: _Optional[int] = ..., setscene_failed: _Optional[int] = ..., running: _Optional[_Iterable[_Union[RunningTask, _Mapping]]] = ..., sstate: _Optional[_Union[SstateSummary, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[TaskFailure, _Mapping]]] = ..., errors: _Optional[_Iterable[str]] = ..., warnings: _Optional[int] = ..., exit_code: _Optional[int] = ...) -> None: ...

class Note(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class StartBuildRequest(_message.Message):
    __slots__ = ("customer", "config_text", "config_name", "targets", "clean", "clean_image", "fetch_only", "locked", "keep_workspace", "variables", "environment", "bundle", "is_untrusted", "fresh", "ref")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_TEXT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    CLEAN_IMAGE_FIELD_NUMBER: _ClassVar[int]
    FETCH_ONLY_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    KEEP_WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    IS_UNTRUSTED_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    customer: str
    config_text: str
    config_name: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    clean: bool
    clean_image: bool
    fetch_only: bool
    locked: bool
    keep_workspace: bool
    variables: _containers.ScalarMap[str, str]
    environment: _containers.ScalarMap[str, str]
    bundle: bytes
    is_untrusted: bool
    fresh: bool
    ref: str
    def __init__(self, customer: _Optional[str] = ..., config_text: _Optional[str] = ..., config_name: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., clean: _Optional[bool] = ..., clean_image: _Optional[bool] = ..., fetch_only: _Optional[bool] = ..., locked: _Optional[bool] = ..., keep_workspace: _Optional[bool] = ..., variables: _Optional[_Mapping[str, str]] = ..., environment: _Optional[_Mapping[str, str]] = ..., bundle: _Optional[bytes] = ..., is_untrusted: _Optional[bool] = ..., fresh: _Optional[bool] = ..., ref: _Optional[str] = ...) -> None: ...

class StartBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class GetBuildStatusRequest(_message.Message):
    __slots__ = ("build_id",)
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    def __init__(self, build_id: _Optional[str] = ...) -> None: ...

class GetBuildStatusResponse(_message.Message):
    __slots__ = ("build", "progress", "waiting_for")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    build: Build
    progress: Progress
    waiting_for: str
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., waiting_for: _Optional[str] = ...) -> None: ...

class GetBuildRequest(_message.Message):
    __slots__ = ("build_id",)
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    def __init__(self, build_id: _Optional[str] = ...) -> None: ...

class GetBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class WatchBuildRequest(_message.Message):
    __slots__ = ("build_id", "agent_run", "after_note")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_NOTE_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    agent_run: str
    after_note: int
    def __init__(self, build_id: _Optional[str] = ..., agent_run: _Optional[str] = ..., after_note: _Optional[int] = ...) -> None: ...

class WatchBuildResponse(_message.Message):
    __slots__ = ("version", "build", "progress", "notes", "waiting_for", "agent_run")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    AGENT_RUN_FIELD_NUMBER: _ClassVar[int]
    version: int
    build: Build
    progress: Progress
    notes: _containers.RepeatedCompositeFieldContainer[Note]
    waiting_for: str
    agent_run: str
    def __init__(self, version: _Optional[int] = ..., build: _Optional[_Union[Build, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., notes: _Optional[_Iterable[_Union[Note, _Mapping]]] = ..., waiting_for: _Optional[str] = ..., agent_run: _Optional[str] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("build_id", "offset", "tail_lines", "follow")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    offset: int
    tail_lines: int
    follow: bool
    def __init__(self, build_id: _Optional[str] = ..., offset: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ListBuildsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state", "customer")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: BuildState
    customer: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[BuildState, str]] = ..., customer: _Optional[str] = ...) -> None: ...

class ListBuildsResponse(_message.Message):
    __slots__ = ("builds", "next_page_token")
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[Build]
    next_page_token: str
    def __init__(self, builds: _Optional[_Iterable[_Union[Build, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelBuildRequest(_message.Message):
    __slots__ = ("build_id", "level")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    level: CancelLevel
    def __init__(self, build_id: _Optional[str] = ..., level: _Optional[_Union[CancelLevel, str]] = ...) -> None: ...

class CancelBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class ListArtifactsRequest(_message.Message):
    __slots__ = ("build_id",)
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    def __init__(self, build_id: _Optional[str] = ...) -> None: ...

class ListArtifactsResponse(_message.Message):
    __slots__ = ("artifacts",)
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    def __init__(self, artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ...) -> None: ...

class DownloadArtifactRequest(_message.Message):
    __slots__ = ("build_id", "path", "offset")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    path: str
    offset: int
    def __init__(self, build_id: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadArtifactResponse(_message.Message):
    __slots__ = ("artifact", "offset", "data")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    offset: int
    data: bytes
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class DeleteBuildRequest(_message.Message):
    __slots__ = ("build_id",)
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    def __init__(self, build_id: _Optional[str] = ...) -> None: ...

class DeleteBuildResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PurgeBuildsRequest(_message.Message):
    __slots__ = ("deleted_before",)
    DELETED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    deleted_before: _timestamp_pb2.Timestamp
    def __init__(self, deleted_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PurgeBuildsResponse(_message.Message):
    __slots__ = ("build_ids",)
    BUILD_IDS_FIELD_NUMBER: _ClassVar[int]
    build_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, build_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAgentStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAgentStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: AgentStatus
    def __init__(self, status: _Optional[_Union[AgentStatus, _Mapping]] = ...) -> None: ...

class AgentStatus(_message.Message):
    __slots__ = ("version", "pid", "started", "is_draining", "running", "queued", "max_running", "listening", "outbox", "problems", "settings", "registrations", "taken")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    LISTENING_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REGISTRATIONS_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    started: _timestamp_pb2.Timestamp
    is_draining: bool
    running: _containers.RepeatedScalarFieldContainer[str]
    queued: _containers.RepeatedCompositeFieldContainer[QueuedBuild]
    max_running: int
    listening: _containers.RepeatedScalarFieldContainer[str]
    outbox: _containers.RepeatedCompositeFieldContainer[OutboxStatus]
    problems: _containers.RepeatedScalarFieldContainer[str]
    settings: _containers.ScalarMap[str, str]
    registrations: _containers.RepeatedCompositeFieldContainer[RegistrationStatus]
    taken: int
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_draining: _Optional[bool] = ..., running: _Optional[_Iterable[str]] = ..., queued: _Optional[_Iterable[_Union[QueuedBuild, _Mapping]]] = ..., max_running: _Optional[int] = ..., listening: _Optional[_Iterable[str]] = ..., outbox: _Optional[_Iterable[_Union[OutboxStatus, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ..., settings: _Optional[_Mapping[str, str]] = ..., registrations: _Optional[_Iterable[_Union[RegistrationStatus, _Mapping]]] = ..., taken: _Optional[int] = ...) -> None: ...

class RegistrationStatus(_message.Message):
    __slots__ = ("name", "forge", "url", "state", "detail", "jobs", "runners", "runner_version")
    class RunnersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORGE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    RUNNERS_FIELD_NUMBER: _ClassVar[int]
    RUNNER_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    forge: str
    url: str
    state: str
    detail: str
    jobs: _containers.RepeatedScalarFieldContainer[str]
    runners: _containers.ScalarMap[str, int]
    runner_version: str
    def __init__(self, name: _Optional[str] = ..., forge: _Optional[str] = ..., url: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., jobs: _Optional[_Iterable[str]] = ..., runners: _Optional[_Mapping[str, int]] = ..., runner_version: _Optional[str] = ...) -> None: ...

class QueuedBuild(_message.Message):
    __slots__ = ("build_id", "waiting_for")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    waiting_for: str
    def __init__(self, build_id: _Optional[str] = ..., waiting_for: _Optional[str] = ...) -> None: ...

class OutboxStatus(_message.Message):
    __slots__ = ("receiver", "waiting", "given_up", "last_error", "next_try")
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_TRY_FIELD_NUMBER: _ClassVar[int]
    receiver: str
    waiting: int
    given_up: int
    last_error: str
    next_try: _timestamp_pb2.Timestamp
    def __init__(self, receiver: _Optional[str] = ..., waiting: _Optional[int] = ..., given_up: _Optional[int] = ..., last_error: _Optional[str] = ..., next_try: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopAgentRequest(_message.Message):
    __slots__ = ("cancel_builds",)
    CANCEL_BUILDS_FIELD_NUMBER: _ClassVar[int]
    cancel_builds: bool
    def __init__(self, cancel_builds: _Optional[bool] = ...) -> None: ...

class StopAgentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
