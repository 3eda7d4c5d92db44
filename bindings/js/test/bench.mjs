/**
 * The JavaScript side of benchmarks/bindings.py: does one thing for each word on stdin, and answers how long it took.
 *
 *     node test/bench.mjs node|chromium PACK FRAMES HISTORY
 *
 * PACK holds the videos: the first HISTORY of them were watched, the others are ranked. FRAMES: uint8 [7][144][144][3].
 */

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { createInterface } from "node:readline";

import { serve } from "./browser/server.mjs";
import { measured } from "./measure.mjs";
import { load } from "./setup.mjs";

const [where, pack, frames, watched] = process.argv.slice(2);

async function inChromium() {
  const { chromium } = await import("playwright-core");
  const executablePath = process.env.LINKEDOUT_CHROMIUM || ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
  const server = await serve({ bench: dirname(pack) });
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  await page.goto(`${server.url}/test/browser/page.html`);
  await page.waitForFunction(() => window.tests);
  await page.evaluate((given) => window.tests.startMeasuring(...given), [basename(pack), basename(frames), Number(watched)]);
  return {
    ask: (word) => page.evaluate((w) => window.tests.measure(w), word),
    close: async () => {
      await browser.close();
      server.close();
    },
  };
}

async function inNode() {
  const rec = await load();
  const ask = await measured(rec, new Uint8Array(await readFile(pack)), new Uint8Array(await readFile(frames)), Number(watched));
  return { ask, close: () => rec.close() };
}

const side = await (where === "chromium" ? inChromium() : inNode());
console.log("ready");
for await (const word of createInterface(process.stdin)) console.log(await side.ask(word));
await side.close();
