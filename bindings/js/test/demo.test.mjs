/** The demo page examples/web, end to end in headless Chromium. LINKEDOUT_SCREENSHOTS names a folder for pictures of it. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "./browser/server.mjs";

const executablePath = process.env.LINKEDOUT_CHROMIUM || ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
const web = fileURLToPath(new URL("../../../examples/web/", import.meta.url));

describe("the demo page", { skip: !executablePath && "LINKEDOUT_CHROMIUM names no browser, and /usr/bin/chromium is not there" }, () => {
  const site = mkdtempSync(join(tmpdir(), "linkedout-site-"));
  const asked = new Set();
  const errors = [];
  let server;
  let browser;
  let context;
  let page;

  const shoot = async (name, options = {}) => {
    const folder = process.env.LINKEDOUT_SCREENSHOTS;
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`), ...options });
  };
  const ready = () => page.waitForSelector("html[data-ready=yes]", { timeout: 120_000 });
  const texts = (selector) => page.locator(selector).allInnerTexts();
  const open = async () => {
    // With less motion nothing plays by itself, so what is watched is what the test watches.
    context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
    context.on("request", (r) => asked.add(new URL(r.url()).origin));
    await context.addInitScript(() => (Math.random = () => 0)); // the first clip is the same each time
    page = await context.newPage();
    page.on("pageerror", (e) => errors.push(e.message));
    page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
    await page.goto(`${server.url}/site/`);
  };
  /** Wait until what was done has made a new list. */
  const after_ = async (action) => {
    const before = await page.evaluate(() => document.documentElement.dataset.rankings);
    await action();
    await page.waitForFunction((n) => document.documentElement.dataset.rankings !== n, before);
  };

  before(async () => {
    execFileSync(process.execPath, [join(web, "build.mjs"), site], { stdio: "ignore" });
    server = await serve({ site }, { isolated: false });
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  });
  after(async () => {
    await browser.close();
    server.close();
    rmSync(site, { recursive: true });
  });

  test("it opens on something to watch, and then ranks the others", async () => {
    await open();
    assert.match(await page.locator("#video").getAttribute("src"), /^clips\/.*\.webm$/);
    assert.ok((await page.locator("#title").innerText()).length > 3);
    await ready();
    assert.equal(await page.locator("#status").innerText(), "");
    assert.equal((await texts("#list li")).length, 11);
    assert.match(await page.locator("#cold").innerText(), /^Nothing is known of your taste yet/);
    assert.equal(await page.locator("#taste").innerText(), "Nothing is known to be liked yet.");
    await shoot("opened", { fullPage: true });
  });

  test("what is like what was liked comes next, and the page says why", async () => {
    const landscape = /mountain meadow|high peaks|Sunset|bridge|stream/;
    const playing = () => page.locator("#title").innerText();
    for (let n = 0; n < 6; n++) await after_(async () => page.keyboard.press(landscape.test(await playing()) ? "l" : "d"));
    await after_(() => page.getByRole("button", { name: /^Next/ }).click());
    const titles = await texts("#list button > span > span:first-child");
    assert.ok(!titles.includes(await playing()), "what plays is not in the list");
    assert.match((await texts("#list .reason"))[0], /because/);
    assert.match(await page.locator("#taste").innerText(), /Likes videos like .*mountain meadow/);
    assert.match(await page.locator("#taste").innerText(), /avoids videos like/);
    assert.match((await texts("#history li")).join(), /mountain meadow in autumn · liked/);
    await page.locator("#how summary").click();
    assert.equal(await page.locator("#layers div").count(), 6);
    await shoot("taste", { fullPage: true });
  });

  test("it is remembered after a reload, one video is forgotten, then everything", async () => {
    const taste = await page.locator("#taste").innerText();
    const chips = await texts("#history li");
    await page.reload();
    await ready();
    assert.equal(await page.locator("#taste").innerText(), taste);
    assert.deepEqual(await texts("#history li"), chips);
    await after_(() => page.getByRole("button", { name: "Forget A mountain meadow in autumn" }).click());
    assert.doesNotMatch((await texts("#history li")).join(), /mountain meadow/);
    await after_(() => page.getByRole("button", { name: "Forget everything" }).click());
    assert.deepEqual(await texts("#history li"), []);
    assert.equal(await page.locator("#taste").innerText(), "Nothing is known to be liked yet.");
    assert.match(await page.locator("#cold").innerText(), /^Nothing is known/);
  });

  test("videos of one's own", async () => {
    const file = (name, path) => ({ name, mimeType: "video/webm", buffer: readFileSync(path) });
    const clip = join(web, "clips/sunset.webm");
    await page.locator("#files").setInputFiles([file("my holiday.webm", clip), { name: "broken.mp4", mimeType: "video/mp4", buffer: Buffer.from("no film") }]);
    await page.waitForFunction(() => /1 could not be used/.test(document.getElementById("status").innerText), null, { timeout: 60_000 });
    assert.match(await page.locator("#status").innerText(), /broken: this browser cannot decode it/);
    assert.ok((await texts("#list button > span > span:first-child")).includes("my holiday"));
    await page.locator("#list button", { hasText: "my holiday" }).click();
    await page.waitForFunction(() => document.getElementById("video").src.startsWith("blob:") && document.getElementById("video").videoWidth > 0);
  });

  test("a second tab works, and says that it keeps nothing", async () => {
    const second = await context.newPage();
    await second.goto(`${server.url}/site/`);
    await second.waitForSelector("html[data-ready=yes]", { timeout: 120_000 });
    assert.match(await second.locator("#status").innerText(), /open in another tab/);
    await second.close();
  });

  test("on a phone everything fits, and by keyboard everything can be reached", async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    const wide = await page.evaluate(() => [...document.querySelectorAll("body *")]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.id || e.className || e.tagName));
    assert.deepEqual(wide, [], "it scrolls sideways");
    const small = await page.evaluate(() => [...document.querySelectorAll("button, .button, summary")]
      .filter((b) => b.offsetParent && b.tagName !== "SUMMARY" && b.getBoundingClientRect().height < 43).map((b) => b.innerText));
    assert.deepEqual(small, []);
    await shoot("phone");
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input")]
      .filter((b) => !(b.innerText || b.ariaLabel || b.labels?.[0]?.innerText)).length);
    assert.equal(nameless, 0);
    await page.evaluate(() => document.activeElement?.blur());
    const reached = new Set();
    for (let n = 0; n < 60; n++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName));
    }
    for (const id of ["like", "dislike", "next", "forget", "files", "folder", "SUMMARY"]) assert.ok(reached.has(id), `${id} of ${[...reached]}`);
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  test("nothing leaves the tab: the network log says so, and the browser enforces it", async () => {
    await page.locator("summary", { hasText: "What left this tab" }).click();
    assert.match(await page.locator("#left").innerText(), /^nothing \(/);
    assert.ok((await texts("#log li")).some((row) => row.includes("/site/")));
    const before = errors.length;
    assert.equal(await page.evaluate(() => fetch("https://example.com/").then(() => "sent", () => "refused")), "refused");
    errors.length = before; // the browser complains of that one
    await shoot("network", { fullPage: true });
    assert.deepEqual([...asked].filter((o) => o !== "null" && o !== server.url && o !== "https://example.com"), []);
  });

  test("it works offline after the first visit", async () => {
    await page.waitForFunction(async () => {
      const [name] = await caches.keys();
      return (await (await caches.open(name)).keys()).length >= 40;
    }, null, { timeout: 60_000 });
    server.close();
    await context.setOffline(true);
    await page.reload();
    await ready();
    assert.equal((await texts("#list li")).length, 11);
    await after_(() => page.keyboard.press("n"));
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  });

  test("nothing went wrong on the way", () => assert.deepEqual(errors, []));
});
