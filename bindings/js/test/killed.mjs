/** Adds events to the history of a folder and says so after each, until it is killed. */

import { writeSync } from "node:fs";

import { putGolden } from "./golden.mjs";
import { golden, ids, load } from "./setup.mjs";

const rec = await load({ dataDir: process.argv[2] });
putGolden(rec, golden, ids);
await rec.store.flush();
for (let n = 0; n < 250; n++) {
  await rec.history.add(ids[n % ids.length], { watched: (n % 10) / 10 });
  writeSync(1, "added\n");
}
