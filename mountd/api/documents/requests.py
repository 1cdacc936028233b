"""What requests give: the fields of each body and of each query, as handlers read them and the OpenAPI document shows
them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

Model = Annotated[str, Field(description="Name of the model; may be left out where there is only one.")]
Version = Annotated[str, Field(description="Name of the version, such as `v23`.")]
Reason = Annotated[str, Field(description="Why it is asked for; recorded in the history.")]
Wait = Annotated[float, Field(description="How long to wait for it: seconds, 60 at most.")]
DryRun = Annotated[bool, Field(description="Only check, and answer with the plan.")]

# -- queries ----------------------------------------------------------------------------------------------------------


class NoQuery(TypedDict):
    pass


StatusQuery = TypedDict(
    "StatusQuery",
    {
        "wait": Wait,
        "for": Annotated[str, Field(description="What to wait for: `ready`, or `version=VERSION`.")],
        "model": Annotated[str, Field(description="Of which model `for=version=VERSION` is meant.")],
    },
    total=False,
)


class ModelQuery(TypedDict, total=False):
    model: Model


class DiffQuery(TypedDict, total=False):
    model: Annotated[str, Field(description="Only of this model; without it of all.")]


class OperationQuery(TypedDict, total=False):
    wait: Wait
    step: Annotated[str, Field(description="With `wait`: answer as soon as the operation is at another step.")]


class LogsQuery(TypedDict, total=False):
    name: Annotated[str, Field(description="Only of this mount or app; without it of all.")]
    lines: Annotated[int, Field(description="Number of lines at most: 100, with `since` all.")]
    since: Annotated[float, Field(description="Only the lines of the last seconds.")]
    previous: Annotated[bool, Field(description="Of the process before the current one.")]
    follow: Annotated[bool, Field(description="Continue with new lines, as a stream of JSON lines.")]


class HistoryQuery(TypedDict, total=False):
    model: Annotated[str, Field(description="Only operations of this model.")]
    kind: Annotated[str, Field(description="Only operations of this kind, such as `switch` or `rollback`.")]
    result: Annotated[str, Field(description="Only operations with this result, such as `committed`.")]
    limit: Annotated[int, Field(description="Number of operations at most: 50 without it, and 1000.")]
    before: Annotated[int, Field(description="Only operations with a smaller id: the `next` of the page before.")]


class EventsQuery(TypedDict, total=False):
    after: Annotated[int, Field(description="Only events with a larger id; without it the newest ones.")]
    limit: Annotated[int, Field(description="Number of events at most: 50 without it, and 1000.")]
    before: Annotated[int, Field(description="Only events with a smaller id.")]
    follow: Annotated[bool, Field(description="Continue with new events, as a stream of server-sent events.")]
    code: Annotated[str, Field(description="Only events with this code.")]
    object: Annotated[str, Field(description="Only events of this mount, model or app.")]


class StreamQuery(TypedDict, total=False):
    after: Annotated[int, Field(description="Only events with a larger id; without it only new ones.")]


class ExplainQuery(TypedDict, total=False):
    lang: Annotated[str, Field(description="Language of the texts: `en` or `zh_CN`, as far as there is a translation.")]


class ProfileQuery(TypedDict, total=False):
    model: Model
    version: Annotated[str, Field(description="Only what was recorded with this version.")]


# -- bodies -----------------------------------------------------------------------------------------------------------


class NoBody(TypedDict):
    pass


class ChangeFields(TypedDict, total=False):
    reason: Reason
    dry_run: DryRun
    force: Annotated[bool, Field(description="Ignore quarantine, changed content and a missing manifest.")]
    digests: Annotated[bool, Field(description="Read every file, and compare it with the digest of the manifest.")]


class VersionGiven(TypedDict):
    version: Version


class SwitchBody(VersionGiven, ChangeFields, total=False):
    model: Model
    at: Annotated[str, Field(description="When to switch: `+30m`, or ISO 8601 with an offset; without it now.")]


class RollbackBody(ChangeFields, total=False):
    model: Model
    to: Annotated[int, Field(description="Id of an operation: back to what was live after it.")]


class WarmBody(VersionGiven, total=False):
    model: Model
    level: Annotated[str, Field(description="How much to load: `metadata`, `data` or `pin`.")]
    reason: Reason


class CancelBody(TypedDict, total=False):
    model: Model
    id: Annotated[int, Field(description="Id of the operation or of a scheduled switch; without it what runs now.")]


class PauseBody(TypedDict, total=False):
    model: Annotated[str, Field(description="Only this model; without it all.")]
    reason: Reason


class DrillKindGiven(TypedDict):
    kind: Annotated[str, Field(description="Which fault to rehearse: `kill`, `hang`, `slow` or `offline`.")]


class _DrillRest(TypedDict, total=False):
    mount: Annotated[str, Field(description="Name of the mount; may be left out where there is only one.")]
    reason: Reason
    dry_run: DryRun


_DrillFor = TypedDict("_DrillFor", {"for": Annotated[str, Field(description="How long, such as `30s`.")]}, total=False)


class DrillBody(DrillKindGiven, _DrillRest, _DrillFor):
    pass


class ForgetBody(TypedDict, total=False):
    model: Model
    version: Annotated[str, Field(description="Only what was recorded with this version; without it all.")]


class AppNamed(TypedDict):
    name: Annotated[str, Field(description="Name of the app.")]


class RestartBody(TypedDict):
    name: Annotated[str, Field(description="Name of the mount or app.")]


class AppBody(AppNamed, total=False):
    reason: Reason


class _SignalGiven(AppNamed):
    signal: Annotated[str, Field(description="Name of the signal, such as `HUP` or `SIGHUP`.")]


class SignalBody(_SignalGiven, total=False):
    reason: Reason


class NotifyBody(TypedDict):
    target: Annotated[str, Field(description="Name of the target, a key of `notify`.")]


class LoginBody(TypedDict):
    token: Annotated[str, Field(description="A token of `http.tokens`.")]
