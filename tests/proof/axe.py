"""axe-core (npm): what of a page somebody would miss who does not see it, or uses no mouse."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.proof import node

_RUN = """
axe.run(document, {resultTypes: ['violations']}).then(result => result.violations.map(
    found => `${found.id} (${found.help}): ${found.nodes.map(one => one.target.join(' ')).join(', ')}`))
"""


def violations(page: Page) -> list[str]:
    """What axe's rules find wrong with the page as it is now: a sentence for each, with its elements.

    axe runs in a world of its own, beside the page's scripts and its policy.
    """
    session = page.context.new_cdp_session(page)
    frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
    where = {"contextId": world["executionContextId"]}
    session.send("Runtime.evaluate", {"expression": node.script("axe-core", "axe.min.js"), **where})
    answer = session.send(
        "Runtime.evaluate", {"expression": _RUN, "awaitPromise": True, "returnByValue": True, **where}
    )
    session.detach()
    if "exceptionDetails" in answer:
        raise AssertionError(f"axe failed: {answer['exceptionDetails']}")
    found: list[str] = answer["result"]["value"]
    return found
