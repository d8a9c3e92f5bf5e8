// The frontend shows a node's last preview picture in place of what the node made, for as long as it holds that
// picture: a node that previews its steps and ends with a video would never show the video. So let go of it first.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "memo.FinishedVideo",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "MEMO_SamplerToFile") return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (...output) {
      const previews = app.nodePreviewImages ?? {};
      for (const key of Object.keys(previews)) // a node's id, after that of the subgraph it may be in
        if (key === String(this.id) || key.endsWith(`:${this.id}`)) delete previews[key];
      return onExecuted?.apply(this, output);
    };
  },
});
