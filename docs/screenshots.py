"""Takes the studio's pictures for the README from a running server, as it is.

    windlass serve
    python docs/screenshots.py http://127.0.0.1:8080 --question "How do I get a sorted copy of a list?"

Needs playwright and a Chromium on the path. Writes PNG files of at most 150 KB to `docs/images/`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
LIMIT = 150_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("origin", help="address of the server")
    parser.add_argument("--question", default="How do I get a sorted copy of a list?")
    parser.add_argument("--experiment", help="name@version (default: the newest)")
    parser.add_argument("--run", help="id of a run with curves (default: the newest pre-training)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    args = parser.parse_args()
    chromium = next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )
    if chromium is None:
        raise SystemExit("No Chromium found: apt-get install chromium")
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": 1180, "height": 760}, color_scheme=scheme)
            page = context.new_page()
            page.goto(args.origin + "/ask")
            page.locator("#q").fill(args.question)
            page.keyboard.press("Enter")
            page.wait_for_selector("article[data-trace]")
            take(page, args.out / f"ask-{scheme}.png")
            page.locator(".trace-link").first.click()
            take(page, args.out / f"trace-{scheme}.png")
            page.get_by_role("link", name="Lineage").click()
            take(page, args.out / f"lineage-{scheme}.png")
            page.goto(args.origin + (f"/experiments/{args.experiment}" if args.experiment else "/experiments"))
            if not args.experiment:
                page.locator("a.row").first.click()
            take(page, args.out / f"experiment-{scheme}.png")
            page.goto(args.origin + (f"/runs/{args.run}" if args.run else "/runs?kind=pretrain"))
            if not args.run:
                page.locator("a.row").first.click()
            page.wait_for_selector("#charts[data-drawn]")
            take(page, args.out / f"run-{scheme}.png")
            context.close()
        browser.close()


def take(page: Page, path: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=path)
    size = path.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{path} has {size:,} bytes, more than {LIMIT:,}.")
    print(f"{path} {size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
