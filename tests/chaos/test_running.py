"""One tiny round with real processes and servers, from its start to its judgement."""

from pathlib import Path

from chaos.checking.evidence import Judgement
from chaos.machine.servers import Servers
from chaos.run import Round, run_round
from chaos.scenario import Layout, Scenario, Traffic
from chaos.scenarios.killing import kill
from chaos.stage import Stage
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer


class Borrowed(Servers):
    """The servers of all tests, instead of some of our own."""

    def __init__(self, rabbitmq: RabbitMQServer, postgres: PostgresServer) -> None:
        super().__init__()
        self.__dict__["rabbitmq"] = rabbitmq
        self.__dict__["postgres"] = postgres


def inject(stage: Stage) -> None:
    kill(stage, "ingest-1")


TINY = Scenario(
    name="tiny",
    sentence="SIGKILL of the ingest node",
    inject=inject,
    layout=Layout(ingest_nodes=1, workers=1),
    traffic=Traffic(callbacks=40, rate=40.0, tail_s=1.0, duplicates=0.2, forged=0.2),
)


def test_a_scenario_is_played_and_judged(rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path: Path) -> None:
    one = Round(scenario=TINY, seed=7, is_full=False, folder=tmp_path / "evidence", code="of a test", previous="HEAD~1")
    result = run_round(one, Borrowed(rabbitmq, postgres))
    assert result.problem == ""
    assert result.is_good, result.findings
    assert result.numbers is not None
    assert result.numbers.faults == 1
    assert result.numbers.accepted == result.numbers.sent >= 40
    judged = {number: finding.judgement for number, finding in result.findings.items()}
    held = {number for number, judgement in judged.items() if judgement is Judgement.SATISFIED}
    assert held >= {"I1", "I2", "I3", "I5", "I7", "I8", "I9", "I10", "I11", "I13", "I16"}
    # Nothing of the kind happened: without evidence they are unchecked.
    assert {judged[number] for number in ("I4", "I6", "I12")} == {Judgement.UNCHECKED}
