// Opens a page in Chromium and calls its functions: each line of the standard input is a JSON array of the name of a
// function of the page and its arguments, and each line of the standard output is its result, or { "error": "…" }.
//
//   node drive.mjs PAGE.js [FILE.proto …]
//
// The page finds protobuf.js in `protobuf`, and the text of the proto files in `protos`.
import { execSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [page_script, ...protos] = process.argv.slice(2);
const origin = 'http://localhost:9';
const browser = await chromium.launch({
  executablePath: execSync('command -v chromium', { encoding: 'utf8' }).trim(),
  args: [
    '--no-sandbox',
    // Chromium hides the addresses of a page without permission to use a microphone, and refuses connections from a
    // page to the loopback interface.
    '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns,LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,' +
      'BlockInsecurePrivateNetworkRequests',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
  ],
});
const context = await browser.newContext();
await context.grantPermissions(['microphone'], { origin });
const page = await context.newPage();
page.on('console', message => console.error('page:', message.text()));
page.on('pageerror', error => console.error('page:', error.message));
await page.route(`${origin}/**`, route => route.fulfill({ contentType: 'text/html', body: '<!doctype html>' }));
await page.goto(origin);
await page.addScriptTag({ path: 'node_modules/protobufjs/dist/protobuf.min.js' });
await page.evaluate(texts => { window.protos = texts; }, protos.map(path => readFileSync(path, 'utf8')));
await page.addScriptTag({ path: page_script });

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  let result;
  try {
    result = await page.evaluate(([name, args]) => window[name](...args), [name, args]);
  } catch (error) {
    result = { error: error.message };
  }
  console.log(JSON.stringify(result ?? null));
}
await browser.close();
