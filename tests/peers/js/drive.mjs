// Pages of headless Chromium, driven line by line: {"page", "call", "arguments"} in, {"answer"} or {"error"} out.
import { chromium } from "playwright-core";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { join, normalize } from "node:path";

const folder = process.argv[2];
const types = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
const server = createServer(async (request, response) => {
  const name = normalize(new URL(request.url, "http://x").pathname).replace(/^\/+/, "") || "index.html";
  try {
    const body = await readFile(join(folder, name));
    response.writeHead(200, { "content-type": types[name.split(".").pop()] ?? "application/octet-stream" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const home = `http://localhost:${server.address().port}/`;
const browser = await chromium.launch({
  executablePath: process.argv[3],
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const pages = new Map();

async function page(name) {
  if (!pages.has(name)) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const opened = await context.newPage();
    if (process.env.HANSA_PAGE_LOG) opened.on("console", (m) => console.error(`${name}: ${m.text()}`));
    await opened.goto(home);
    await opened.waitForFunction(() => window.act !== undefined);
    pages.set(name, opened);
  }
  return pages.get(name);
}

console.log(JSON.stringify({ answer: "ready" }));
for await (const line of createInterface({ input: process.stdin })) {
  const { page: name, call, arguments: given } = JSON.parse(line);
  try {
    const opened = await page(name);
    const answer = await opened.evaluate(([what, args]) => window.act[what](...args), [call, given]);
    console.log(JSON.stringify({ answer: answer ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message ?? error) }));
  }
}
await browser.close();
server.close();
