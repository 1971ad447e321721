"""Who may reach the page: asked over real HTTP of a real launch."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from studio.web.access import OPEN_PATHS
from tests.studio.pages.browsing import ROOT, Studio, open_studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with open_studio(tmp_path_factory.mktemp("home")) as studio:
        yield studio


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.cookies = response.msg.get_all("set-cookie") or []
        # A stream never ends; its status is what matters here.
        stream = "event-stream" in self.headers.get("content-type", "")
        self.text = "" if stream else response.read().decode("utf-8", "replace")


def ask(studio: Studio, path: str = "/", method: str = "GET", *, body: bytes | None = None,
        **headers: str) -> Answer:  # fmt: skip
    connection = http.client.HTTPConnection(urlsplit(studio.origin).netloc, timeout=10)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=names)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def cookie(studio: Studio) -> str:
    return ask(studio, f"/?key={studio.key}").cookies[0].partition(";")[0]


def test_the_key_becomes_a_cookie_that_neither_scripts_nor_other_sites_get(studio: Studio) -> None:
    answer = ask(studio, f"/?key={studio.key}&project=project-1&step=plan")

    [set_cookie] = answer.cookies
    assert "; HttpOnly" in set_cookie and "; SameSite=Strict" in set_cookie
    assert "url=/?project=project-1&amp;step=plan" in answer.text
    assert studio.key not in answer.text
    page = ask(studio, "/", Cookie=set_cookie.partition(";")[0])
    assert page.status == 200 and "Tuning Studio" in page.text


@pytest.mark.parametrize("given", ["", "?key=", "?key=wrong", "?key=%00", "?key=%C3%A9"])
def test_without_the_key_a_sentence_says_where_it_is(studio: Studio, given: str) -> None:
    answer = ask(studio, "/" + given)

    assert answer.status == 403
    assert "the address that the terminal printed" in answer.text
    assert not answer.cookies


@pytest.mark.parametrize("value", ["wrong", "", '"', "a=b; c", "é"])
def test_another_cookie_opens_nothing(studio: Studio, value: str) -> None:
    name = cookie(studio).partition("=")[0]

    connection = http.client.HTTPConnection(urlsplit(studio.origin).netloc, timeout=10)
    connection.putrequest("GET", "/config")
    connection.putheader("Cookie", f"{name}={value}".encode())
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()


def test_the_page_leads_nowhere_else(studio: Studio) -> None:
    answer = ask(studio, f"//evil.example/?key={studio.key}")

    assert "url=/evil.example/" in answer.text  # a path of ours, not another host


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "[::1]:80", ""])
def test_a_foreign_host_is_refused(studio: Studio, host: str) -> None:
    answer = ask(studio, "/", Host=host, Cookie=cookie(studio))

    assert answer.status == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"]
)
@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/x"]
)
def test_a_foreign_origin_changes_nothing(studio: Studio, origin: str, path: str) -> None:
    answer = ask(studio, path, "POST", body=b"{}", Origin=origin, Cookie=cookie(studio),
                 Content_Type="application/json")  # fmt: skip

    assert answer.status == 403
    assert "another site" in answer.text.casefold()


_LIST_ROUTES = """
import json, sys
from pathlib import Path
from studio.settings import prepare_environment
prepare_environment()
from studio.home import Home
from studio.server import Server
from studio.web.application import build_application

def routes(app, prefix=""):
    for route in app.routes:
        inner = getattr(route, "app", None) or getattr(route, "original_router", None)
        if hasattr(route, "methods"):
            yield from ((method, prefix + route.path) for method in route.methods or ("GET",))
        elif hasattr(inner, "routes"):
            yield from routes(inner, prefix + getattr(route, "path", ""))
        else:
            yield "GET", prefix + route.path + "/x"

application = build_application(Server(Home(Path(sys.argv[1]))), key="k", port=1)
print(json.dumps(sorted(set(routes(application._app)))))
"""


def test_every_route_but_the_health_check_needs_the_cookie(studio: Studio, tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-c", _LIST_ROUTES, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(listed.stdout)

    assert len(found) > 60  # those of Gradio are among them
    open_ones = set()
    for method, path in found:
        filled = re.sub(r"\{[^}]*\}", "x", path)
        if ask(studio, filled, method).status != 403:
            open_ones.add(path)
    assert open_ones == set(OPEN_PATHS)
    assert ask(studio, "/healthz").text == '{"ok":true}'


def test_every_answer_has_the_safety_headers(studio: Studio) -> None:
    for answer in (ask(studio), ask(studio, "/healthz"), ask(studio, "/", Cookie=cookie(studio))):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


def test_an_upload_has_a_limit_and_files_of_the_machine_are_not_served(studio: Studio) -> None:
    key = cookie(studio)
    for path in ("/etc/passwd", "../../etc/passwd", "/proc/self/environ", "app.py",
                 "http://127.0.0.1/x"):  # fmt: skip
        assert ask(studio, f"/gradio_api/file={path}", Cookie=key).status in (400, 403, 404)
    config = json.loads(ask(studio, "/config", Cookie=key).text)
    assert config["max_file_size"] == 500 * 1024**2
    assert config["show_error"] is False


def test_handlers_cannot_be_run_past_the_queue(studio: Studio) -> None:
    answer = ask(studio, "/gradio_api/run/predict", "POST", body=b'{"data": [], "fn_index": 0}',
                 Content_Type="application/json", Cookie=cookie(studio))  # fmt: skip

    assert answer.status == 404


def test_only_this_machine_can_reach_it(studio: Studio) -> None:
    assert urlsplit(studio.origin).hostname == "127.0.0.1"


def test_no_token_says_what_it_means_and_lets_in(tmp_path: Path) -> None:
    with open_studio(tmp_path, "--no-token") as studio:
        assert "key=" not in studio.address
        assert ask(studio).status == 200
        assert ask(studio, Host="evil.example").status == 400
