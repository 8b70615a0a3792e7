// One pair of models: its numbers, its layers, and what they find near to some samples.

const unpacked = new Map();

// What returns the scores of some layer pairs of a metric, unpacked once: 16-bit steps, high bytes first.
async function cellsOf(at) {
  if (!unpacked.has(at)) unpacked.set(at, unpack(data.metrics[at].cells));
  return unpacked.get(at);
}

async function unpack(packed) {
  if (packed === null) return null;
  const bytes = bytesOf(packed.bytes);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  return (start, size) => Array.from({ length: size }, (_, at) => {
    const step = planes[start + at] * 256 + planes[count + start + at];
    return step === 0xffff ? NaN : packed.low + step * packed.step;
  });
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) bytes[at] = letters.charCodeAt(at);
  return bytes;
}

// Pairs lie one after the other, each with its layers row by row.
function offsetsOf(pairs) {
  if (!pairs.offsets) {
    let at = 0;
    pairs.offsets = pairs.x.map((x, row) => {
      const start = at;
      at += models[x].layers.length * models[pairs.y[row]].layers.length;
      return start;
    });
  }
  return pairs.offsets;
}

async function showPair(at, go) {
  state.pair = at;
  const pairs = metric().pairs, [x, y] = [pairs.x[at], pairs.y[at]];
  $("pair-title").replaceChildren(name(x), " – ", name(y));
  const facts = [
    [metric().distance ? "smallest distance" : "best score", number(pairs.score[at], 4)],
    ["layer of " + models[x].name, layerName(x, pairs.layer_x[at])],
    ["layer of " + models[y].name, layerName(y, pairs.layer_y[at])],
    ["chance, one layer pair", pairs.chance[at] === null ? null : number(pairs.chance[at], 4)],
    ["threshold under permutation", pairs.null_threshold[at] === null ? null : number(pairs.null_threshold[at], 4)],
    ["calibrated", pairs.calibrated[at] === null ? null : number(pairs.calibrated[at])],
    ["p", pairs.p[at] === null ? null : number(pairs.p[at], 4)],
    ["q, over all pairs", pairs.q[at] === null ? null : number(pairs.q[at], 4)],
    ["interval", pairs.low[at] === null ? null : `${number(pairs.low[at], 4)} to ${number(pairs.high[at], 4)}`],
    ["on the samples that chose the layers", pairs.selection_score[at] === null ? null : number(pairs.selection_score[at], 4)],
    ["status", pairs.status[at]],
  ];
  $("pair-body").replaceChildren(h("dl", { class: "panel numbers" },
    ...facts.filter(([, value]) => value !== null).map(([label, value]) => h("div", {}, h("dt", {}, h("bdi", {}, label)), h("dd", {}, h("bdi", {}, value))))));
  const cells = await cellsOf(state.metric);
  if (state.pair !== at) return;
  const size = models[x].layers.length * models[y].layers.length;
  const figure = $("map-figure"), table = $("map-table");
  if (cells === null) {
    figure.hidden = table.hidden = true;
    $("pair-body").append(h("p", { class: "hint" }, "The layer map is not in this page, which would be too large with it; it is in scores.parquet."));
  } else {
    figure.hidden = table.hidden = false;
    const start = offsetsOf(pairs)[at];
    const scores = cells(start, size);
    const best = pairs.layer_x[at] === null ? null : [pairs.layer_x[at], pairs.layer_y[at]];
    renderMap(x, y, scores, best);
    $("map-caption").replaceChildren(`${size.toLocaleString("en")} layer pairs: layers of `, name(x), " down, of ", name(y), " across; the framed one is the score of the pair.");
    fillMapTable(x, y, scores);
  }
  renderNeighbors(at);
  markChosen(); renderPairs(); renderRing(); renderGrowth();
  if (go) { $("pair").scrollIntoView(); $("pair-title").focus({ preventScroll: true }); }
}

function fillMapTable(x, y, scores) {
  const table = $("map-table"), columns = models[y].layers;
  const fill = () => {
    if (!table.open) return;
    const head = h("tr", {}, h("td"), ...columns.map((layer) => h("th", { scope: "col", class: "n" }, h("bdi", {}, layer))));
    const rows = models[x].layers.map((layer, i) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, layer)),
      ...columns.map((_, j) => { const score = scores[i * columns.length + j]; return h("td", { class: "n" }, number(Number.isNaN(score) ? null : score, 4)); })));
    table.querySelector(".scroll").replaceChildren(h("table", { class: "plain" }, h("thead", {}, head), h("tbody", {}, ...rows)));
  };
  table.ontoggle = fill;
  fill();
}

// Some samples, and what the best layer of each model finds near to them; what both find is marked.
const FIRST = 4;

function renderNeighbors(at) {
  const pairs = metric().pairs, { samples, lists } = data.examples;
  const sides = [[pairs.x[at], pairs.layer_x[at]], [pairs.y[at], pairs.layer_y[at]]];
  const found = sides.map(([model, layer]) => lists[`${model}:${layer}`]);
  const box = $("neighbors");
  box.replaceChildren();
  if (!samples.length || found.some((list) => list === undefined) || pairs.x[at] === pairs.y[at]) return;
  box.append(h("h3", {}, "Example neighbors"),
    h("p", { class: "hint" }, "A seeded draw of samples, and what is nearest to each in the layer that was best; green is near in both."));
  const examples = samples.map((sample, i) => example(sample, sides, found.map((list) => list[i])));
  box.append(...examples.slice(0, FIRST));
  if (examples.length > FIRST) box.append(h("details", {}, h("summary", {}, `${examples.length - FIRST} more examples`), ...examples.slice(FIRST)));
}

function example(sample, sides, near) {
  const both = new Set(near[0].filter((other) => near[1].includes(other)));
  // A text is that of the view that the model reads, else that of the other model's.
  const views = sides.map(([model]) => models[model].view);
  const rows = sides.map(([model, layer], side) => [
    h("h4", {}, name(model), ", ", h("bdi", {}, layerName(model, layer)), `: ${both.size} of ${near[side].length} shared`),
    h("ul", { class: "row" }, ...near[side].map((other) => h("li", { class: both.has(other) ? "both" : null }, ...look(other, views[side], views[1 - side]), both.has(other) ? h("span", { class: "unseen" }, " (in both)") : null))),
  ]);
  return h("div", { class: "example" }, h("div", { class: "query" }, ...look(sample, ...views)), h("div", {}, ...rows.flat()));
}

function look(sample, ...views) {
  const shown = data.examples.shown[sample] || { id: String(sample), texts: {}, image: null };
  const texts = [...views.map((view) => shown.texts[view]), ...Object.values(shown.texts)].filter((text) => text !== undefined);
  const text = texts[0] ?? shown.id;
  return [shown.image ? h("img", { src: shown.image, alt: "", loading: "lazy" }) : null, h("bdi", { title: [...new Set(texts)].join(" · ") }, text)];
}
