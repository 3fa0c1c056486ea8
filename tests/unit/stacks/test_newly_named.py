"""What a plan says is named for the first time: where commits, tokens and rights would go."""

from aws_cdk.assertions import Template

from codecommit_mirror.aws.stack_plan import newly_named, places
from codecommit_mirror.config.mirror import AgentPool, SharedEngine

from .test_stacks import ROLE, synthesised


def of(name="MyRepoReplica", region="eu-west-1", engine=None, **changes):
    template = Template.from_stack(synthesised(name, engine=engine, **changes)).to_json()
    return places(name, template, "111122223333", region)


def named(wanted, *deployed):
    return sorted(kind for kind, _ in newly_named({"M": wanted}, deployed))


def test_a_first_mirror_names_everything_for_the_first_time():
    assert newly_named({"MyRepoReplica": of()}, []) == {
        ("account", "111122223333 in eu-west-1"): ["MyRepoReplica"],
        ("organization", "contoso"): ["MyRepoReplica"],
        ("project", "contoso/Shop"): ["MyRepoReplica"],
        ("user or role", "azure-devops-pipeline-MyRepoReplica"): ["MyRepoReplica"],
    }


def test_what_is_deployed_is_not_new():
    assert newly_named({"MyRepoReplica": of()}, [of()]) == {}
    assert named(of("Other"), of()) == ["user or role"]


def test_each_change_of_where_something_goes_is_new():
    azure = synthesised_azure()
    assert named(of(azure=azure.model_copy(update={"organization": "fabrikam"})), of()) == ["organization", "project"]
    assert named(of(azure=azure.model_copy(update={"project": "Theirs"})), of()) == ["project"]
    server = azure.model_validate({**azure.model_dump(exclude_unset=True), "server": "https://tfs.example.com/tfs"})
    assert named(of(azure=server), of()) == ["server"]
    assert named(of(azure=azure.model_copy(update={"pipelines_repository": "Theirs"})), of()) == [
        "repository for pipelines"
    ]
    assert named(of(azure=azure.model_copy(update={"pool": AgentPool(name="Theirs")})), of()) == ["agent pool"]
    ours, theirs = SharedEngine(repository="Platform/mirrors"), SharedEngine(repository="Other/mirrors")
    assert named(of(engine=ours), of()) == ["engine"]
    assert named(of(engine=theirs), of(engine=ours)) == ["engine"]
    assert named(of(engine=ours.model_copy(update={"branch": "theirs"})), of(engine=ours)) == ["engine"]
    assert named(of(engine=ours), of(engine=ours)) == []
    assert named(of(region="us-east-1"), of()) == ["account"]
    assert named(of(existing=True), of()) == ["existing repository"]
    assert named(of(user_name="other"), of()) == ["user or role"]
    provider = ROLE["identity"].model_copy(update={"provider_arn": "arn:aws:iam::111122223333:oidc-provider/other"})
    assert named(of(**{**ROLE, "identity": provider}), of(**ROLE)) == ["identity provider"]


def synthesised_azure():
    from codecommit_mirror.config.load import single_mirror

    return single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo").azure
