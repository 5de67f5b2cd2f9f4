"""Where the ranks of a world meet, and the lines between them."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.channel import encode
from scalelab.launch.inside import meeting, pmi, world
from scalelab.launch.inside.crew import Crew
from scalelab.launch.inside.meeting import Spot, first_node, known
from scalelab.launch.inside.other import hello
from scalelab.launch.inside.peer import Peer, greet, reach
from scalelab.launch.inside.placing import placed
from scalelab.launch.inside.world import World
from scalelab.measure import environment
from tests.launch import captured


def _world(environ: dict[str, str]) -> World:
    found = world.found(environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("h[1-4]", "h1"),
        ("n[001-010,12]", "n001"),
        ("a,b", "a"),
        ("a", "a"),
        ("r[2,4]-ib,x", "r2-ib"),
        ("gpu-a[7],b[1-2]", "gpu-a7"),
    ],
)
def test_the_first_node_of_slurms_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_slurm_names_the_place_and_ports_follow_from_the_step() -> None:
    step = _world(captured.STEP)
    spot = known(step, captured.STEP, None)
    assert spot is not None
    assert spot.hosts == ("h1",)
    other = known(_world({**captured.STEP, "SLURM_PROCID": "0"}), captured.STEP, None)
    assert other == spot, "the same on every rank"
    assert spot.ports != meeting.ports(_world({**captured.STEP, "SLURM_STEP_ID": "1"}))
    assert all(15000 <= port < 30000 for port in spot.ports), "none that the system gives out by itself"
    assert known(step, {**captured.STEP, "MASTER_PORT": "4000"}, None) == Spot(("h1",), (4000,))


def test_an_mpis_ranks_need_a_given_place_only_over_several_hosts() -> None:
    assert known(_world(captured.OPENMPI), captured.OPENMPI, None) is None
    given = {**captured.OPENMPI, "MASTER_ADDR": "h7", "MASTER_PORT": "4000"}
    assert known(_world(given), given, None) == Spot(("h7",), (4000,))
    assert known(_world(given), given, "h8") == Spot(("h8",), (4000,)), "--master-addr wins"
    alone = {**captured.OPENMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    spot = known(_world(alone), alone, None)
    assert spot is not None
    assert spot.hosts == ("127.0.0.1",)


def test_torchruns_own_store_is_used_where_its_agent_has_the_port() -> None:
    assert known(_world(captured.TORCHRUN), captured.TORCHRUN, None) is None
    without = {**captured.TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"}
    assert known(_world(without), without, None) == Spot(("h1",), (29500,))


def test_a_spot_survives_as_text() -> None:
    spot = Spot(("h1", "10.0.0.1", "fd00::1"), (4000, 4001))
    assert Spot.parse(str(spot)) == spot
    assert " " not in str(spot), "PMI's lines are parted by spaces"


def test_a_port_in_use_is_passed_over_and_all_in_use_is_an_error() -> None:
    one = World("openmpi", 0, 2, 0, 2, "job")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with meeting.listen(one, (port, 0)) as listener:
            assert listener.getsockname()[1] != port
        with pytest.raises(ScalelabError, match=r"no port for the ranks to meet at .* give a free one in MASTER_PORT"):
            meeting.listen(one, (port,))


def test_a_stranger_who_listens_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=lambda: stranger.accept()[0].sendall(b"SSH-2.0-somebody else, who says more than that\n"), daemon=True
        ).start()
        spot = Spot(("127.0.0.1",), (stranger.getsockname()[1], listener.getsockname()[1]))
        heard = []
        accepting = threading.Thread(target=lambda: heard.append(greet(listener, "token")))
        accepting.start()
        peer = reach(spot, "token", lambda: None)
        accepting.join()
        peer.tell({"do": "hello"})
        message = heard[0].hear(5)
        assert message is not None
        assert message[0]["do"] == "hello"
        peer.close()
        deadline = time.monotonic() + 5
        while heard[0].over is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert heard[0].over == "the line closed"
        heard[0].close()


def test_what_was_said_before_a_line_closed_is_heard_first() -> None:
    near, far = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with near, far:
        far.connect(near.getsockname())
        peer = Peer(near.accept()[0])
        far.sendall(encode({"do": "over", "status": 0}))
    deadline = time.monotonic() + 5
    while peer.over is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not peer.done
    message = peer.hear()
    assert message is not None
    assert message[0]["status"] == 0
    assert peer.done
    peer.close()


def test_who_says_to_be_a_rank_that_is_there_already_is_sent_away() -> None:
    two = World("mpich", 0, 2, 0, 2, "")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crew = Crew(two, listener)
        spot = Spot(("127.0.0.1",), (listener.getsockname()[1],))
        hellos: list[dict[str, object]] = [
            {"do": "hello", "rank": 0},
            {"do": "hello", "rank": 5},
            {"do": "x"},
            {**hello(two), "rank": 1},
        ]
        for said in hellos:
            threading.Thread(target=lambda said=said: reach(spot, two.token, lambda: None).tell(said), daemon=True).start()
        crew.gather(10)
    assert list(crew.peers) == [1]


def test_ranks_of_all_hosts_meet_at_one_address() -> None:
    two = World("mpich", 0, 2, 0, 1, "")
    with socket.create_server(("127.0.0.2", 0)) as listener:  # as good as another interface's address
        crew, spot = Crew(two, listener), Spot(("127.0.0.2",), (listener.getsockname()[1],))
        said = {**hello(two), "rank": 1, "host": "another"}
        threading.Thread(target=lambda: reach(spot, two.token, lambda: None).tell(said), daemon=True).start()
        crew.gather(10)
    assert [crew.master(rank) for rank in (0, 1)] == ["127.0.0.2"] * 2


def _hydra(lines: list[socket.socket]) -> None:
    """What Hydra's proxy answers to its processes: a key-value space, and a barrier."""
    kept: dict[str, str] = {}
    barrier = threading.Barrier(len(lines))

    def serve(line: socket.socket) -> None:
        with line, line.makefile("rwb", buffering=0) as file:
            for raw in iter(file.readline, b""):
                said = dict(word.partition("=")[::2] for word in raw.decode().split())
                if said["cmd"] == "put":
                    kept[said["key"]] = said["value"]
                if said["cmd"] == "barrier_in":
                    barrier.wait(5)
                answers = {
                    "init": "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0", "get_my_kvsname": "cmd=my_kvsname kvsname=kvs_1",
                    "put": "cmd=put_result rc=0 msg=success", "barrier_in": "cmd=barrier_out", "finalize": "cmd=finalize_ack",
                    "get": f"cmd=get_result rc=0 msg=success value={kept.get(said.get('key', ''), '')}",
                }  # fmt: skip
                file.write((answers[said["cmd"]] + "\n").encode())

    for line in lines:
        threading.Thread(target=serve, args=(line,), daemon=True).start()


def test_a_text_goes_to_all_ranks_by_pmi() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    _hydra([there for _, there in pairs])
    heard: list[str] = []
    threads = [
        threading.Thread(target=lambda here=here, said=said: heard.append(pmi.talk(here.fileno(), said)))
        for (here, _), said in zip(pairs, ("4000@h1,10.0.0.1", None, None), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert heard == ["4000@h1,10.0.0.1"] * 3


def test_hosts_are_placed_by_what_their_ranks_say() -> None:
    facts = {"name": "", "cores": 1}

    def hello(rank: int, host: str, cores: list[int], local: int | None) -> dict[str, object]:
        return {"rank": rank, "host": host, "cores": cores, "local_rank": local, "facts": {**facts, "name": host}}

    found = placed([hello(2, "b", [0], None), hello(0, "a", [0, 1], 1), hello(1, "a", [2, 3], 0)])
    assert [(place.name, place.ranks, place.cores, place.facts.workers) for place in found] == [
        ("a", (1, 0), 4, 2),
        ("b", (2,), 1, 1),
    ]


def test_cores_of_a_bound_rank_are_those_that_its_host_shares_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = environment.usable_cores()
    monkeypatch.setenv(environment.CORES, str(own + 6))
    assert environment.usable_cores() == own + 6
