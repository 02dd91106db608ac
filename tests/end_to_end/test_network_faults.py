"""A bad network between the nodes, at the size that a check takes: the campaign completes by itself, with the table of
an undisturbed one. `make faults` runs each fault alone, with longer ones."""

from pathlib import Path

import pytest

from tests.faults.audit import Table
from tests.faults.kill_campaign import undisturbed
from tests.faults.machines import two_machines
from tests.faults.network_campaign import cable_campaign, fault_campaign, mixed_campaign, partition_campaign
from tests.faults.report import Report

N_TRIALS = 8

GROUPS = (
    ("drop_request", "half_request", "overtaken"),
    ("drop_answer", "reset_mid_body", "cut_body"),
    ("latency", "duplicate", "late_duplicate"),
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), N_TRIALS, is_large=True)


def check(report: Report) -> None:
    assert report.is_fine, report.text()
    assert report.figures["runs"] == N_TRIALS


@pytest.mark.parametrize("faults", GROUPS, ids="-".join)
def test_faults_at_every_kind_of_message(tmp_path: Path, reference: Table, faults: tuple[str, ...]) -> None:
    check(fault_campaign(tmp_path, reference, faults, seed=3, latency_s=0.3))


def test_faults_of_all_kinds(tmp_path: Path, reference: Table) -> None:
    report = mixed_campaign(tmp_path, reference, seed=11, latency_s=0.3)
    check(report)
    met = report.figures["faults met"]
    assert isinstance(met, dict) and len(met) > 4


def test_partitions(tmp_path: Path, reference: Table) -> None:
    check(partition_campaign(tmp_path, reference, seconds=6.0, moments=["claimed", "measuring"]))


def test_a_cable_is_pulled(tmp_path: Path, reference: Table) -> None:
    with two_machines() as machines:
        if machines is None:
            pytest.skip("this user cannot make network namespaces: root can, with iproute2")
        check(cable_campaign(tmp_path, reference, machines, seconds=6.0, moments=["measuring"]))
