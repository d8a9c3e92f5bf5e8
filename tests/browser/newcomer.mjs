// What somebody does in the first hour, with the host's default settings: the short way to a video, the mistakes one
// makes, a stop, a video dropped back. Reports what the page said.
//   node newcomer.mjs JOB.json     (as frontend.mjs; run.changes are made to templates before they are run)
import { change, closeDialogs, describe, job, load, report, session, showsWhatWasSaved, template } from "./page.mjs";

const [FIRST, LONG, REAL] = ["1", "4", "5"].map((number) => job.templates.find((name) => name.startsWith(number)));

await session({ width: 1366, height: 768 }, async (page) => {
  report.newcomer = {};
  const steps = { fourActions, droppedBack, fold, ownPhoto, wrongVae, damagedFile, silence, typo, cropPastedBack, missingWeights, stopAndGoOn, toFileDroppedBack: droppedBack, oneNode };
  if (await page.getByRole("button", { name: "Enter app mode" }).count()) steps.app = app;
  steps.help = help; // last: its panel stays open
  for (const [name, step] of Object.entries(steps)) {
    try {
      report.newcomer[name] = await step(page);
    } catch (error) {
      report.newcomer[name] = { failed: String(error) };
    }
    await page.screenshot({ path: `${job.screenshots}/newcomer ${name}.png` });
    await page.evaluate(stopAll);
    await closeDialogs(page);
    await page.locator(".p-toast-close-button").evaluateAll((buttons) => buttons.forEach((button) => button.click()));
    await page.waitForTimeout(500);
  }
});

// So that nothing of one step is heard in the next.
async function stopAll() {
  const running = async () => (await (await fetch("/queue")).json()).queue_running.length;
  await window.app.api.interrupt();
  while (await running()) await new Promise((resolve) => setTimeout(resolve, 200));
}

// Videos in the page, once there is one.
async function playing(page) {
  await page.waitForSelector("video", { timeout: 20_000 }).catch(() => {});
  return page.locator("video").count();
}

async function openTemplates(page) {
  await page.getByRole("button", { name: "Templates", exact: true }).first().click();
  const dialog = page.locator('[role="dialog"]').last();
  await dialog.getByText(job.pack, { exact: true }).first().click();
  return dialog;
}

function run(page) {
  return page.getByRole("button", { name: "Run", exact: true }).first().click();
}

// Listens until `done` says so of what was heard: texts on nodes, toasts, steps computed, how the run ended.
async function listen(page, act, done = (heard) => heard.ended) {
  await page.evaluate(() => {
    const heard = (window.heard = { steps: 0, stepsBeforeToast: null, stepsBeforeText: {}, videos: [], ended: null });
    const toasted = new MutationObserver(() => {
      if (!document.querySelector(".p-toast-message")) return;
      heard.stepsBeforeToast = heard.steps;
      toasted.disconnect();
    });
    toasted.observe(document.body, { childList: true, subtree: true });
    const api = window.app.api;
    const on = (name, act_) => api.addEventListener(name, (event) => window.heard === heard && act_(event.detail));
    const typeOf = (id) => window.app.graph.getNodeById(id)?.type;
    const isSampler = (id) => typeOf(id)?.startsWith("MEMO_Sampler");
    on("progress_text", ({ nodeId }) => (heard.stepsBeforeText[typeOf(nodeId)] ??= heard.steps));
    on("progress", ({ node }) => (heard.steps += isSampler(node) ? 1 : 0));
    on("executed", (detail) => heard.videos.push(...(detail.output?.images ?? []).map((image) => image.filename)));
    for (const name of ["execution_success", "execution_error", "execution_interrupted"]) on(name, () => (heard.ended = name));
  });
  await act();
  const until = Date.now() + job.timeout;
  let heard;
  do {
    await page.waitForTimeout(200);
    heard = await page.evaluate(() => ({
      ...window.heard,
      refused: Object.keys(window.app.lastNodeErrors ?? {}).length > 0,
      toasts: [...document.querySelectorAll(".p-toast-message")].map((toast) => toast.innerText.replace(/\s+/g, " ").trim()),
      texts: window.app.graph._nodes.flatMap((node) =>
        (node.widgets ?? []).filter(({ name }) => name === "$$node-text-preview").map((widget) => [node.type, widget.value]),
      ),
    }));
  } while (!done(heard) && Date.now() < until);
  return heard;
}

// Templates, the pack, the card, Run.
async function fourActions(page) {
  const dialog = await openTemplates(page);
  await dialog.getByText(FIRST, { exact: true }).first().click();
  await dialog.waitFor({ state: "hidden" });
  await page.waitForTimeout(1000);
  await change(page, job.run.changes); // a shorter voice, fewer steps: seconds in place of minutes
  const heard = await listen(page, () => run(page));
  return { ...heard, playing: await playing(page) };
}

// The saved video into an empty window.
async function droppedBack(page) {
  const before = await describe(page);
  const name = await page.evaluate(() => window.heard.videos.findLast((file) => file.endsWith(".mp4")));
  await page.evaluate(async (filename) => {
    window.app.graph.clear();
    const answer = await fetch(`/view?filename=${encodeURIComponent(filename)}&subfolder=video&type=output`);
    const data = new DataTransfer();
    data.items.add(new File([await answer.blob()], filename, { type: "video/mp4" }));
    const options = { dataTransfer: data, bubbles: true, cancelable: true, clientX: 700, clientY: 600 };
    const canvas = document.querySelector("#graph-canvas");
    for (const kind of ["dragenter", "dragover", "drop"]) canvas.dispatchEvent(new DragEvent(kind, options));
  }, name);
  await page.waitForFunction((count) => window.app.graph._nodes.length >= count, before.length, { timeout: 20_000 });
  await page.waitForTimeout(1000);
  return { name, before, after: await describe(page) };
}

async function fold(page) {
  await template(page, job.templates.find((name) => name.startsWith("2")));
  const found = {};
  for (const mode of ["target speed-up", "threshold", "calibrate"]) {
    await change(page, { MEMO_TeaCache: { mode } });
    found[mode] = await page.evaluate(() =>
      window.app.graph._nodes
        .filter((node) => ["MEMO_TeaCache", "MEMO_Portrait"].includes(node.type))
        .flatMap((node) => node.widgets.filter((widget) => !widget.hidden).map((widget) => widget.name)),
    );
  }
  return found;
}

// A node in front of an input of template 1, or of another.
async function withNode(page, [type, values, slot], [target, input], name = FIRST) {
  await template(page, name);
  await change(page, job.run.changes);
  await page.evaluate(
    ([kind, widgets, output, to, socket]) => {
      const graph = window.app.graph;
      const node = window.LiteGraph.createNode(kind);
      graph.add(node);
      node.pos = [300, 900];
      for (const widget of node.widgets) if (widget.name in widgets) widget.value = widgets[widget.name];
      node.connect(output, graph._nodes.find((each) => each.type === to), socket);
    },
    [type, values, slot, target, input],
  );
}

async function ownPhoto(page) {
  await withNode(page, ["LoadImage", { image: "portrait.png" }, 0], ["MEMO_Portrait", "image"]);
  return listen(page, () => run(page), ({ toasts }) => toasts.length > 0);
}

async function wrongVae(page) {
  await withNode(page, ["VAELoader", { vae_name: "pixel_space" }, 0], ["MEMO_Load", "vae"]);
  return listen(page, () => run(page), ({ ended, toasts }) => ended && toasts.length);
}

async function damagedFile(page) {
  await withNode(page, ["VAELoader", { vae_name: "pixel_space" }, 0], ["MEMO_Load", "vae"]);
  await change(page, { MEMO_Load: { checkpoint: "damaged.safetensors" } });
  return listen(page, () => run(page), ({ toasts }) => toasts.length > 0);
}

async function silence(page) {
  await withNode(page, ["LoadAudio", { audio: "silence.wav" }, 0], ["MEMO_Voice", "audio"]);
  return listen(page, () => run(page), ({ ended, texts }) => ended || texts.some(([type]) => type === "MEMO_Voice"));
}

async function typo(page) {
  await template(page, FIRST);
  await change(page, { MEMO_Voice: { emotions: "0 happy, 1 hapy" } });
  return listen(page, () => run(page), ({ toasts }) => toasts.length > 0);
}

async function cropPastedBack(page) {
  await template(page, LONG);
  await change(page, job.run.changes);
  await change(page, { MEMO_SamplerToFile: { paste_back: true } });
  return listen(page, () => run(page), ({ ended, toasts }) => ended && toasts.length);
}

async function missingWeights(page) {
  await template(page, REAL);
  await change(page, { LoadAudio: { audio: "voice.wav" } });
  return listen(page, () => run(page), ({ toasts }) => toasts.length > 0);
}

async function stopAndGoOn(page) {
  await template(page, LONG);
  await change(page, { MEMO_Voice: { duration: 2 }, MEMO_SamplerToFile: { steps: 16, seed: 4242 } });
  const growing = await listen(page, () => run(page), ({ ended, videos }) => ended || videos.length > 1);
  const told = ([type, text]) => type === "MEMO_SamplerToFile" && text.startsWith("Stopped");
  const stopped = await listen(
    page,
    () => page.getByRole("button", { name: "Cancel current run" }).first().click(),
    ({ ended, texts }) => ended && texts.some(told),
  );
  const shown = await playing(page); // what was finished stays on the node
  await page.screenshot({ path: `${job.screenshots}/newcomer growing.png` });
  const went = await listen(page, () => run(page));
  return { growing: { ...growing, playing: shown }, stopped, went };
}

// Double-click, the name, Enter; a picture and a sound; Run.
async function oneNode(page) {
  await load(page, { last_node_id: 0, last_link_id: 0, nodes: [], links: [], version: 0.4 }, "empty");
  await page.mouse.dblclick(760, 330);
  await page.waitForFunction(() => document.activeElement?.tagName === "INPUT"); // else the keys are the canvas's
  await page.keyboard.type(job.blueprint, { delay: 20 });
  await page.waitForTimeout(2500);
  await page.keyboard.press("Enter");
  await page.waitForTimeout(800);
  await page.mouse.click(760, 130); // where it is to be, in frontends that ask
  await page.waitForFunction(() => window.app.graph._nodes.length === 1);
  await page.evaluate(() => {
    const graph = window.app.graph;
    const [one] = graph._nodes;
    const add = (type, name, file, y) => {
      const node = window.LiteGraph.createNode(type);
      graph.add(node);
      node.pos = [one.pos[0] - 400, one.pos[1] + y];
      node.widgets.find((widget) => widget.name === name).value = file;
      node.connect(0, one, name);
    };
    add("LoadImage", "image", "portrait.png", 0);
    add("LoadAudio", "audio", "voice.wav", 380);
  });
  await change(page, { any: { duration: 0.6 } });
  const heard = await listen(page, () => run(page));
  await page.waitForFunction(showsWhatWasSaved, null, { timeout: 20_000 }).catch(() => {});
  return { ...heard, nodes: await describe(page), shown: await videos(page) };
}

// Every video in the page: whether it is whole, and whether it is in sight.
function videos(page) {
  return page.evaluate(() =>
    Promise.all(
      [...document.querySelectorAll("video")].map(async (video) => {
        for (let tries = 0; tries < 50 && video.readyState < 2; tries++) await new Promise((resolve) => setTimeout(resolve, 100));
        const { left, top, width, height } = video.getBoundingClientRect();
        return {
          source: video.currentSrc,
          duration: video.duration || 0,
          error: video.error?.message ?? null,
          seen: width > 50 && height > 50 && Boolean(document.elementFromPoint(left + width / 2, top + height / 2)?.contains(video)),
          node: video.closest("[data-node-id]")?.dataset.nodeId ?? null,
        };
      }),
    ),
  );
}

// The help panel of every node: how wide it is, and how wide its page would like to be.
async function help(page) {
  await load(page, { last_node_id: 0, last_link_id: 0, nodes: [], links: [], version: 0.4 }, "empty");
  const pages = {};
  const types = await page.evaluate(() => Object.keys(window.LiteGraph.registered_node_types));
  for (const type of types.filter((name) => name.startsWith("MEMO_"))) {
    const title = await page.evaluate((kind) => {
      const { graph, canvas } = window.app;
      graph.clear();
      const node = window.LiteGraph.createNode(kind);
      graph.add(node);
      node.pos = [500, 200];
      canvas.ds.reset();
      canvas.selectItems([node]);
      return node.title;
    }, type);
    await page.getByTestId("info-button").first().click({ timeout: 20_000 });
    const panel = page.locator(".node-help-content").filter({ has: page.getByRole("heading", { name: title, exact: true }) });
    await panel.waitFor({ timeout: 20_000 });
    pages[type] = await panel.evaluate(({ clientWidth, scrollWidth }) => ({ width: clientWidth, wanted: scrollWidth }));
  }
  return pages;
}

// The App filter of the template browser, the card, Run.
async function app(page) {
  const dialog = await openTemplates(page);
  await dialog.getByRole("button", { name: "App", exact: true }).click();
  await page.waitForTimeout(1000);
  const cards = await Promise.all(job.apps.map((name) => dialog.getByText(name, { exact: true }).count()));
  await page.screenshot({ path: `${job.screenshots}/newcomer apps.png` });
  await dialog.getByText(job.apps[0], { exact: true }).first().click();
  const tour = page.getByRole("button", { name: "Skip", exact: true }); // the host's own, for newcomers
  await tour.first().click({ timeout: 10_000 }).catch(() => {});
  const asks = await page.locator("[data-testid=widget-select-default-trigger]").evaluateAll((fields) => {
    const seen = ({ left, top, width, height }) => document.elementFromPoint(left + width / 2, top + height / 2);
    return fields.filter((field) => field.contains(seen(field.getBoundingClientRect()))).map((field) => field.ariaLabel);
  }); // Nodes 2.0 has the graph's own fields behind the app
  await change(page, job.run.changes);
  const heard = await listen(page, () => page.getByRole("button", { name: "Run", exact: true }).last().click());
  return { ...heard, cards, asks, playing: await playing(page) };
}
