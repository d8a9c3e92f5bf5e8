// What the pack adds to ComfyUI's page: an error's sentence where one sees it, and a finished video in its place.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const OURS = "MEMO_"; // what our nodes' types begin with
const SHOWN_MS = 60_000;

// The page says only that a node failed; the sentence, which begins with what to do, is behind a click.
function showError({ detail }) {
  if (!detail?.node_type?.startsWith(OURS)) return;
  const summary = app.graph?.getNodeById?.(detail.node_id)?.title ?? "MEMO";
  const sentence = String(detail.exception_message ?? "").trim();
  app.extensionManager?.toast?.add({ severity: "error", summary, detail: sentence, life: SHOWN_MS });
}

// The page shows a node's last preview in place of what the node made, for as long as it holds that picture: a node
// that previews its steps and ends with a video would never show the video. So let go of it first.
function dropPreview(nodeType) {
  const onExecuted = nodeType.prototype.onExecuted;
  nodeType.prototype.onExecuted = function (...output) {
    const previews = app.nodePreviewImages ?? {};
    for (const key of Object.keys(previews)) // a node's id, after that of the subgraph it may be in
      if (key === String(this.id) || key.endsWith(`:${this.id}`)) delete previews[key];
    return onExecuted?.apply(this, output);
  };
}

app.registerExtension({
  name: "teacache-memo.page",
  setup() {
    api.addEventListener("execution_error", showError);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name === `${OURS}SamplerToFile`) dropPreview(nodeType);
  },
});
