"""Which pushes a restore makes: whole ones first, then increments on a branch of its own, which does not stay."""

import pytest

from codecommit_mirror import engine_api
from codecommit_mirror.backup.pushing import GROWING, Push

TOO_LARGE = "TF402462: This push was rejected because its size is greater than the 1 MB limit"
UNREACHABLE = "git could not push to the target: fatal: unable to access 'https://x/': Could not resolve host: x"


class Server:
    """A server that takes so many commits at once; a ref's history is a chain of numbered commits."""

    def __init__(self, *, limit=10, refused=(), largest=None):
        self.refs, self.pushes, self.has, self.default = {}, 0, 0, None
        self.limit, self.refused, self.largest = limit, refused, largest
        self.alone = None
        """A commit that is only taken by itself."""

    def push(self, endpoint, commands):
        self.pushes += 1
        for command in commands:
            if command.new and self._has_too_much(int(command.new)):
                return {one.ref: TOO_LARGE for one in commands}
        refused = {command.ref: "TF402455: a policy" for command in commands if command.ref in self.refused}
        refused |= {c.ref: "it is the default branch" for c in commands if c.new is None and c.ref == self.default}
        branches = [command.ref for command in commands if command.ref.startswith("refs/heads/")]
        self.default = self.default or next((ref for ref in branches if ref not in refused), None)
        for command in commands:
            if command.ref not in refused and command.new is None:
                del self.refs[command.ref]
            elif command.ref not in refused:
                self.refs[command.ref] = command.new
                self.has = max(self.has, int(command.new))
        return refused

    def _has_too_much(self, tip):
        with_others = self.alone and self.has < self.alone <= tip and tip - self.has > 1
        return (
            bool(with_others)
            or tip - self.has > self.limit
            or (self.largest is not None and self.has < self.largest <= tip)
        )

    def increments(self, command, known, size):
        first = max([int(value) for value in known] or [0])
        return [
            engine_api.Command(command.ref, command.old if number == first + size else str(number - size), str(number))
            for number in range(first + size, int(command.new), size)
        ]


def create(server, *refs):
    push = Push(server, lambda: None, "x", {})
    refused = push.create([[engine_api.Command(ref, None, tip) for ref, tip in refs]])
    push.clear([tip for _, tip in refs])
    return refused


def test_what_is_accepted_at_once_takes_one_push():
    server = Server(limit=5000)
    assert create(server, ("refs/heads/main", "3000"), ("refs/tags/v1", "2000")) == {}
    assert (server.pushes, sorted(server.refs)) == (1, ["refs/heads/main", "refs/tags/v1"])


def test_the_second_ref_builds_on_what_the_first_one_brought():
    server = Server(limit=100)
    assert create(server, ("refs/heads/main", "1000"), ("refs/heads/other", "1010")) == {}
    assert server.refs == {"refs/heads/main": "1000", "refs/heads/other": "1010"}
    assert server.pushes < 20


@pytest.mark.parametrize(
    ("tip", "limit", "largest", "pushes"),
    [
        # One push that is too large, and nothing smaller to try.
        (1, 0, None, 1),
        (50, 20, None, 20),
        (100_000, 2000, None, 60),
        # One commit that nothing takes along: afterwards pieces are large again.
        (100_000, 2000, 10, 200),
    ],
)
def test_no_push_is_made_twice_and_pieces_grow_again(tip, limit, largest, pushes):
    server = Server(limit=limit)
    if largest:
        server.alone = largest
    refused = create(server, ("refs/heads/main", str(tip)))
    assert (len(refused), server.pushes <= pushes) == (0 if limit else 1, True), server.pushes
    assert sorted(server.refs) == (["refs/heads/main"] if limit else [])


@pytest.mark.parametrize(("refused", "largest"), [(["refs/heads/main"], None), ((), 400)])
def test_the_branch_that_helped_does_not_stay_when_a_ref_is_refused(refused, largest):
    server = Server(limit=100, refused=refused, largest=largest)
    assert list(create(server, ("refs/heads/main", "1000"))) == ["refs/heads/main"]
    assert server.refs == {}


def test_a_branch_that_cannot_be_deleted_is_named(capsys):
    server = Server(limit=100, refused=())
    push = Push(server, lambda: None, "x", {f"{GROWING[0]}7": "5"})
    server.refused = [f"{GROWING[0]}7"]
    push.clear(["7", "8"])
    assert f"note: {GROWING[0]}7 helped to push, and could not be deleted" in capsys.readouterr().err


def test_a_server_that_cannot_be_reached_is_not_taken_for_one_with_a_limit():
    class Unreachable(Server):
        def push(self, endpoint, commands):
            self.pushes += 1
            return dict.fromkeys((command.ref for command in commands), UNREACHABLE)

    server = Unreachable()
    refs = [(f"refs/tags/{number}", str(number)) for number in range(1, 101)]
    assert len(create(server, *refs)) == 100
    assert server.pushes == 1
