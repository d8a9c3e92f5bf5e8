// What the sessions share: a browser that reaches this machine alone, and what a person sees of the open graph.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

export const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
export const report = { outside: [], pageErrors: [] };

// Runs a session and writes its report, whatever happens.
export async function session(viewport, act) {
  const { chromium } = createRequire(`${job.modules}/package.json`)("playwright-core");
  const browser = await chromium.launch({
    executablePath: job.chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  try {
    const context = await browser.newContext({ viewport });
    context.setDefaultTimeout(job.timeout);
    await context.route("**/*", onlyThisMachine);
    await setting(context, "Comfy.TutorialCompleted", true);
    await setting(context, "Comfy.Workflow.Persist", false); // a new page starts empty, not with the last session
    await setting(context, "Comfy.RightSidePanel.IsOpen", false); // a session before may have left it open
    for (const [name, value] of Object.entries(job.settings)) await setting(context, name, value);
    const page = await context.newPage();
    page.on("pageerror", (error) => report.pageErrors.push(String(error)));
    await openApp(page);
    await act(page);
  } finally {
    await browser.close();
    writeFileSync(job.report, JSON.stringify(report, null, 1));
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

export async function openApp(page) {
  await page.goto(job.url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(
    () =>
      window.app?.graph &&
      window.app.extensionManager?.command &&
      Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100,
  );
  await page.waitForTimeout(1500); // it opens its first workflow after that
}

export function describe(page) {
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

export function alerts(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('[role="dialog"], [role="alert"], .p-toast-message')]
      .map((element) => element.innerText.replace(/\s+/g, " ").trim())
      .filter(Boolean),
  );
}

export async function load(page, workflow, name, options = {}) {
  const given = [workflow, name, options];
  await page.evaluate(([graph, title, how]) => window.app.loadGraphData(graph, true, true, title, how), given);
  await page.waitForFunction((count) => window.app.graph._nodes.length === count, workflow.nodes.length);
  await page.waitForTimeout(1000);
}

export async function closeDialogs(page) {
  for (let tries = 0; tries < 3 && (await page.locator('[role="dialog"]:visible').count()); tries++) {
    await page.keyboard.press("Escape");
    await page.waitForTimeout(300);
  }
}

export async function queueAndWait(timeout) {
  const ended = new Promise((resolve) => {
    for (const name of ["execution_success", "execution_error", "execution_interrupted"])
      window.app.api.addEventListener(name, (event) => resolve([name, event.detail?.exception_message ?? ""]));
    setTimeout(() => resolve(["timeout", `${timeout} ms`]), timeout);
  });
  const queued = await window.app.queuePrompt(0, 1);
  const errors = window.app.lastNodeErrors ?? {}; // older frontends answer false also where there is none
  return queued === false && Object.keys(errors).length ? ["refused", JSON.stringify(errors)] : ended;
}

// The page puts a finished video in the place of the growing one, which is a temporary file, only once it has loaded.
export function showsWhatWasSaved() {
  const videos = [...document.querySelectorAll("video")];
  return videos.length > 0 && videos.every((video) => video.readyState >= 2 && video.currentSrc.includes("type=output"));
}

// A template of the pack, as a tab of its own, opened as the template browser opens it: some frontends fit it into the window.
export async function template(page, name) {
  const answer = await page.request.get(
    `${job.url}/api/workflow_templates/${job.pack}/${encodeURIComponent(name)}.json`,
  );
  await load(page, await answer.json(), name, { openSource: "template" });
}

// Gives widgets these values, {NodeType: {widget: value}}; those on a subgraph are its nodes' own.
export function change(page, values) {
  return page.evaluate((changes) => {
    const shown = Object.assign({}, ...Object.values(changes));
    for (const node of window.app.graph._nodes)
      for (const widget of node.widgets ?? []) {
        const name = widget.name.split(": ").at(-1); // older frontends write `2: steps`
        const value = (node.subgraph ? shown : (changes[node.type] ?? {}))[name];
        if (value === undefined) continue;
        widget.value = value;
        widget.callback?.(value);
      }
  }, values);
}
