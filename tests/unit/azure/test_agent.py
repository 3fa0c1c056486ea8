"""The embedded agent behaves as Azure Pipelines does, where it matters to a pipeline's author."""

import pytest
import yaml

from localcloud.azure.agent import expressions
from localcloud.azure.agent.definition import UnsupportedPipeline
from localcloud.azure.agent.execution import run_pipeline
from localcloud.azure.agent.run import Run, Variable


def run(script, *, env=None, variables=None, minutes=5, **step):
    steps = [{"checkout": "none"}, {"bash": script, **({"env": env} if env else {}), **step}]
    job = {"job": "j", "timeoutInMinutes": minutes, "pool": {"vmImage": "ubuntu-24.04"}, "steps": steps}
    return run_pipeline(yaml.safe_dump({"jobs": [job]}), variables or {}, job_token="job-token-canary")


SECRET = {"PASSWORD": Variable("hunter2+/=", secret=True)}


def test_macros_are_replaced_before_the_shell_and_unknown_ones_stay():
    done = run("echo '$(name) $(Unknown.Variable)'", variables={"Name": Variable("it's")}, env={"A": "$(NAME)"})
    assert "syntax error" in done.text or done.result == "failed"
    done = run("echo \"$(name) '$(Unknown.Variable)' $A\"", variables={"Name": Variable("value")}, env={"A": "$(NAME)"})
    assert "Unknown.Variable: command not found" in done.text
    assert "value '' value" in done.text


def test_secrets_are_in_the_environment_only_where_they_are_mapped():
    assert run('echo "[${PASSWORD:-absent}]"', variables=SECRET).log == ["[absent]"]
    assert run(
        '[ "$PASSWORD" = "hunter2+/=" ] && echo same', variables=SECRET, env={"PASSWORD": "$(PASSWORD)"}
    ).log == ["same"]
    assert run('echo "${SYSTEM_ACCESSTOKEN:-absent}"').log == ["absent"]


def test_plain_variables_are_upper_cased_in_the_environment():
    assert run('echo "$MY_NAME_X"', variables={"my.name x": Variable("v")}).log == ["v"]


def test_exact_values_are_masked_and_transformed_ones_are_not():
    done = run('echo "$P"; echo "$P" | rev', variables=SECRET, env={"P": "$(PASSWORD)"})
    assert done.log == ["***", "=/+2retnuh"]


def test_bash_is_not_strict_by_itself():
    assert run("false\necho $undefined after").result == "succeeded"
    assert run("set -e\nfalse\necho after").result == "failed"


def test_logging_commands_are_obeyed_wherever_they_stand_in_a_line():
    issue, complete = (
        "##vso[task.logissue type=warning;]careful%0Anow",
        "##vso[task.complete result=SucceededWithIssues;]",
    )
    done = run(f"echo 'x {issue}'; echo '{complete}'")
    assert done.issues == [("warning", "careful\nnow")]
    assert done.result == "succeededWithIssues"
    assert run("echo 'branch ##vso[task.complete result=Failed;]'").result == "failed"


def test_a_summary_is_kept():
    assert run(
        'echo "# Hi" > "$AGENT_TEMPDIRECTORY/s.md"; echo "##vso[task.uploadsummary]$AGENT_TEMPDIRECTORY/s.md"'
    ).summaries == ["# Hi\n"]


def test_a_job_past_its_timeout_is_canceled():
    assert run("sleep 60", minutes=0.005).result == "canceled"


def test_the_work_folder_is_fresh_and_goes_again():
    done = run("pwd; ls -A; touch x")
    assert len(done.log) == 1
    again = run("pwd; ls -A")
    assert len(again.log) == 1
    assert done.log != again.log


@pytest.mark.parametrize(
    "text",
    [
        "jobs: [{job: j, pool: {vmImage: ubuntu-24.04}, steps: [{task: Bash@3}]}]",
        "jobs: [{job: j, pool: {vmImage: windows-2022}, steps: []}]",
        "stages: []",
        "jobs: [{job: j, pool: {vmImage: ubuntu-24.04}, condition: always(), steps: []}]",
        "jobs: [{job: j, pool: {vmImage: ubuntu-24.04}, steps: [{bash: 'echo ${{ x }}'}]}]",
        "jobs: [{job: j, pool: {vmImage: ubuntu-24.04}, steps: [{bash: x, checkout: none}]}]",
    ],
)
def test_what_it_does_not_know_it_refuses(text):
    with pytest.raises(UnsupportedPipeline):
        run_pipeline(text, {}, job_token="t")


HOSTED, SCRIPT = {"vmImage": "ubuntu-24.04"}, "echo '##vso[task.setvariable variable=found;isOutput=true]a b'"


class Service:
    """A service with one connection, which says no to approvals unless told, and notes what it was asked."""

    def __init__(self, approves=False):
        self.approves, self.asked = approves, []

    def checkout(self, folder):
        (folder / "file").write_text("of the source")

    def entra_token(self, connection):
        return f"a token of {connection}"

    def denial_reason(self, kind, connection):
        return None if (kind, connection) in (("aws", "known"), ("azureDevOps", "azure")) else f"no {connection}"

    def aws_environment(self, connection, region, seconds):
        if region == "nowhere":
            raise RuntimeError("the token was refused")
        return {"AWS_REGION": region, "DURATION": str(seconds)}

    def approved(self, instructions, minutes):
        self.asked.append((instructions, minutes))
        return self.approves


def job(name, *steps, **rest):
    return {"job": name, "pool": HOSTED, "steps": list(steps), **rest}


def aws(script, connection="known", region="eu-west-1", **rest):
    inputs = {"awsCredentials": connection, "regionName": region, "scriptType": "inline", "inlineScript": script}
    return {"task": "AWSShellScript@1", "inputs": inputs, **rest}


def run_stages(*stages, service=None, variables=None, **top):
    text = yaml.safe_dump({**top, "stages": list(stages)})
    return run_pipeline(text, variables or {}, job_token="job-token-canary", service=service or Service())


def test_stages_run_by_their_conditions_and_hand_on_what_they_found():
    find = {"stage": "a", "jobs": [job("find", {"bash": SCRIPT, "name": "s"})]}
    use = {
        "stage": "b",
        "dependsOn": "a",
        "condition": "and(succeeded(), ne(dependencies.a.outputs['find.s.found'], ''))",
        "jobs": [
            job("use", {"bash": "echo \"[$F]\"", "env": {"F": "$(found)"}},
                variables={"found": "$[ stageDependencies.a.find.outputs['s.found'] ]"})
        ],
    }  # fmt: skip
    done = run_stages(find, use)
    assert (done.stages, done.log[-1]) == ({"a": "succeeded", "b": "succeeded"}, "[a b]")
    nothing = {"stage": "a", "jobs": [job("find", {"bash": "true", "name": "s"})]}
    assert run_stages(nothing, use).stages == {"a": "succeeded", "b": "skipped"}
    broken = {"stage": "a", "jobs": [job("find", {"bash": f"{SCRIPT}; false", "name": "s"})]}
    done = run_stages(broken, use)
    assert (done.stages, done.result) == ({"a": "failed", "b": "skipped"}, "failed")


@pytest.mark.parametrize(
    ("script", "approves", "canceled", "stages"),
    [
        (SCRIPT, True, False, ("succeeded", "succeeded", "succeeded")),
        (f"{SCRIPT}; false", True, False, ("failed", "succeeded", "succeeded")),
        (f"{SCRIPT}; false", False, False, ("failed", "failed", "skipped")),
        (f"false; {SCRIPT}; exit 1", True, True, ("skipped", "skipped", "skipped")),
        ("false", True, False, ("failed", "skipped", "skipped")),
    ],
)
def test_a_stage_may_follow_one_that_failed_but_not_a_cancellation(script, approves, canceled, stages):
    ask = {"task": "ManualValidation@1", "inputs": {"notifyUsers": "", "instructions": "?"}}
    said = "ne(dependencies.a.outputs['find.s.found'], '')"
    todo = [
        {"stage": "a", "jobs": [job("find", {"bash": f"set -e\n{script}", "name": "s"})]},
        {
            "stage": "b",
            "dependsOn": "a",
            "condition": f"and(not(canceled()), {said})",
            "jobs": [{"job": "ask", "pool": "server", "timeoutInMinutes": 1, "steps": [ask]}],
        },
        {
            "stage": "c",
            "dependsOn": ["a", "b"],
            "condition": "and(not(canceled()), eq(dependencies.b.result, 'Succeeded'))",
            "jobs": [job("j", {"bash": "true"})],
        },
    ]
    record = Run()
    if canceled:
        record.cancel()
    text = yaml.safe_dump({"stages": todo})
    done = run_pipeline(text, {}, job_token="t", service=Service(approves), run=record)
    assert tuple(done.stages.values()) == stages


def test_what_was_skipped_did_not_succeed():
    never = {"stage": "a", "condition": "eq(variables['Build.Reason'], 'PullRequest')", "jobs": [job("j")]}
    assert run_stages(never, {"stage": "b", "jobs": [job("j")]}).stages == {"a": "skipped", "b": "skipped"}
    assert run_stages(never, {"stage": "b", "dependsOn": [], "jobs": [job("j")]}).stages["b"] == "succeeded"


def test_what_was_skipped_further_back_counts_too():
    stages = [
        {"stage": "a", "condition": "eq('a', 'b')", "jobs": [job("j")]},
        {"stage": "b", "condition": "not(canceled())", "jobs": [job("j")]},
        {"stage": "c", "jobs": [job("j")]},
    ]
    assert run_stages(*stages).stages == {"a": "skipped", "b": "succeeded", "c": "skipped"}


@pytest.mark.parametrize(("approves", "result"), [(True, "succeeded"), (False, "failed")])
def test_a_job_waits_for_an_approval(approves, result):
    ask = {
        "job": "ask",
        "pool": "server",
        "timeoutInMinutes": 7,
        "steps": [{"task": "ManualValidation@1", "inputs": {"notifyUsers": "", "instructions": "Delete $(What)?"}}],
    }
    service = Service(approves)
    stage = {"stage": "a", "jobs": [ask, job("then", {"bash": "echo deleted"}, dependsOn="ask")]}
    done = run_stages(stage, service=service, variables={"What": Variable("it")})
    assert service.asked == [("Delete it?", 7.0)]
    assert done.result == result
    assert ("deleted" in done.log) is approves


def test_a_script_acts_as_its_service_connection_and_only_there():
    steps = (aws('echo "$AWS_REGION $DURATION"'), {"bash": 'echo "${AWS_REGION:-none}"'})
    done = run_stages({"stage": "a", "jobs": [job("j", *steps)]}, variables={})
    assert done.log == ["eu-west-1 900", "none"]
    longer = run_stages(
        {"stage": "a", "jobs": [job("j", steps[0])]}, variables={"aws.rolecredential.maxduration": Variable("3600")}
    )
    assert longer.log == ["eu-west-1 3600"]


def test_without_credentials_or_permission_no_script_runs():
    done = run_stages({"stage": "a", "jobs": [job("j", {"bash": "echo first"}, aws("echo", "unknown"))]})
    assert (done.result, done.log) == ("failed", ["##[error]no unknown"])
    done = run_stages({"stage": "a", "jobs": [job("j", aws("echo ran", region="nowhere"))]})
    assert (done.result, done.log) == ("failed", ["##[error]Failed to assume role with OIDC: the token was refused"])


def test_a_secret_of_a_step_is_masked_for_later_steps_of_its_job_only():
    set_it = {"bash": "echo '##vso[task.setvariable variable=it;issecret=true]canary'; echo canary"}
    show = {"bash": 'echo "$IT/${MAPPED:-none}"', "env": {"MAPPED": "$(it)"}}
    stage = {"stage": "a", "jobs": [job("j", set_it, show), job("k", show)]}
    done = run_stages(stage)
    assert done.log == ["##vso[task.setvariable variable=it;issecret=true]***", "***", "/***", "/$(it)"]


def azure_cli(script, connection="azure"):
    inputs = {"connectionType": "azureDevOps", "azureDevOpsServiceConnection": connection, "scriptType": "bash"}
    return {"task": "AzureCLI@3", "inputs": {**inputs, "scriptLocation": "inlineScript", "inlineScript": script}}


def test_the_azure_cli_is_signed_in_as_its_service_connection_and_only_there():
    get = "az account get-access-token --resource 499b84ac-1321-427f-aa17-267ca6975798 --query accessToken --output tsv"
    done = run_stages({"stage": "a", "jobs": [job("j", azure_cli(get), {"bash": "command -v az || echo none"})]})
    assert done.log == ["a token of azure", "none"]
    assert run_stages({"stage": "a", "jobs": [job("j", azure_cli("az login"))]}).result == "failed"
    assert run_stages({"stage": "a", "jobs": [job("j", azure_cli(get, "unknown"))]}).log == ["##[error]no unknown"]


def test_the_source_is_there_where_it_is_checked_out():
    assert run_stages({"stage": "a", "jobs": [job("j", {"checkout": "self"}, {"bash": "cat file"})]}).log == [
        "of the source"
    ]


@pytest.mark.parametrize(
    "stage",
    [
        {"stage": "a", "condition": "startsWith('a', 'b')", "jobs": [job("j")]},
        {"stage": "a", "condition": "eq(parameters.x, 'b')", "jobs": [job("j")]},
        {"stage": "a", "condition": "eq('a', 'b'", "jobs": [job("j")]},
        {"stage": "a", "jobs": [job("j", {"bash": "echo $[ variables.x ]"})]},
        {"stage": "a", "jobs": [job("j", {"task": "Bash@3", "inputs": {}})]},
        {"stage": "a", "jobs": [job("j", {"task": "ManualValidation@1", "inputs": {"notifyUsers": ""}})]},
        {"stage": "a", "jobs": [job("j", {"bash": "echo '##vso[task.prependpath]/bin'", "name": "s"})]},
        {"stage": "a", "jobs": []},
    ],
)
def test_what_the_agent_does_not_know_is_refused(stage):
    with pytest.raises(UnsupportedPipeline):
        run_stages(stage)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        ("eq('A', 'a')", True),
        ("and(true_, succeeded())", True),
        ("eq(dependencies.a.result, 'succeeded')", False),
        ("or(eq(1_, ''), not(eq('a', 'b')))", True),
        ("variables.x", "1"),
        ("variables['none']", ""),
        ("dependencies.a.outputs['j.s.v']", ""),
    ],
)
def test_expressions(text, value):
    context = {"variables": {"x": "1"}, "dependencies": {}, "true_": True}
    if "1_" in text:
        with pytest.raises(expressions.UnknownExpression):
            expressions.evaluate(text, context, {"succeeded": True})
    else:
        assert expressions.evaluate(text, context, {"succeeded": True}) == value
