/** Prints what the package offers, one name a line, as docs/bindings-js.md writes them. */

import { readFile } from "node:fs/promises";

import * as all from "../dist/index.js";
import { Ranked } from "../dist/ranking.js";
import { load } from "./setup.mjs";

const declared = async (name) => readFile(new URL(`../dist/${name}.d.ts`, import.meta.url), "utf-8");
const members = (thing) => [...Object.getOwnPropertyNames(thing), ...Object.getOwnPropertyNames(Object.getPrototypeOf(thing))];

/** Fields of an interface. */
async function fields(file, name) {
  const body = new RegExp(`interface ${name} [^{]*\\{(.*?)^\\}`, "ms").exec(await declared(file))[1];
  return [...body.matchAll(/^ {4}(\w+)\??:/gm)].map((m) => m[1]);
}

const storage = { load: async () => ({ videos: [], events: [] }), write: async () => undefined, close: async () => undefined };
const rec = await load({ storage });
const types = [...(await declared("index")).matchAll(/\{([^}]*)\}/g)].flatMap((m) => m[1].match(/\w+/g));
const parameters = /rank\(([^)]*?)options/.exec(all.Recommender.prototype.rank.toString())[1].match(/\w+/g);
const names = [
  ...Object.keys(all), ...types,
  ...parameters.map((name, n) => (n ? `rank(…, ${name})` : `rank(${name})`)),
  ...(await fields("recommender", "LoadOptions")).map((name) => `load({ ${name} })`),
  ...(await fields("recommender", "RankOptions")).map((name) => `rank({ ${name} })`),
  ...Object.getOwnPropertyNames(all.Recommender).map((name) => `Recommender.${name}`),
  ...members(rec).map((name) => `rec.${name}`),
  ...members(rec.history).map((name) => `rec.history.${name}`),
  ...members(rec.store).map((name) => `rec.store.${name}`),
  ...Object.getOwnPropertyNames(await rec.rank([], [])).map((name) => `ranking.${name}`),
  ...members(new Ranked(1, "id", 0, "content", new Float32Array(), null)).map((name) => `ranking[i].${name}`),
];
console.log(names.join("\n"));
await rec.close();
