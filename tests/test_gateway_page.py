"""The pages in a real browser: Debian's Chromium, where it is installed."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Server, StartServer, until
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from client import samples
from client.samples import Stroke, curve, draw

# Another hand than the project's own: slanted and continental.
SLANTED: dict[int, list[Stroke]] = {
    0: [[(.58, .16), (.40, .22), (.28, .44), (.27, .68), (.38, .84), (.55, .78), (.68, .56),
         (.70, .30), (.60, .17), (.50, .18)]],
    1: [[(.42, .30), (.50, .24), (.58, .15)], [(.58, .15), (.55, .40), (.50, .64), (.46, .86)]],
    2: [[(.30, .28), (.42, .16), (.60, .15), (.70, .28), (.62, .44), (.45, .62), (.26, .80)],
        [(.26, .80), (.38, .74), (.54, .80), (.72, .76)]],
    3: [[(.34, .16), (.50, .15), (.70, .16)], [(.70, .16), (.58, .30), (.47, .42)],
        [(.47, .42), (.64, .46), (.71, .62), (.60, .80), (.42, .86), (.27, .78)]],
    4: [[(.56, .13), (.40, .36), (.24, .60)], [(.24, .60), (.48, .58), (.76, .58)],
        [(.58, .40), (.54, .62), (.50, .88)]],
    5: [[(.70, .15), (.54, .16), (.42, .17)], [(.42, .17), (.38, .30), (.34, .44)],
        [(.34, .44), (.50, .40), (.66, .48), (.68, .66), (.54, .82), (.36, .86), (.24, .78)]],
    6: [[(.66, .14), (.48, .26), (.35, .46), (.29, .66), (.36, .82), (.52, .85), (.66, .74),
         (.65, .60), (.52, .53), (.38, .60), (.31, .70)]],
    7: [[(.28, .18), (.48, .17), (.74, .16)], [(.74, .16), (.60, .42), (.50, .64), (.42, .88)],
        [(.40, .52), (.54, .50), (.70, .49)]],
    8: [[(.68, .22), (.54, .14), (.40, .20), (.40, .34), (.54, .46), (.62, .60), (.58, .78),
         (.42, .86), (.29, .76), (.34, .60), (.52, .46), (.66, .34), (.68, .22)]],
    9: [[(.70, .26), (.56, .15), (.38, .22), (.32, .38), (.42, .50), (.58, .44), (.70, .26)],
        [(.70, .26), (.68, .48), (.58, .70), (.40, .86)]],
}  # fmt: skip
HANDS = {"upright": samples.STROKES, "slanted": SLANTED}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 3,
    "has_touch": True,
    "is_mobile": True,
}
# Where the README's screenshot goes; see the Makefile.
SCREENSHOT = "MNIST_GATEWAY_SCREENSHOT"

# What the page asks about a drawing.
ASKED = "**/predict/image?"
# Lets a page's timers go off early, and keeps what they were set to, in ms.
HASTE = """() => {
  const { setTimeout } = window;
  window.waited = [];
  window.setTimeout = (call, wait) => setTimeout(call, waited.push(wait) && wait / 50);
}"""

Visit = Callable[..., Page]

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not here: install Debian's chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, gateway: Server) -> Iterator[Visit]:
    """Opens pages, and sees to it that they report no error and stay within their origin."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(path: str = "/", *, of: Server = gateway, **options: Any) -> Page:
        def requested(request: Request) -> None:
            if not request.url.startswith((f"{of.address}/", "blob:")):
                complaints.append(f"a request left the origin: {request.url}")

        def logged(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                complaints.append(message.text)

        contexts.append(browser.new_context(base_url=of.address, **options))
        page = contexts[-1].new_page()
        page.on("request", requested)
        page.on("console", logged)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        return page

    open_page.complaints = complaints  # type: ignore[attr-defined] # for who expects some
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def write(page: Page, strokes: list[Stroke], *, steps: int = 1, lift: bool = True) -> None:
    """Draws along stroke paths with the mouse; the last stroke may stay unfinished."""
    box = page.locator("#sheet").bounding_box()
    assert box is not None
    for stroke in strokes:
        points = curve(stroke, steps) * (box["width"], box["height"]) + (box["x"], box["y"])
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        if lift or stroke is not strokes[-1]:
            page.mouse.up()


def expect_answer(page: Page, digit: int | None) -> None:
    """Waits until the page has answered all it was asked, and looks what it says."""
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")
    first = page.locator("#bars .first b")
    if digit is None:
        expect(first).to_have_count(0)
    else:
        expect(first).to_have_text(str(digit))


def expect_nothing_wrong(page: Page) -> None:
    """Lets axe look at the page as it is."""
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []


@pytest.mark.parametrize("hand", HANDS)
def test_ten_digits_are_read(visit: Visit, hand: str) -> None:
    """Each digit, drawn with the pointer, is what the page says, once the pen is lifted."""
    page = visit()
    for digit, strokes in HANDS[hand].items():
        write(page, strokes)
        expect_answer(page, digit)
        expect(page.locator("#answer")).to_have_attribute(
            "aria-label", re.compile(rf"The model's answer: {digit}, (\d+\.)?\d+ %")
        )
        page.keyboard.press("Escape")
        expect_answer(page, None)


def test_the_answer_follows_the_pen(visit: Visit) -> None:
    """What is read so far is said while the pen is still down."""
    page = visit()
    write(page, HANDS["upright"][7], lift=False)
    expect_answer(page, 7)
    page.mouse.up()


def test_every_stroke_can_be_undone(visit: Visit) -> None:
    """Undo takes back one stroke, Clear all of them, and Undo brings them back."""
    page = visit()
    undo, clear = (page.get_by_role("button", name=name) for name in ("Undo", "Clear"))
    expect(undo).to_be_disabled()
    expect(clear).to_be_disabled()
    one, bar = SLANTED[1][1], [(.30, .15), (.58, .15)]  # fmt: skip
    write(page, [one])
    expect_answer(page, 1)
    write(page, [bar])
    expect_answer(page, 7)
    undo.click()
    expect_answer(page, 1)
    clear.click()
    expect_answer(page, None)
    expect(clear).to_be_disabled()
    undo.click()
    expect_answer(page, 1)
    undo.click()
    expect_answer(page, None)
    expect(undo).to_be_disabled()


def test_a_picture_can_be_uploaded(visit: Visit, tmp_path: Path) -> None:
    """A file is shown and read, and the next stroke takes its place."""
    file = tmp_path / "picture.webp"
    draw(4, 700).save(file)
    page = visit()
    page.get_by_label("Upload").set_input_files(file)
    expect_answer(page, 4)
    write(page, SLANTED[1][1:])
    expect_answer(page, 1)
    page.get_by_role("button", name="Undo").click()
    expect_answer(page, 4)


def test_a_file_that_is_no_picture_is_a_sentence(visit: Visit, tmp_path: Path) -> None:
    """What the browser cannot show is not sent, and said."""
    file = tmp_path / "picture.png"
    file.write_bytes(b"<svg/>")
    page = visit()
    page.get_by_label("Upload").set_input_files(file)
    expect(page.locator("#problem")).to_have_text("The file is no picture.")


def test_a_model_can_be_chosen(
    visit: Visit, start_server: StartServer, start_gateway: StartServer, two_versions: Path
) -> None:
    """The newest version answers, until another is chosen."""
    server = start_server("--models", str(two_versions))
    page = visit(of=start_gateway("--server", server.address))
    write(page, HANDS["upright"][3])
    expect_answer(page, 3)
    expect(page.locator("#took")).to_have_text(re.compile(r"digitnet 2, \d+ ms"))
    page.get_by_role("combobox").select_option("digitnet 1")
    expect(page.locator("#took")).to_have_text(re.compile(r"digitnet 1, \d+ ms"))
    expect_answer(page, 3)


@pytest.fixture
def two_versions(bundled_models: Path, tmp_path: Path) -> Path:
    """A models directory with the bundled model twice."""
    for version in "12":
        shutil.copytree(bundled_models / "digitnet/1", tmp_path / "digitnet" / version)
    return tmp_path


def test_what_the_model_sees_is_shown(visit: Visit) -> None:
    """The small picture is the very image that was recognised."""
    page = visit()
    with page.expect_response(ASKED) as last:
        write(page, [[(.5, .2), (.5, .2)]])  # fmt: skip
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")
    shown = page.evaluate(
        """() => {
          const canvas = document.querySelector("#seen");
          const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
          return Array.from(data).filter((_, i) => i % 4 === 3);
        }"""
    )
    seen = np.array(last.value.json()["pixels"])
    assert np.abs(np.array(shown) / 255 - seen.ravel()).max() < 1 / 255


def test_a_stale_answer_never_shows(visit: Visit) -> None:
    """An answer that was asked for before the sheet was cleared is not for what it shows now."""
    page = visit()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(ASKED, hold)
    write(page, HANDS["upright"][8])
    until(lambda: page.evaluate("true") and held)  # to ask the page anything lets it be heard
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")
    with contextlib.suppress(Error):  # as the page has given it up
        held[0].continue_()
    page.evaluate("fetch('/samples').then(() => new Promise(requestAnimationFrame))")
    expect_answer(page, None)
    page.unroute(ASKED)
    write(page, HANDS["upright"][1])
    expect_answer(page, 1)


@pytest.mark.parametrize("status", [429, 503])
def test_it_asks_again_once_it_has_waited(visit: Visit, status: int) -> None:
    """It waits as long as it is asked to, though not for an hour, then asks for what is newest."""
    page = visit()
    page.evaluate(HASTE)
    waits = ["7", "3600"]

    def refuse(route: Route) -> None:
        if waits:
            headers = {"retry-after": waits.pop(0)}
            route.fulfill(status=status, headers=headers, json={"detail": "Later."})
        else:
            route.continue_()

    page.route(ASKED, refuse)
    page.keyboard.press("4")
    until(lambda: page.evaluate("waited.includes(7000)"))
    page.keyboard.press("7")
    expect_answer(page, 7)
    assert page.evaluate("Math.max(...waited)") == 10_000
    visit.complaints.clear()  # type: ignore[attr-defined] # of the refusals: see `visit`


def test_what_is_no_answer_is_a_sentence(visit: Visit) -> None:
    """What a proxy says in the gateway's place does not end the page: the next answer counts."""
    page = visit()
    page.route(ASKED, lambda route: route.fulfill(body="<h1>Hello</h1>"))
    write(page, SLANTED[1][:1])
    expect(page.locator("#problem")).to_have_text(re.compile("no answer of the gateway's"))
    page.unroute(ASKED)
    write(page, SLANTED[1][1:])
    expect_answer(page, 1)


def test_a_key_may_come_early(visit: Visit) -> None:
    """A key that is pressed before its sample is known writes it then."""
    page = visit("/docs")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/samples", hold)
    page.goto("/")
    page.keyboard.press("4")
    until(lambda: page.evaluate("true") and held)
    held[0].continue_()
    expect_answer(page, 4)


def test_it_recovers_by_itself(
    visit: Visit, start_server: StartServer, start_gateway: StartServer, bundled_models: Path
) -> None:
    """While the server is gone the page says so, and once it is back it answers what was drawn."""
    flags = ("--models", str(bundled_models))
    server = start_server(*flags)
    page = visit(of=start_gateway("--server", server.address, "--timeout", "2"))
    write(page, HANDS["upright"][2])
    expect_answer(page, 2)
    server.process.kill()
    server.process.wait()
    page.get_by_role("button", name="Clear").click()
    write(page, HANDS["upright"][6])
    connection = page.locator("#connection")
    expect(connection).to_have_text("The server does not answer. Reconnecting …")
    expect_nothing_wrong(page)
    start_server(*flags, "--port", server.address.rpartition(":")[2])
    expect(connection).to_be_empty()
    expect_answer(page, 6)
    # Browsers report every failed request, and these were meant to fail.
    complaints = visit.complaints  # type: ignore[attr-defined] # see `visit`
    complaints[:] = [one for one in complaints if "status of 50" not in one]


def test_it_works_on_a_phone(visit: Visit) -> None:
    """A finger draws, nothing is wider than the screen, and the answer is seen while drawing."""
    page = visit(**PHONE)
    touch = page.context.new_cdp_session(page)
    box = page.locator("#sheet").bounding_box()
    assert box is not None
    for stroke in HANDS["upright"][5]:
        points = curve(stroke, steps=2) * (box["width"], box["height"]) + (box["x"], box["y"])
        for i, (x, y) in enumerate(points):
            kind = "touchMove" if i else "touchStart"
            finger = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            touch.send("Input.dispatchTouchEvent", finger)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_answer(page, 5)
    for part in ("#sheet", "#seen", "#answer", "#bars"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth === innerWidth")
    expect_nothing_wrong(page)


def test_it_works_without_a_pointer(visit: Visit) -> None:
    """With keys alone a digit is drawn, undone, cleared, and a sample written."""
    page = visit()
    page.locator("#sheet").focus()
    for key in ("ArrowUp",) * 8 + ("Space",) + ("ArrowDown",) * 16 + ("Space",):
        page.keyboard.press(key)
    expect_answer(page, 1)
    page.keyboard.press("Control+z")
    expect_answer(page, None)
    page.keyboard.press("9")
    expect_answer(page, 9)
    expect(page.locator("#spoken")).to_have_text(re.compile(r"^9, [\d.]+ %$"))
    page.keyboard.press("Escape")
    expect_answer(page, None)
    reached = set()
    for _ in range(10):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
    assert reached >= {"sheet", "model", "Samples", "API", "theme", "undo", "upload"}


@pytest.mark.parametrize("path", ["/", "/samples", "/docs"])
def test_axe_finds_nothing(visit: Visit, path: str) -> None:
    """No page has an accessibility violation, in the light or in the dark."""
    page = visit(path, reduced_motion="reduce")
    if path == "/":
        write(page, HANDS["upright"][3])
        expect_answer(page, 3)
    elif path == "/samples":
        expect(page.locator("#samples li")).to_have_count(10)
    else:
        expect(page.locator("section")).to_have_count(7)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect_nothing_wrong(page)


def test_dark_or_light_is_ones_choice(visit: Visit) -> None:
    """It is as the system is set, until someone chooses; then it stays."""
    page = visit(color_scheme="dark")
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(paper)
    assert dark != light
    page.goto("/samples")
    assert page.evaluate(paper) == light
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(paper) == dark


def test_the_gallery_shows_each_sample(visit: Visit) -> None:
    """Ten digits, and ten right answers."""
    page = visit("/samples")
    expect(page.locator("#samples b")).to_have_text([str(digit) for digit in range(10)])


def test_the_documentation_can_be_tried(visit: Visit, tmp_path: Path) -> None:
    """Every path is listed with a form that is ready to be sent, and shows the answer."""
    page = visit("/docs")
    file = tmp_path / "seven.png"
    draw(7).save(file)
    page.locator("input[type=file]").set_input_files(file)
    expected = [
        '"predicted_digit": 1',
        '"predicted_digit": 1',
        '"predicted_digit": 7',
        '"digit": 0',
    ]
    expected += ['"status": "alive"', '"status": "ready"', '"name": "digitnet"']
    sections = page.locator("section").all()
    assert len(sections) == len(expected)
    for section, words in zip(sections, expected, strict=True):
        section.get_by_role("button", name="Try it").click()
        expect(section.locator("pre")).to_contain_text("200 OK")
        expect(section.locator("pre")).to_contain_text(words)


def test_the_readmes_screenshot_can_be_made(visit: Visit, tmp_path: Path) -> None:
    """It shows the page with an answer, and is small."""
    size = {"width": 1100, "height": 690}
    page = visit(viewport=size, color_scheme="light", device_scale_factor=1.5)
    write(page, SLANTED[2], steps=8)
    expect_answer(page, 2)
    page.mouse.move(0, 0)
    file = Path(os.environ.get(SCREENSHOT, tmp_path / "screenshot.png"))
    page.screenshot(path=file, animations="disabled")
    assert file.stat().st_size < 200_000
