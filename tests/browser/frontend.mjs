// Uses ComfyUI's real frontend as a person does and says what it showed, as JSON in the file `report`.
//   node frontend.mjs JOB.json
//   JOB: {url, modules: folder with node_modules, chromium, pack, templates: [name], screenshots: folder, report,
//         timeout: ms, settings: {name: value}, run: {templates: [name], changes: {NodeType: {widget: value}}}}
// Every request that leaves this machine is refused and reported.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const VIEW = { width: 1366, height: 768 }; // a common laptop: what can be read here can be read anywhere

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = createRequire(`${job.modules}/package.json`)("playwright-core");
const report = { outside: [], pageErrors: [], templates: {} };

const browser = await chromium.launch({
  executablePath: job.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  await main();
} finally {
  await browser.close();
  writeFileSync(job.report, JSON.stringify(report, null, 1));
}

async function main() {
  const context = await browser.newContext({ viewport: VIEW });
  context.setDefaultTimeout(job.timeout);
  await context.route("**/*", onlyThisMachine);
  await setting(context, "Comfy.TutorialCompleted", true);
  await setting(context, "Comfy.Workflow.Persist", false); // a new page starts empty, not with the last session
  for (const [name, value] of Object.entries(job.settings)) await setting(context, name, value);
  const page = await context.newPage();
  page.on("pageerror", (error) => report.pageErrors.push(String(error)));
  await openApp(page);
  report.version = await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__);
  for (const name of job.templates) report.templates[name] = await openChangeAndSave(page, name);
  await openApp(page);
  for (const name of job.templates) report.templates[name].reloaded = await openSaved(page, name);
  for (const name of job.run.templates) {
    report.templates[name].browsed = await openByTemplateBrowser(page, name);
    report.templates[name].run = await runAndPlay(page, job.run.changes, `finished ${name}`);
  }
}

function onlyThisMachine(route) {
  const url = new URL(route.request().url());
  if (["127.0.0.1", "localhost"].includes(url.hostname) || ["data:", "blob:"].includes(url.protocol))
    return route.continue();
  report.outside.push(url.origin);
  return route.abort();
}

function setting(context, name, value) {
  return context.request.post(`${job.url}/settings/${name}`, {
    data: JSON.stringify(value),
    headers: { "content-type": "application/json" },
  });
}

async function openApp(page) {
  await page.goto(job.url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(
    () =>
      window.app?.graph &&
      window.app.extensionManager?.command &&
      Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100,
  );
  await page.waitForTimeout(1500); // it opens its first workflow after that
}

// What a person sees of the graph that is open

function describe(page) {
  return page.evaluate(() => {
    const plain = (value) => (typeof value === "object" ? String(value) : (value ?? "undefined"));
    return window.app.graph._nodes.map((node) => ({
      id: node.id,
      type: node.type,
      title: node.title,
      known: node.type in window.LiteGraph.registered_node_types || ["Note", "MarkdownNote"].includes(node.type),
      red: Boolean(node.has_errors),
      bounding: Array.from(node.getBounding()),
      widgets: Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, plain(widget.value)])),
    }));
  });
}

function alerts(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('[role="dialog"], [role="alert"], .p-toast-message')]
      .map((element) => element.innerText.replace(/\s+/g, " ").trim())
      .filter(Boolean),
  );
}

async function load(page, workflow, name) {
  await page.evaluate(([graph, title]) => window.app.loadGraphData(graph, true, true, title, {}), [workflow, name]);
  await page.waitForFunction((count) => window.app.graph._nodes.length === count, workflow.nodes.length);
  await page.waitForTimeout(1000);
}

async function openChangeAndSave(page, name) {
  const answer = await page.request.get(
    `${job.url}/api/workflow_templates/${job.pack}/${encodeURIComponent(name)}.json`,
  );
  await load(page, await answer.json(), name);
  const found = { opened: await describe(page), alerts: await alerts(page) };
  await closeDialogs(page);
  await screenshot(page, name);
  found.view = await page.evaluate(() => ({
    scale: window.app.canvas.ds.scale,
    least: window.app.ui.settings.getSettingValue("LiteGraph.Canvas.MinFontSizeForLOD") ?? 8,
  }));
  found.changed = await changeEveryWidget(page);
  found.saved = await saveByKeyboard(page, `saved ${name}`);
  return found;
}

// What the server has under this name, or null

async function saved(page, name) {
  const answer = await page.request.get(`${job.url}/api/userdata/${encodeURIComponent(`workflows/${name}.json`)}`);
  return answer.ok() ? answer.json() : null;
}

async function openSaved(page, name) {
  const workflow = await saved(page, `saved ${name}`);
  if (!workflow) return [];
  await load(page, workflow, `saved ${name}`);
  const found = await describe(page);
  await closeDialogs(page);
  return found;
}

// Every number one step on, every switch turned, every choice the next one; what the nodes hold then.
async function changeEveryWidget(page) {
  await page.evaluate(() => {
    const next = (widget) => {
      const options = widget.options?.values;
      if (Array.isArray(options) && options.length > 1)
        return options[(options.indexOf(widget.value) + 1) % options.length];
      if (typeof widget.value === "number") return widget.value + (widget.options?.step2 || 1);
      return typeof widget.value === "boolean" ? !widget.value : widget.value;
    };
    for (const node of window.app.graph._nodes)
      for (const widget of node.widgets ?? []) if (widget.type !== "button") widget.value = next(widget);
  });
  return describe(page);
}

async function saveByKeyboard(page, name) {
  await page.locator("#graph-canvas").first().focus();
  await page.keyboard.press("Control+s");
  const field = page.locator('[role="dialog"] input[type="text"], [role="dialog"] input:not([type])').first();
  await field.fill(name);
  await field.press("Enter");
  for (let tries = 0; tries < 100 && !(await saved(page, name)); tries++) await page.waitForTimeout(200);
  return name;
}

async function closeDialogs(page) {
  for (let tries = 0; tries < 3 && (await page.locator('[role="dialog"]:visible').count()); tries++) {
    await page.keyboard.press("Escape");
    await page.waitForTimeout(300);
  }
}

async function screenshot(page, name) {
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  await page.waitForTimeout(1000);
  await page.screenshot({ path: `${job.screenshots}/${name}.png` });
}

// Templates > this pack > the card

async function openByTemplateBrowser(page, name) {
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
  const dialog = page.locator('[role="dialog"]').last();
  await dialog.getByText(job.pack, { exact: true }).first().click();
  const card = dialog.getByText(name, { exact: true }).first();
  await card.waitFor();
  await page.waitForTimeout(1500);
  const thumbnails = await page.evaluate(() =>
    [...document.querySelectorAll('[role="dialog"] img')].map((image) => ({
      width: image.naturalWidth,
      height: image.naturalHeight,
    })),
  );
  await page.screenshot({ path: `${job.screenshots}/templates.png` });
  await card.click();
  await dialog.waitFor({ state: "hidden" });
  await page.waitForTimeout(1000);
  return { thumbnails, opened: await describe(page) };
}

// Queue what is open, and play what came out

async function runAndPlay(page, changes, picture) {
  await page.evaluate((values) => {
    for (const node of window.app.graph._nodes)
      for (const widget of node.widgets ?? [])
        if (widget.name in (values[node.type] ?? {})) widget.value = values[node.type][widget.name];
  }, changes);
  const ended = await page.evaluate(queueAndWait, job.timeout);
  const found = { ended, red: (await describe(page)).filter((node) => node.red).map((node) => node.type) };
  if (ended[0] === "execution_success") {
    await page.waitForFunction(() => document.querySelector("video")?.readyState >= 2, null, { timeout: 20_000 }).catch(() => {});
    found.videos = await page.evaluate(playVideos);
  }
  await screenshot(page, picture);
  return found;
}

async function queueAndWait(timeout) {
  const ended = new Promise((resolve) => {
    for (const name of ["execution_success", "execution_error", "execution_interrupted"])
      window.app.api.addEventListener(name, (event) => resolve([name, event.detail?.exception_message ?? ""]));
    setTimeout(() => resolve(["timeout", `${timeout} ms`]), timeout);
  });
  const queued = await window.app.queuePrompt(0, 1);
  const errors = window.app.lastNodeErrors ?? {}; // older frontends answer false also where there is none
  return queued === false && Object.keys(errors).length ? ["refused", JSON.stringify(errors)] : ended;
}

async function playVideos() {
  const play = async (video) => {
    video.muted = true;
    video.loop = false;
    video.currentTime = 0;
    const ended = new Promise((resolve) => {
      video.addEventListener("ended", resolve);
      setTimeout(resolve, 1000 * video.duration + 10_000);
    });
    await video.play();
    await ended;
    return {
      source: video.currentSrc,
      duration: video.duration,
      width: video.videoWidth,
      height: video.videoHeight,
      played: video.currentTime,
      frames: video.getVideoPlaybackQuality().totalVideoFrames,
      error: video.error?.message ?? null,
    };
  };
  return Promise.all([...document.querySelectorAll("video")].map(play));
}
