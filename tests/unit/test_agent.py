"""The embedded agent behaves as Azure Pipelines does, where it matters to a pipeline's author."""

import pytest
import yaml

from localcloud.azure.agent import Variable, run_pipeline
from localcloud.azure.definition import UnsupportedPipeline


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
