// Opens the form of a login in Chromium, answers it, and prints what the page says.
// node form.mjs FOLDER CHROMIUM URL, with the answers as JSON on the standard input.
import { readFileSync } from "node:fs";

const [folder, chromium, url] = process.argv.slice(2);
const playwright = await import(`${folder}/node_modules/playwright-core/index.mjs`);
const answers = JSON.parse(readFileSync(0, "utf8"));
const browser = await playwright.chromium.launch({ executablePath: chromium, args: ["--no-sandbox"] });
try {
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  const refused = [];
  page.on("console", (message) => refused.push(message.text()));
  const opened = await page.goto(url);
  const form = await page.innerText("main");
  for (const [name, value] of Object.entries(answers)) await page.fill(`#${name}`, value);
  await Promise.all([page.waitForNavigation(), page.click("button")]);
  const said = await page.innerText("main");
  console.log(JSON.stringify({ status: opened.status(), form, said, url: page.url(), refused }));
} finally {
  await browser.close();
}
