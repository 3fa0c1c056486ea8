"""The plan: after it is applied both sides are equal, in an order that a server takes."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.engine.archive import (
    ARCHIVE_TIME,
    MAX_ENTRY_BYTES,
    archive_commits,
    dropped_tips,
    expired,
    plan_entries,
)
from codecommit_mirror.engine.git import MAX_COMMAND_LINE_BYTES, _push_arguments, batches_by_command_line
from codecommit_mirror.engine.plan import (
    MAX_HAVES,
    by_original_name,
    carried_name,
    make_plan,
    mass_deletion,
    original_name,
    replica_names,
    select,
    unmirrorable,
    useful_haves,
)
from codecommit_mirror.engine.refs import ARCHIVE_PREFIX, OWN_PREFIX, Command
from codecommit_mirror.engine.report import Outcome
from codecommit_mirror.engine.wire.packs import COMMIT, commit_parents, object_id

NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")
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


def commands_of(plan):
    return [command for push in plan for command in push]


def apply(plan, refs):
    """Apply a plan as a strict server does: old values must match, no ref may be a folder of another."""
    refs = dict(refs)
    for command in commands_of(plan):
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
    refs = [command.ref for command in commands_of(make_plan(source, replica))]
    assert len(refs) == len(set(refs))


@given(ref_sets)
def test_equal_sides_need_nothing(refs):
    assert make_plan(refs, refs) == ()


@given(ref_sets, ref_sets)
def test_deletions_are_never_in_a_push_with_other_changes(source, replica):
    for push in make_plan(source, replica):
        assert len({command.new is None for command in push}) == 1


def test_a_push_has_at_most_two_thousand_refs():
    plan = make_plan({f"refs/tags/{n}": OLD for n in range(5000)}, {})
    assert [len(push) for push in plan] == [2000, 2000, 1000]


def test_plain_git_gets_command_lines_that_fit():
    commands = [Command(f"refs/tags/{n:04}{'界' * 80}", None, OLD) for n in range(2000)]
    lines = list(batches_by_command_line(commands))
    assert [command for line in lines for command in line] == commands
    for line in lines:
        size = sum(len(argument) for command in line for argument in _push_arguments(command))
        assert size <= MAX_COMMAND_LINE_BYTES
    assert len(lines) > 1


def test_the_default_branch_goes_first_and_alone_to_a_replica_without_branches():
    source = {"refs/heads/a": OLD, "refs/heads/main": NEW, "refs/tags/t": OLD}
    assert make_plan(source, {}, "refs/heads/main")[0] == (Command("refs/heads/main", None, NEW),)
    assert len(make_plan(source, {"refs/heads/x": OLD}, "refs/heads/main")[0]) == 3


def test_a_branch_that_becomes_a_folder_is_deleted_first_and_back():
    for source, replica in [("a/b", "a"), ("a", "a/b")]:
        plan = make_plan({f"refs/heads/{source}": NEW}, {f"refs/heads/{replica}": OLD})
        assert [command.ref for command in commands_of(plan)] == [f"refs/heads/{replica}", f"refs/heads/{source}"]


def test_names_that_the_replica_cannot_take_are_told_with_the_remedy():
    names = [f"refs/heads/{'a' * 40}", f"refs/tags/{'B' * 40}", f"refs/heads/{'x' * 257}", "refs/heads/@"]
    fine = [
        "refs/heads/main",
        f"refs/heads/{'a' * 39}",
        f"refs/tags/{'x' * 257}",
        f"refs/notes/{'a' * 40}",
        "refs/tags/@",
    ]
    own = [f"{OWN_PREFIX}confirmed", f"{OWN_PREFIX}archive/x", OWN_PREFIX.rstrip("/")]
    told = unmirrorable([*names, *fine, *own], NAMESPACES)
    assert list(told) == [*names, *own]
    assert all("rename the " in why for why in told.values())
    assert unmirrorable(own, ["refs/heads/"]) == {}
    assert select(dict.fromkeys([*fine, *own], OLD), NAMESPACES).keys() == set(fine)


# ------------------------------------------------------------------------------------------ refs outside branches, tags

NOTE, CHANGE = "refs/notes/commits", "refs/changes/1"


@pytest.mark.parametrize(
    ("replica", "refused", "expected"),
    [
        ([], [], {NOTE: NOTE, CHANGE: CHANGE}),
        ([], [NOTE], {NOTE: carried_name(NOTE), CHANGE: CHANGE}),
        ([carried_name(NOTE)], [], {NOTE: carried_name(NOTE), CHANGE: carried_name(CHANGE)}),
        ([carried_name("refs/notes/other")], [], {NOTE: carried_name(NOTE), CHANGE: carried_name(CHANGE)}),
        ([NOTE], [], {NOTE: NOTE, CHANGE: CHANGE}),
        ([carried_name(NOTE), CHANGE], [], {NOTE: carried_name(NOTE), CHANGE: CHANGE}),
        ([carried_name(NOTE), "refs/changes/2"], [], {NOTE: carried_name(NOTE), CHANGE: CHANGE}),
        ([NOTE, carried_name(NOTE)], [], {NOTE: carried_name(NOTE), CHANGE: carried_name(CHANGE)}),
    ],
)
def test_what_the_replica_has_decides_which_names_it_gets(replica, refused, expected):
    names = replica_names([NOTE, CHANGE, "refs/heads/main", "refs/tags/v1"], replica, refused)
    assert names == {**expected, "refs/heads/main": "refs/heads/main", "refs/tags/v1": "refs/tags/v1"}


@given(ref_names)
def test_a_carried_name_goes_back_to_its_own(name):
    is_branch_or_tag = name.startswith(("refs/heads/", "refs/tags/"))
    assert original_name(carried_name(name)) == (carried_name(name) if is_branch_or_tag else name)
    assert original_name(name) == name
    assert carried_name(name).startswith("refs/tags/codecommit-mirror/refs/")


@given(ref_sets, ref_sets, st.booleans())
def test_through_the_names_both_sides_are_equal(source, replica, refuses):
    """Whether the replica takes other refs under their own names or not, and whatever it had before."""
    replica = {carried_name(n) if refuses and n.startswith("refs/notes/") else n: v for n, v in replica.items()}
    names = replica_names(source, replica, [n for n in source if refuses])
    after = apply(make_plan({names[n]: v for n, v in source.items()}, replica), replica)
    assert by_original_name(after, NAMESPACES) == source


@given(ref_sets, ref_sets)
def test_other_refs_go_last_and_apart(source, replica):
    plan = make_plan(source, replica)
    others = [{command.ref.startswith("refs/notes/") for command in push} for push in plan]
    assert all(len(kinds) == 1 for kinds in others)
    assert [True in kinds for kinds in others] == sorted(True in kinds for kinds in others)


def test_a_ref_that_is_carried_is_not_deleted_under_its_own_name_while_the_source_has_it():
    """The replica refused it there, and would refuse the deletion again in each run."""
    replica = {NOTE: OLD, carried_name(NOTE): NEW}
    assert make_plan({carried_name(NOTE): NEW}, replica) == ()
    assert len(commands_of(make_plan({}, replica))) == 2


# ------------------------------------------------------------------------------------------------------------- haves


def test_a_request_says_what_the_pack_can_build_on_the_most_useful_first():
    replica = {f"refs/heads/{n}": f"{n:040}" for n in range(50)}
    commands = [Command("refs/heads/7", f"{7:040}", NEW), Command("refs/tags/x", None, OLD)]
    haves = useful_haves(commands, replica, {"refs/tags/v1": "9" * 40}, "refs/heads/30")
    assert haves[:2] == [f"{7:040}", f"{30:040}"]
    assert haves[-1] == "9" * 40
    assert len(haves) == len(set(haves)) == 51


def test_a_request_stays_small_however_many_refs_there_are():
    before = {f"refs/tags/{n}": f"{n:040}" for n in range(50_000)}
    assert len(useful_haves([], before, before, None)) == MAX_HAVES


def test_refs_that_were_given_up_are_left_alone():
    source, replica = {"refs/heads/a": NEW}, {"refs/heads/a": OLD, "refs/heads/b": OLD}
    assert make_plan(source, replica, given_up=["refs/heads/a", "refs/heads/b"]) == ()


# --------------------------------------------------------------------------------------------------- stop and archive

BRANCHES = {f"refs/heads/{n}": OLD for n in range(30)}


def some(number):
    return dict(list(BRANCHES.items())[:number])


@pytest.mark.parametrize(
    ("kept", "stops"),
    [(30, False), (16, False), (15, False), (14, True), (1, True), (0, True)],
)
def test_more_than_half_and_more_than_ten_lost_refs_stop_a_run(kept, stops):
    reason = mass_deletion(some(kept), BRANCHES, (), False)
    assert bool(reason) == stops
    assert mass_deletion(some(kept), BRANCHES, (), True) is None
    if reason:
        assert "pipeline run NAME --allow-deletions" in reason
        assert "refs/heads/29" in reason or "..." in reason


def test_ten_lost_refs_are_a_days_work():
    assert mass_deletion({"refs/heads/0": OLD}, some(11), (), False) is None


def test_tags_that_stay_do_not_hide_branches_that_go():
    tags = {f"refs/tags/{n}": OLD for n in range(60)}
    assert "only 5 of the replica's 30 branches" in mass_deletion({**some(5), **tags}, {**BRANCHES, **tags}, (), False)
    assert "no branches" in mass_deletion(tags, {**some(1), **tags}, (), False)


def test_a_source_without_a_ref_that_can_be_mirrored_is_an_empty_one():
    assert "no branches" in mass_deletion({}, some(1), (), False)
    assert mass_deletion({f"refs/heads/{'a' * 40}": NEW}, some(1), (), False)


def test_an_empty_replica_has_nothing_to_lose():
    assert mass_deletion({}, {}, (), False) is None


def test_refs_that_the_source_hides_are_not_lost():
    assert mass_deletion(some(10), BRANCHES, set(BRANCHES), False) is None


NOW = 1_800_000_000.0
DAY = 86_400


def stamp(days):
    return time.strftime(ARCHIVE_TIME, time.gmtime(NOW - days * DAY))


def entries(commands, replica, safe=()):
    """Return the tip that each new entry points at, or keeps together with others, by the entry's name."""
    planned = plan_entries(dropped_tips(commands, safe), replica, NOW)
    return {command.ref: command.new for command in planned.missing(replica)}


def test_the_tips_of_branches_share_an_entry_and_a_tag_has_its_own():
    replica = {"refs/heads/gone": OLD, "refs/heads/moved": NEW, "refs/tags/moved": "f" * 40}
    commands = [
        Command("refs/heads/gone", OLD, None),
        Command("refs/heads/moved", NEW, OLD),
        Command("refs/tags/moved", "f" * 40, NEW),
    ]
    planned = plan_entries(dropped_tips(commands, ()), replica, NOW)
    (commit,) = planned.commits
    common = f"{ARCHIVE_PREFIX}{stamp(0)}/{object_id(COMMIT, commit)[:16]}"
    alone = f"{ARCHIVE_PREFIX}{stamp(0)}/tags/moved"
    assert planned.names == {"refs/heads/gone": common, "refs/heads/moved": common, "refs/tags/moved": alone}
    assert planned.values == {common: object_id(COMMIT, commit), alone: "f" * 40}
    assert commit_parents(commit) == (OLD, NEW)
    assert f"{OLD} refs/heads/gone\n{NEW} refs/heads/moved\n".encode() in commit


def test_a_tag_on_a_branchs_tip_is_known_to_be_a_commit():
    replica = {"refs/heads/main": OLD, "refs/tags/v1": OLD}
    planned = plan_entries({"refs/tags/v1": OLD}, replica, NOW)
    assert len(planned.commits) == 1
    assert commit_parents(planned.commits[0]) == (OLD,)


def test_many_tips_are_kept_by_a_chain():
    tips = [(f"{number:040x}", f"refs/heads/{number}") for number in range(1, 200)]
    commits = archive_commits(tips)
    assert len(commits) == 4
    for earlier, commit in itertools.pairwise(commits):
        assert commit_parents(commit)[0] == object_id(COMMIT, earlier)
        assert f"earlier {object_id(COMMIT, earlier)}\n".encode() in commit
    parents = {parent for commit in commits for parent in commit_parents(commit)}
    assert {value for value, _ in tips} <= parents
    assert max(len(commit_parents(commit)) for commit in commits) == 61


def test_the_longest_names_make_more_commits_and_none_that_a_reader_refuses():
    tips = [(f"{number:040x}", f"refs/tags/{number:0{size}}") for number in range(1, 90) for size in (3, 1024, 65_400)]
    commits = archive_commits(tips)
    assert max(map(len, commits)) <= MAX_ENTRY_BYTES
    kept = {parent for commit in commits for parent in commit_parents(commit)}
    assert {value for value, _ in tips} <= kept
    assert archive_commits([]) == []


def test_what_a_fast_forward_keeps_is_not_archived():
    command = Command("refs/heads/a", OLD, NEW)
    assert entries([command], {"refs/heads/a": OLD}, safe=["refs/heads/a"]) == {}
    assert len(entries([command], {"refs/heads/a": OLD})) == 1
    assert entries([Command("refs/heads/new", None, NEW)], {}) == {}


def test_two_runs_that_rely_on_each_others_ref_lose_no_tip():
    """Each drops one of two refs with the same tip, and has read the replica before the other one pushed."""
    replica = {"refs/heads/a": OLD, "refs/heads/b": OLD}
    for ref in replica:
        (commit,) = plan_entries({ref: OLD}, replica, NOW).commits
        assert commit_parents(commit) == (OLD,)


@pytest.mark.parametrize("kind", ["heads", "tags"])
def test_a_refused_deletion_does_not_fill_the_archive(kind):
    ref = f"refs/{kind}/x"
    command, replica = Command(ref, OLD, None), {ref: OLD}
    ((name, value),) = entries([command], replica).items()
    for age, expected in [(0.5, 0), (2, 1), (46, 1)]:
        kept = {name.replace(stamp(0), stamp(age)): value}
        assert len(entries([command], {**replica, **kept})) == expected


def test_two_entries_never_share_a_name():
    replica = {"refs/tags/a": NEW, f"{ARCHIVE_PREFIX}{stamp(0)}/tags/a": OLD}
    (entry,) = entries([Command("refs/tags/a", NEW, None)], replica)
    assert entry not in replica


def test_entries_expire_after_archive_days():
    replica = {f"{ARCHIVE_PREFIX}{stamp(age)}/heads/a": OLD for age in (0, 89, 90.5, 92, 400)}
    replica[f"{ARCHIVE_PREFIX}by-hand"] = replica["refs/heads/a"] = OLD
    assert sorted(c.ref for c in expired(replica, 90, NOW)) == sorted(
        f"{ARCHIVE_PREFIX}{stamp(age)}/heads/a" for age in (92, 400)
    )


@given(ref_sets, ref_sets)
def test_archive_refs_are_never_planned_away(source, replica):
    archive = {f"{ARCHIVE_PREFIX}{stamp(1)}/{name[5:]}": value for name, value in replica.items()}
    chosen = select({**replica, **archive}, ("refs/heads/", "refs/tags/", "refs/notes/"))
    assert not any(command.ref.startswith(ARCHIVE_PREFIX) for command in commands_of(make_plan(source, chosen)))


@given(ref_sets, ref_sets)
def test_every_tip_that_a_plan_drops_is_kept_by_the_archive(source, replica):
    commands = commands_of(make_plan(source, replica))
    planned = plan_entries(dropped_tips(commands, ()), replica, NOW)
    together = {parent for commit in planned.commits for parent in commit_parents(commit)}
    for command in commands:
        if command.old:
            value = planned.values[planned.names[command.ref]]
            is_common = planned.commits and value == object_id(COMMIT, planned.commits[-1])
            assert command.old in (together if is_common else {value})


def test_the_result_is_the_worst_of_what_happened():
    assert Outcome().result == "Succeeded"
    assert Outcome(needs_attention={"r": "x"}).result == "SucceededWithIssues"
    assert Outcome(needs_attention={"r": "x"}, broken={"s": "y"}).result == "Failed"
