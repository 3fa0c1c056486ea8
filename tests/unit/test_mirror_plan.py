"""The plan: after it is applied both sides are equal, in an order that a server takes."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline_templates import mirror_sync
from pipeline_templates.mirror_sync import Command, Outcome, judge, make_plan

OLD, NEW = "1" * 40, "2" * 40

components = st.sampled_from(["a", "b", "c", "main", "v1.0", "$(x)", "`x`", "ünï"])
ref_names = st.builds(
    lambda kind, parts: "refs/" + "/".join([kind, *parts]),
    st.sampled_from(["heads", "tags", "notes"]),
    st.lists(components, min_size=1, max_size=3),
)


def without_conflicts(refs):
    """Drop refs that no repository can hold beside others: ``a`` and ``a/b``."""
    kept = {}
    for name, value in sorted(refs.items()):
        if not any(name.startswith(f"{other}/") for other in kept):
            kept[name] = value
    return kept


ref_sets = st.dictionaries(ref_names, st.sampled_from([OLD, NEW, "3" * 40]), max_size=30).map(without_conflicts)


def apply(plan, refs):
    """Apply a plan as a strict server does: old values must match, no ref may be a folder of another."""
    refs = dict(refs)
    for command in plan.commands:
        assert refs.get(command.ref) == command.old
        if command.new is None:
            del refs[command.ref]
        else:
            others = refs.keys() - {command.ref}
            assert not any(o.startswith(f"{command.ref}/") or command.ref.startswith(f"{o}/") for o in others)
            refs[command.ref] = command.new
    return refs


@given(ref_sets, ref_sets)
def test_after_the_plan_both_sides_are_equal(source, replica):
    assert apply(make_plan(source, replica), replica) == source


@given(ref_sets, ref_sets)
def test_no_two_commands_are_for_one_ref(source, replica):
    refs = [command.ref for command in make_plan(source, replica).commands]
    assert len(refs) == len(set(refs))


@given(ref_sets)
def test_equal_sides_need_nothing(refs):
    assert make_plan(refs, refs).pushes == ()


@given(ref_sets, ref_sets)
def test_deletions_are_never_in_a_push_with_other_changes(source, replica):
    for push in make_plan(source, replica).pushes:
        assert len({command.new is None for command in push}) == 1


def test_a_push_has_at_most_two_thousand_refs():
    plan = make_plan({f"refs/tags/{n}": OLD for n in range(5000)}, {})
    assert [len(push) for push in plan.pushes] == [2000, 2000, 1000]


def test_a_push_fits_on_a_command_line():
    plan = make_plan({f"refs/tags/{n:04}{'界' * 80}": OLD for n in range(2000)}, {})
    for push in plan.pushes:
        size = sum(len(argument) for command in push for argument in mirror_sync._push_arguments(command))
        assert size <= mirror_sync.MAXIMUM_BYTES_A_COMMAND_LINE
    assert len(plan.pushes) > 1


def test_the_default_branch_goes_first_and_alone_to_a_replica_without_branches():
    source = {"refs/heads/a": OLD, "refs/heads/main": NEW, "refs/tags/t": OLD}
    assert make_plan(source, {}, "refs/heads/main").pushes[0] == (Command("refs/heads/main", None, NEW),)
    assert len(make_plan(source, {"refs/heads/x": OLD}, "refs/heads/main").pushes[0]) == 3


def test_a_branch_that_becomes_a_folder_is_deleted_first_and_back():
    for source, replica in [("a/b", "a"), ("a", "a/b")]:
        plan = make_plan({f"refs/heads/{source}": NEW}, {f"refs/heads/{replica}": OLD})
        assert [command.ref for command in plan.commands] == [f"refs/heads/{replica}", f"refs/heads/{source}"]


def test_branches_that_codecommit_refuses_are_told_and_not_tried():
    plan = make_plan({f"refs/heads/{'a' * 40}": OLD, f"refs/heads/{'x' * 257}": OLD, "refs/heads/main": OLD}, {})
    assert [command.ref for command in plan.commands] == ["refs/heads/main"]
    assert sorted(plan.unmirrored) == sorted([f"refs/heads/{'a' * 40}", f"refs/heads/{'x' * 257}"])
    outcome = judge({"refs/heads/main": OLD, f"refs/heads/{'a' * 40}": OLD}, {}, {"refs/heads/main": OLD}, plan, {})
    assert outcome.result == "SucceededWithIssues"


def test_what_the_replica_has_counts_and_not_what_the_server_said():
    plan = make_plan({"refs/heads/main": NEW}, {"refs/heads/main": OLD})
    outcome = judge({"refs/heads/main": NEW}, {}, {"refs/heads/main": OLD}, plan, {})
    assert outcome.result == "Failed"
    assert (outcome.updated, outcome.equal) == (0, 0)


def test_a_default_branch_that_cannot_be_deleted_needs_a_person_and_is_no_failure():
    source, before = {"refs/heads/new": NEW}, {"refs/heads/old": OLD}
    plan = make_plan(source, before)
    refused = {"refs/heads/old": "[remote rejected] (deletion of the current branch prohibited)"}
    outcome = judge(source, before, {**source, **before}, plan, refused)
    assert outcome.result == "SucceededWithIssues"
    assert "update-default-branch" in outcome.needs_a_person["refs/heads/old"]
    assert outcome.created == 1


def test_a_refused_push_fails_the_run_with_the_servers_reason():
    plan = make_plan({"refs/heads/main": NEW}, {})
    outcome = judge({"refs/heads/main": NEW}, {}, {}, plan, {"refs/heads/main": "[remote rejected] (no)"})
    assert outcome.result == "Failed"
    assert "no" in outcome.broken["refs/heads/main"]


def test_the_result_is_the_worst_of_what_happened():
    assert Outcome().result == "Succeeded"
    assert Outcome(needs_a_person={"r": "x"}).result == "SucceededWithIssues"
    assert Outcome(needs_a_person={"r": "x"}, broken={"s": "y"}).result == "Failed"
