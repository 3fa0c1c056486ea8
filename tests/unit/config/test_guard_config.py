"""The section ``guard`` of mirrors.yaml: what is accepted, and one sentence for each mistake."""

import pytest

from codecommit_mirror.config.load import load as load_file
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError

ENTRY = "mirrors:\n  R:\n    azure: {organization: o, project: p, repository: r}\n"
MISTAKES = {
    "stale before the next run": (
        ENTRY + "guard: {email: a@b.c, stale_after: 5h}\n",
        "mirror 'R': schedule '28 */6 * * *' can leave 6 h between two runs, but guard.stale_after is 5 h; use a",
    ),
    "a guard without a recipient": (ENTRY + "guard: {}\n", "guard needs either email or topic_arn; write guard:"),
    "a guard with two recipients": (
        ENTRY + "guard: {email: a@b.c, topic_arn: 'arn:aws:sns:eu-west-1:123456789012:t'}\n",
        "guard needs either email or topic_arn",
    ),
    "a topic of another region": (
        ENTRY + "guard: {region: eu-west-2, topic_arn: 'arn:aws:sns:eu-west-1:123456789012:t'}\n",
        "topic_arn is in eu-west-1, but the guard is in eu-west-2",
    ),
    "a chain shorter than its steps": (
        ENTRY + "guard: {email: a@b.c, snapshots: {every: 2d, full_every: 1d}}\n",
        "full_every is shorter than every",
    ),
    "a lock that S3 does not know": (
        ENTRY + "guard: {email: a@b.c, snapshots: {lock: legal}}\n",
        "guard: snapshots.lock is 'legal'; use 'compliance' or 'governance'",
    ),
    "a time that is none": (
        ENTRY + "guard: {email: a@b.c, snapshots: {keep: forever}}\n",
        "snapshots.keep: 'forever' is not a duration from 1h to",
    ),
    "the guard's name": (
        "mirrors:\n  codecommit-mirror-guard:\n    azure: {organization: o, project: p, repository: r}\n",
        "its stack would have the same name as the guard's own stack",
    ),
}


def load(tmp_path, text):
    path = tmp_path / "mirrors.yaml"
    path.write_text(text)
    return load_mirrors(path)


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(MirrorError) as refused:
        load(tmp_path, text)
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("wrong", ["{emial: a@example.com}", "{email: a@example.com, snapshots: {evry: 1d}}"])
def test_an_unknown_key_of_the_guard_is_a_sentence(tmp_path, wrong):
    text = f"mirrors:\n  a:\n    azure: {{organization: o, project: p, repository: r}}\nguard: {wrong}\n"
    with pytest.raises(MirrorError, match=r"line 4: guard: [\w.]+ is not a known key; did you mean '\w+'\?$"):
        load(tmp_path, text)


@pytest.mark.parametrize(("text", "every"), [("{email: a@b.c}", 24), ("{email: a@b.c, snapshots: {every: 6h}}", 6)])
def test_a_guard_has_defaults_and_the_mirrors_location(tmp_path, text, every):
    path = tmp_path / "mirrors.yaml"
    path.write_text(f"defaults: {{region: eu-west-1}}\nmirrors: {{}}\nguard: {text}\n")
    (guard,) = load_file(path).guards
    assert (guard.region, guard.account, guard.stale_after) == ("eu-west-1", None, 48)
    assert (guard.snapshots.every, guard.snapshots.keep, guard.snapshots.lock) == (every, 9600, "compliance")


def test_snapshots_can_be_off(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text("mirrors: {}\nguard: {email: a@b.c, snapshots: off}\n")
    assert load_file(path).guards[0].snapshots is None
