// Uses ComfyUI's real frontend as a person does and says what it showed, as JSON in the file `report`.
//   node frontend.mjs JOB.json
//   JOB: {url, modules: folder with node_modules, chromium, pack, templates: [name], screenshots: folder, report,
//         timeout: ms, settings: {name: value}, run: {templates: [name], changes: {NodeType: {widget: value}}}}
// Every request that leaves this machine is refused and reported.
import { alerts, change, closeDialogs, describe, job, load, openApp, queueAndWait, report, session, showsWhatWasSaved, template } from "./page.mjs";

const BANNER_MS = 5000;
const VIEWS = [{ width: 1366, height: 768 }, { width: 1920, height: 1080 }]; // a common laptop, a common desktop

await session(VIEWS[0], async (page) => {
  report.templates = {};
  report.colours = await page.evaluate(socketColours);
  report.version = await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__);
  for (const size of VIEWS.toReversed()) { // the smaller one last: the rest of the session is in it
    await page.setViewportSize(size);
    await openApp(page); // not every frontend notices at once that its window has shrunk
    for (const name of job.templates) (report.templates[name] ??= { views: [] }).views.push(await view(page, name, size));
  }
  for (const name of job.templates) Object.assign(report.templates[name], await openChangeAndSave(page, name));
  await openApp(page);
  for (const name of job.templates) report.templates[name].reloaded = await openSaved(page, name);
  report.stored = {};
  for (const [name, workflow] of Object.entries(job.stored)) {
    await load(page, workflow, name);
    report.stored[name] = await describe(page);
  }
  for (const name of job.run.templates) {
    const found = (report.templates[name] ??= {});
    found.browsed = await openByTemplateBrowser(page, name);
    found.run = await runAndPlay(page, job.run.changes, `finished ${name}`);
  }
});

// What a person sees of the graph that is open

async function openChangeAndSave(page, name) {
  await template(page, name);
  const found = { opened: await describe(page), alerts: await alerts(page) };
  await closeDialogs(page);
  found.wires = await wires(page);
  await screenshot(page, name);
  found.changed = await changeEveryWidget(page);
  found.saved = await saveByKeyboard(page, `saved ${name}`);
  return found;
}

// What a socket and its wire are drawn in, by type: on the canvas, and where the page draws nodes itself.
function socketColours() {
  const { canvas } = window.app;
  const root = getComputedStyle(document.documentElement);
  const of = (type) => [
    canvas.constructor.link_type_colors[type],
    canvas.default_connection_color_byType[type],
    root.getPropertyValue(`--color-datatype-${type}`).trim(),
  ];
  return Object.fromEntries(["MODEL", "VAE", "IMAGE", "MEMO", "MEMO_PORTRAIT", "MEMO_VOICE", "MEMO_REPORT"].map((type) => [type, of(type)]));
}

// The template opened in the window as it is: how large text is, and where the nodes are in it.
async function view(page, name, size) {
  await template(page, name);
  await page.screenshot({ path: `${job.screenshots}/${name} ${size.width}.png` });
  return page.evaluate((window_) => {
    const { scale, offset } = window.app.canvas.ds;
    const onScreen = ([x, y, width, height]) => [(x + offset[0]) * scale, (y + offset[1]) * scale, width * scale, height * scale];
    return {
      ...window_,
      scale,
      least: window.app.ui.settings.getSettingValue("LiteGraph.Canvas.MinFontSizeForLOD") ?? 8,
      nodes: window.app.graph._nodes.map((node) => [node.title, onScreen(Array.from(node.getBounding()))]),
      notes: [...document.querySelectorAll(".comfy-markdown .tiptap, .comfy-markdown-content")]
        .filter((note) => note.innerText.trim()) // Preview Any shows nothing yet
        .map(lettersOf),
      ...shownChoice(),
    };

    // The smallest letters of a note, in pixels of the screen, and whether all of its text is within it.
    function lettersOf(note) {
      const box = note.getBoundingClientRect();
      const texts = [];
      for (const walker = document.createTreeWalker(note, NodeFilter.SHOW_TEXT); walker.nextNode(); )
        if (walker.currentNode.textContent.trim()) texts.push(walker.currentNode);
      const bottoms = texts.map((text) => {
        const range = document.createRange();
        range.selectNodeContents(text);
        return range.getBoundingClientRect().bottom;
      });
      const sizes = texts.map((text) => parseFloat(getComputedStyle(text.parentElement).fontSize));
      const letters = Math.min(...sizes) * (box.width / note.offsetWidth);
      return { letters, whole: Math.max(...bottoms) <= box.bottom + 1, text: note.innerText };
    }

    // What Load MEMO names and how much of that can be seen, where the page writes it as text.
    function shownChoice() {
      const [choice] = window.app.graph._nodes.find((node) => node.type === "MEMO_Load")?.widgets ?? [];
      const label = [...document.querySelectorAll("[data-node-id] span")].find((span) => span.textContent.trim() === choice?.value);
      return { choice: choice?.value, choiceShare: label ? Math.min(1, label.clientWidth / label.scrollWidth) : null };
    }
  }, size);
}

// Points along every wire, a curve that leaves to the right and arrives from the left.
function wires(page) {
  return page.evaluate(() => {
    const graph = window.app.graph;
    const curve = ([x, y], [endX, endY]) => {
      const reach = 0.25 * Math.hypot(endX - x, endY - y);
      return Array.from({ length: 41 }, (_, step) => {
        const t = step / 40;
        const [a, b, c, d] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3];
        return [a * x + b * (x + reach) + c * (endX - reach) + d * endX, (a + b) * y + (c + d) * endY];
      });
    };
    return graph._nodes.flatMap((target) =>
      (target.inputs ?? []).flatMap((input, slot) => {
        const link = graph.getLink?.(input.link) ?? graph.links[input.link];
        if (!link) return [];
        const source = graph.getNodeById(link.origin_id);
        const path = curve(source.getOutputPos(link.origin_slot), target.getInputPos(slot));
        return [{ name: `${source.title} > ${target.title}.${input.name}`, path }];
      }),
    );
  });
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
  await change(page, changes);
  const ended = await page.evaluate(queueAndWait, job.timeout);
  const found = { ended, red: (await describe(page)).filter((node) => node.red).map((node) => node.type) };
  if (ended[0] === "execution_success") {
    await page.waitForFunction(showsWhatWasSaved, null, { timeout: 20_000 }).catch(() => {});
    found.videos = await page.evaluate(playVideos);
    found.shown = { opened: await describe(page), wires: await wires(page) };
    found.reports = [];
    for (const size of VIEWS.toReversed()) found.reports.push(await shownReport(page, picture, size));
  }
  await screenshot(page, picture);
  found.place = await page.evaluate(() => ({ scale: window.app.canvas.ds.scale, offset: Array.from(window.app.canvas.ds.offset) }));
  return found;
}

// A report's text and its picture where they stand, at the zoom at which the workflow opened: null where there is none.
async function shownReport(page, picture, size) {
  await page.setViewportSize(size);
  await page.waitForTimeout(BANNER_MS); // the host's own, over a corner
  await page.screenshot({ path: `${job.screenshots}/${picture} ${size.width}.png` });
  return page.evaluate(() => {
    const { scale, offset } = window.app.canvas.ds;
    const node = (type) => window.app.graph._nodes.find((each) => each.type === type);
    const [report, preview] = [node("MEMO_TeaCacheReport"), node("PreviewImage")];
    const plain = (text) => text.replace(/\s+/g, " ").trim();
    const isSeen = ({ left, top, right, bottom }, element) =>
      [[left, top], [right, top], [left, bottom], [right, bottom]].every(([x, y]) => {
        const at = document.elementFromPoint(x + (x === left ? 4 : -4), y + (y === top ? 4 : -4));
        return at !== null && (at.id === "graph-canvas" || element?.contains(at) || at.contains(element));
      });
    const textOf = ({ widgets }) => {
      const value = plain(String(widgets.find(({ name }) => name === "$$node-text-preview")?.value));
      const element = [...document.querySelectorAll("span, p, div")].findLast((each) => plain(each.innerText ?? "") === value);
      if (!element) return { value, found: false };
      const cut = [];
      for (let each = element; each && each.id !== "graph-canvas-container"; each = each.parentElement)
        if (each.scrollHeight > each.clientHeight + 2 && getComputedStyle(each).overflowY !== "visible") cut.push(each.className);
      const box = element.getBoundingClientRect();
      const zoom = box.width / element.offsetWidth;
      return { value, found: true, cut, letters: parseFloat(getComputedStyle(element).fontSize) * zoom, seen: isSeen(box, element) };
    };
    const pictureOf = ({ id, imgs, pos, size: [width], widgets }) => {
      const image = document.querySelector(`[data-node-id="${id}"] img`);
      if (image) {
        const box = image.getBoundingClientRect();
        const share = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
        return { share, width: image.naturalWidth, seen: isSeen(box, image) };
      }
      const widget = widgets.find(({ name }) => name === "$$canvas-image-preview");
      const caption = 15; // the picture's size, under it
      const share = scale * Math.min(width / imgs[0].naturalWidth, (widget.computedHeight - caption) / imgs[0].naturalHeight);
      const [left, top] = [(pos[0] + offset[0]) * scale, (pos[1] + widget.y + offset[1]) * scale];
      const box = { left, top, right: left + width * scale, bottom: top + widget.computedHeight * scale };
      return { share, width: imgs[0].naturalWidth, seen: isSeen(box, null) };
    };
    return report && preview ? { scale, width: window.innerWidth, text: textOf(report), picture: pictureOf(preview) } : null;
  });
}

async function playVideos() {
  const play = async (video) => {
    video.muted = true;
    video.loop = false;
    video.currentTime = 0;
    // A loop that was just over sends its "ended" late: the player itself says whether it stands at the end.
    const ended = new Promise((resolve) => {
      video.addEventListener("ended", () => video.ended && resolve());
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
