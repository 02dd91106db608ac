"""Who is let in, and what every answer carries. Through the middleware itself, without a browser."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from contract.failed_logins import MAX_FAILURES
from orchestrator.dashboard.access import Access
from orchestrator.dashboard.app import create_app
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.server import choose_token
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.store.control import paused
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import plan
from tests.postgresql_server import PostgresqlServer

TOKEN = "token-of-the-access-tests"
HOST = "http://127.0.0.1:8790"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore.open(tmp_path / "run_table.sqlite", create=True)
    store.create_experiment(plan(3))
    yield store
    store.close()


@pytest.fixture
def board(store: SqlStore, tmp_path: Path) -> Dashboard:
    return Dashboard(tmp_path, store, name="access")


@pytest.fixture
def client(board: Dashboard) -> TestClient:
    return TestClient(create_app(board, TOKEN), base_url=HOST, follow_redirects=False)


def signed_in(client: TestClient) -> TestClient:
    assert client.get(f"/?token={TOKEN}").status_code == 303
    return client


@pytest.mark.parametrize("path", ["/", "/runs", "/api/runs", "/api/campaign", "/api/stream", "/comparison", "/nothing"])
def test_every_route_needs_the_token(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401
    assert "access" not in answer.text or "JouleBed" in answer.text


def test_sign_of_life_and_static_files_need_none(client: TestClient) -> None:
    assert client.get("/v1/live").json() == {"live": True}
    assert client.get("/static/style.css").status_code == 200
    assert client.get("/static/../context.py").status_code in (401, 404)
    assert client.get("/static/%2e%2e/context.py").status_code == 404


def test_address_with_the_token_becomes_a_cookie_and_an_address_without_it(client: TestClient) -> None:
    answer = client.get(f"/runs?token={TOKEN}&state=DONE")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/runs?state=DONE"
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert client.get("/runs?state=DONE").status_code == 200


def test_redirect_never_leaves_the_host(client: TestClient) -> None:
    answer = client.get(f"//other.example/?token={TOKEN}")
    assert not answer.headers.get("location", "/").startswith("//")


def test_wrong_token_gets_the_form_and_soon_has_to_wait(client: TestClient) -> None:
    answer = client.get("/?token=wrong")
    assert answer.status_code == 401
    assert "That token is wrong" in answer.text
    assert "set-cookie" not in answer.headers
    for _ in range(MAX_FAILURES - 1):
        assert client.post("/login", data={"token": "wrong"}, headers={"Origin": HOST}).status_code == 401
    answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": HOST})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_form_takes_the_token(client: TestClient) -> None:
    answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": HOST})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200


def test_another_tokens_cookie_does_not_fit(board: Dashboard) -> None:
    first = TestClient(create_app(board, TOKEN), base_url=HOST, follow_redirects=False)
    second = TestClient(create_app(board, TOKEN + "2"), base_url=HOST, follow_redirects=False)
    signed_in(first)
    second.cookies = first.cookies
    assert second.get("/").status_code == 401


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://127.0.0.1:9999"])
def test_what_changes_something_must_come_from_the_page(
    client: TestClient, store: SqlStore, origin: str | None
) -> None:
    signed_in(client)
    headers = {"Origin": origin} if origin else {}
    assert client.post("/api/pause", json={"name": "x"}, headers=headers).status_code == 403
    assert paused(store) is None
    assert client.post("/api/pause", json={"name": "x"}, headers={"Origin": HOST}).status_code == 200
    assert paused(store) is not None


def test_program_brings_the_token_in_a_header(client: TestClient, store: SqlStore) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/runs", headers=bearer).json()["n_runs"] == 3
    assert client.post("/api/pause", json={}, headers=bearer).status_code == 200
    assert client.get("/api/runs", headers={"Authorization": "Bearer wrong"}).status_code == 401
    held = paused(store)
    assert held is not None and held.by == "dashboard"


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    answers = [client.get("/"), client.get("/static/style.css"), client.get("/v1/live")]
    answers += [signed_in(client).get("/"), client.get("/api/runs"), client.get("/nothing")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    nonces = {client.get("/").headers["content-security-policy"] for _ in range(2)}
    assert len(nonces) == 2
    assert answers[3].headers["cache-control"] == "no-store"


def test_large_body_is_refused_unread(client: TestClient) -> None:
    signed_in(client)
    answer = client.post("/api/pause", content=b"x" * 100_000, headers={"Origin": HOST})
    assert answer.status_code == 413


def test_copy_that_cannot_be_written_takes_no_change(store: SqlStore, tmp_path: Path) -> None:
    copy = Dashboard(tmp_path, store, is_writable=False, is_frozen=True, name="copy")
    client = signed_in(TestClient(create_app(copy, TOKEN), base_url=HOST, follow_redirects=False))
    answer = client.post("/api/pause", json={}, headers={"Origin": HOST})
    assert answer.status_code == 409
    assert "read-only copy" in answer.json()["message"]
    page = client.get("/").text
    assert "Read-only copy" in page
    assert "data-control" not in page


def test_decision_that_makes_no_sense_is_refused_in_words(client: TestClient) -> None:
    signed_in(client)
    answer = client.post("/api/runs/run_0_repetition_0/exclude", json={"reason": "x"}, headers={"Origin": HOST})
    assert answer.status_code == 409
    assert "only a run that has ended" in answer.json()["message"]
    answer = client.post("/api/pause", json={"unknown": 1}, headers={"Origin": HOST})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


NO_RUN_IDS = ("%00", "x%0aFORGED", "%ff", ".hidden", "a%20b", "x" * 200)


def assert_no_such_runs(client: TestClient) -> None:
    signed_in(client)
    for each in NO_RUN_IDS:
        for path in (f"/runs/{each}", f"/runs/{each}/story", f"/runs/{each}/artifacts/x", f"/api/runs/{each}"):
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert "no such run" in answer.text
        for action in ("retry", "exclude", "include"):
            answer = client.post(f"/api/runs/{each}/{action}", json={"reason": "x"}, headers={"Origin": HOST})
            assert answer.status_code == 404, action


def test_what_is_no_id_of_a_run_is_not_found(client: TestClient) -> None:
    assert_no_such_runs(client)
    assert client.get("/runs/run_0_repetition_0").status_code == 200


def test_what_is_no_id_of_a_run_is_not_found_in_a_servers_run_table(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    with postgresql.database() as url, closing(SqlStore.open(url, create=True)) as store:
        store.create_experiment(plan(1))
        app = create_app(Dashboard(tmp_path, store, name="server"), TOKEN)
        assert_no_such_runs(TestClient(app, base_url=HOST, follow_redirects=False))


def test_run_table_that_went_away_is_told_and_comes_back(board: Dashboard, tmp_path: Path) -> None:
    watch = CampaignWatch(board, clock=iter(range(0, 10_000, 10)).__next__)
    client = signed_in(TestClient(create_app(board, TOKEN, watch), base_url=HOST, follow_redirects=False))
    path = tmp_path / "run_table.sqlite"
    assert client.get("/").status_code == 200
    path.rename(tmp_path / "elsewhere")
    answer = client.get("/")
    assert answer.status_code == 503
    assert "is gone" in answer.text
    assert client.get("/api/runs").json()["code"] == "run_table"
    assert not path.exists()  # nobody made an empty one
    (tmp_path / "elsewhere").rename(path)
    assert client.get("/").status_code == 200


def test_text_of_others_is_escaped(store: SqlStore, board: Dashboard) -> None:
    client = signed_in(TestClient(create_app(board, TOKEN), base_url=HOST, follow_redirects=False))
    client.post("/api/pause", json={"name": "<b>x", "reason": "<script>alert(1)</script>"}, headers={"Origin": HOST})
    page = client.get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_other_than_loopback_needs_a_token_of_ones_own(tmp_path: Path) -> None:
    assert len(choose_token("127.0.0.1", None, {})) >= 32
    with pytest.raises(Exception, match="loopback only"):
        choose_token("0.0.0.0", None, {})
    with pytest.raises(Exception, match="at least 16"):
        choose_token("0.0.0.0", None, {"JOULEBED_DASHBOARD_TOKEN": "short"})
    file = tmp_path / "token"
    file.write_text("a-token-of-some-length\n")
    assert choose_token("0.0.0.0", file, {}) == "a-token-of-some-length"


def test_cookie_is_named_after_its_token(board: Dashboard) -> None:
    names = {Access(create_app(board, token), token, board.templates).cookie for token in ("a" * 20, "b" * 20)}
    assert len(names) == 2
    assert not any("a" * 20 in name for name in names)
