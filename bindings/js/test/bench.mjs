/**
 * How long it takes to encode a video and to rank 1,000, in milliseconds, the median of many, one thread; one JSON line.
 *
 *     node test/bench.mjs            Node
 *     node test/bench.mjs chromium   headless Chromium
 */

import { existsSync } from "node:fs";

import { serve } from "./browser/server.mjs";
import { measure } from "./measure.mjs";
import { golden, load, videoOf } from "./setup.mjs";

async function inChromium() {
  const { chromium } = await import("playwright-core");
  const executablePath = process.env.LINKEDOUT_CHROMIUM || ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
  const server = await serve();
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  await page.goto(`${server.url}/test/browser/page.html`);
  await page.waitForFunction(() => window.tests);
  const found = await page.evaluate(() => window.tests.measure());
  await browser.close();
  server.close();
  return found;
}

async function inNode() {
  const rec = await load();
  const found = await measure(rec, await videoOf(golden.videos[0]));
  await rec.close();
  return found;
}

const where = process.argv[2] ?? "node";
console.log(JSON.stringify({ where, ...(await (where === "chromium" ? inChromium() : inNode())) }));
