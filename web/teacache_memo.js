// What the pack adds to ComfyUI's page: sentences where one sees them, a video in its place, sockets of different
// colours, and nodes that show what counts.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const OURS = "MEMO_"; // what our nodes' types begin with
const TO_FILE = `${OURS}SamplerToFile`;
const SHOWN_MS = 60_000;
// The checkpoint that comes with the pack, by today's name and those of before (nodes/host/folders.py).
const DEMOS = ["cartoons only: demo, 96x96", "demo: cartoons only, 96x96", "demo (comes with the pack)"];

// Node type -> choice -> the inputs that count with some of its values alone. They are inputs like others (why: ADR
// 0005), folded away while they do not count.
const COUNTS_WITH = {
  [`${OURS}TeaCache`]: { mode: { target_speedup: ["target speed-up"], threshold: ["threshold"] } },
  [`${OURS}Portrait`]: { fit: { margin: ["face"] } },
};

// Our sockets' colours; the page has one for all types that it does not know.
const COLOURS = { MEMO: "#4db6ac", MEMO_PORTRAIT: "#f48fb1", MEMO_VOICE: "#ffb74d", MEMO_REPORT: "#bcaaa4" };

// A palette clears what it does not name, now and whenever another is chosen: where it says nothing, these hold.
function colourSockets() {
  const { canvas } = app;
  for (const colours of [canvas?.constructor.link_type_colors, canvas?.default_connection_color_byType].filter(Boolean))
    for (const [type, ours] of Object.entries(COLOURS)) {
      let palettes = colours[type];
      const set = (colour) => (palettes = colour);
      Object.defineProperty(colours, type, { get: () => palettes || ours, set, enumerable: true, configurable: true });
    }
  const style = document.createElement("style"); // what Nodes 2.0 looks at
  const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
  style.textContent = `:root { ${rules.join(" ")} }`;
  document.head.append(style);
}

function tell(severity, summary, sentence) {
  app.extensionManager?.toast?.add({ severity, summary, detail: sentence, life: SHOWN_MS });
}

// The node of an id in a prompt: `7:12` is node 12 of the subgraph that node 7 is.
function nodeOf(id) {
  let node;
  let graph = app.rootGraph ?? app.graph;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById?.(part);
    graph = node?.subgraph;
  }
  return node;
}

const titleOf = (id) => nodeOf(id)?.title ?? "MEMO";

// The page says only that a node failed; the sentence, which begins with what to do, is behind a click.
function showError({ detail }) {
  if (!detail?.node_type?.startsWith(OURS)) return;
  tell("error", titleOf(detail.node_id), String(detail.exception_message ?? "").trim());
}

// The same for what the server refuses before anything runs: its answer is what the page's own request throws. It
// repeats a node's sentence for each input that the node was asked about.
function showRefusals(node_errors) {
  for (const [id, { class_type, errors }] of Object.entries(node_errors ?? {}))
    if (class_type?.startsWith(OURS)) {
      const sentences = errors.map(({ details, extra_info, message }) => {
        const input = `${extra_info?.input_name} - `; // what the server puts before our sentence
        return details?.startsWith(input) ? details.slice(input.length) : details || message;
      });
      for (const sentence of new Set(sentences)) tell("error", titleOf(id), sentence);
    }
}

// A photograph through the demo is told before it is queued, not by the smear that comes out.
function warnOfPhotos(prompt) {
  const nodes = Object.entries(prompt?.output ?? {});
  const source = ([id]) => prompt.output[id]?.class_type;
  for (const [id, { class_type, inputs }] of nodes) {
    const demo = DEMOS.includes(prompt.output[inputs?.memo?.[0]]?.inputs.checkpoint);
    if (class_type === `${OURS}Portrait` && demo && source(inputs.image ?? []) === "LoadImage")
      tell("warn", titleOf(id), "The demo draws its own cartoons, at 96x96: a photo will smear. Choose MEMO in Load MEMO.");
  }
}

function watchTheQueue() {
  const { queuePrompt } = api;
  api.queuePrompt = async function (number, prompt, ...more) {
    warnOfPhotos(prompt);
    try {
      return await queuePrompt.call(this, number, prompt, ...more);
    } catch (error) {
      showRefusals(error?.response?.node_errors);
      throw error;
    }
  };
}

// The page shows a node's last preview in place of what the node made, for as long as it holds that picture: a node
// that previews its steps and ends with a video would never show the video. So let go of it first.
function dropPreview(nodeType) {
  const { onExecuted, onExecutionStart } = nodeType.prototype;
  nodeType.prototype.onExecuted = function (...output) {
    const previews = app.nodePreviewImages ?? {};
    for (const key of Object.keys(previews)) // a node's id, after that of the subgraph it may be in
      if (key === String(this.id) || key.endsWith(`:${this.id}`)) previews[key] = []; // the page itself forgets the key
    if (output[0]?.images && isNodes2()) queueMicrotask(() => (this.previewMediaType = "video"));
    return onExecuted?.apply(this, output);
  };
  nodeType.prototype.onExecutionStart = function (...given) {
    if (isNodes2()) this.previewMediaType = undefined; // pictures of the steps come first
    return onExecutionStart?.apply(this, given);
  };
}

// Nodes 2.0 shows what a node in a subgraph made on the subgraph, where its `previewExposures` say so, and asks the
// node which kind it is.
const isNodes2 = () => Boolean(globalThis.LiteGraph?.vueNodesMode);

// The same video on the subgraph that the node is in, where the page draws nodes itself: that is what one sees.
function showOnSubgraph({ detail }) {
  const id = String(detail?.display_node ?? detail?.node);
  const outer = id.slice(0, Math.max(0, id.lastIndexOf(":")));
  if (outer && detail.output?.images && nodeOf(id)?.type === TO_FILE)
    api.dispatchCustomEvent("executed", { ...detail, node: outer, display_node: outer });
}

function isLinked(node, name) {
  return node.inputs?.some((input) => input.widget?.name === name && input.link != null);
}

function fold(node, choices) {
  const before = node.computeSize()[1];
  for (const [choice, inputs] of Object.entries(choices)) {
    const { value } = node.widgets?.find(({ name }) => name === choice) ?? {};
    for (const [name, values] of Object.entries(inputs)) {
      const widget = node.widgets?.find((one) => one.name === name);
      if (!widget) continue;
      widget.hidden = !isLinked(node, name) && !isLinked(node, choice) && !values.includes(value);
      if (widget.options) widget.options.hidden = widget.hidden; // what Nodes 2.0 looks at
    }
  }
  return node.computeSize()[1] - before;
}

function foldIdleInputs(nodeType, choices) {
  const resize = (node) => {
    const change = fold(node, choices);
    if (change) node.setSize([node.size[0], node.size[1] + change]);
    node.setDirtyCanvas?.(true, true);
  };
  const after = (name, act) => {
    const inner = nodeType.prototype[name];
    nodeType.prototype[name] = function (...given) {
      const answer = inner?.apply(this, given);
      act(this);
      return answer;
    };
  };
  after("onNodeCreated", (node) => {
    for (const choice of Object.keys(choices)) {
      const widget = node.widgets?.find(({ name }) => name === choice);
      const { callback } = widget ?? {};
      if (widget)
        widget.callback = function (...given) {
          const answer = callback?.apply(this, given);
          resize(node);
          return answer;
        };
    }
    resize(node);
  });
  after("onConfigure", (node) => fold(node, choices)); // its size is the stored one
  after("onConnectionsChange", resize);
}

app.registerExtension({
  name: "teacache-memo.page",
  setup() {
    api.addEventListener("execution_error", showError);
    api.addEventListener("executed", showOnSubgraph);
    watchTheQueue();
    colourSockets();
  },
  beforeRegisterNodeDef(nodeType, { name }) {
    if (name === TO_FILE) dropPreview(nodeType);
    if (name in COUNTS_WITH) foldIdleInputs(nodeType, COUNTS_WITH[name]);
  },
});
