// All pairs of models as a list: sort, search, a page at a time.

const PAGE = 60;
const pairsState = { sort: "score", down: true, find: "", count: PAGE };
const COLUMNS = [
  ["x", "model"], ["layer_x", "its layer"], ["y", "model"], ["layer_y", "its layer"], ["score", "score"],
  ["calibrated", "calibrated"], ["null_threshold", "threshold"], ["p", "p"], ["q", "q"], ["low", "interval"], ["status", "status"],
];

function pairText(column, at) {
  const pairs = metric().pairs;
  if (column === "x" || column === "y") return models[pairs[column][at]].name;
  if (column === "layer_x") return layerName(pairs.x[at], pairs.layer_x[at]);
  if (column === "layer_y") return layerName(pairs.y[at], pairs.layer_y[at]);
  if (column === "low") return pairs.low[at] === null ? "–" : `${number(pairs.low[at])} to ${number(pairs.high[at])}`;
  if (column === "status") return pairs.status[at] || "";
  return number(pairs[column][at], column === "p" || column === "q" ? 4 : 3);
}

function pairKey(column, at) {
  const pairs = metric().pairs;
  return ["x", "y", "layer_x", "layer_y", "status"].includes(column) ? pairText(column, at) : pairs[column][at];
}

function renderPairs() {
  const pairs = metric().pairs;
  const columns = COLUMNS.filter(([column]) => ["x", "y", "layer_x", "layer_y", "score"].includes(column) || pairs[column].some((value) => value !== null));
  const wanted = pairsState.find.trim().toLowerCase();
  let rows = pairs.x.map((_, at) => at).filter((at) => pairs.x[at] !== pairs.y[at]);
  const all = rows.length;
  if (wanted) rows = rows.filter((at) => ["x", "y", "layer_x", "layer_y", "status"].some((column) => pairText(column, at).toLowerCase().includes(wanted)));
  const sign = pairsState.down ? -1 : 1;
  const keys = new Map(rows.map((at) => [at, pairKey(pairsState.sort, at)]));
  rows.sort((a, b) => {
    const [p, q] = [keys.get(a), keys.get(b)];
    if (p === null || q === null) return (p === null) - (q === null);
    return sign * (typeof p === "string" ? p.localeCompare(q) : p - q);
  });
  announce("found-pairs", `${rows.length.toLocaleString("en")} of ${all.toLocaleString("en")} pairs`);
  const heads = columns.map(([column, label]) => {
    const sorted = pairsState.sort === column;
    const choose = () => {
      Object.assign(pairsState, { sort: column, down: sorted ? !pairsState.down : !["x", "y", "layer_x", "layer_y", "p", "q"].includes(column) });
      renderPairs();
      $("pairs-table").querySelector(`th[data-column="${column}"] button`).focus();
    };
    const arrow = sorted ? (pairsState.down ? " ↓" : " ↑") : "";
    return h("th", { scope: "col", "data-column": column, class: numeric(column) ? "n" : null, "aria-sort": sorted ? (pairsState.down ? "descending" : "ascending") : null },
      h("button", { type: "button", onclick: choose }, label + arrow));
  });
  const body = rows.slice(0, pairsState.count).map((at) => h("tr", { class: at === state.pair ? "chosen" : null },
    ...columns.map(([column]) => column === "score"
      ? h("td", { class: "n" }, h("button", { type: "button", title: "open this pair", onclick: () => showPair(at, true) }, pairText(column, at)))
      : h("td", { class: numeric(column) ? "n" : null }, h("bdi", {}, pairText(column, at))))));
  $("pairs-table").replaceChildren(h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...body));
  $("more").hidden = rows.length <= pairsState.count;
}

const numeric = (column) => ["score", "calibrated", "null_threshold", "p", "q", "low"].includes(column);

function wirePairs() {
  $("find-pairs").addEventListener("input", (event) => { Object.assign(pairsState, { find: event.target.value, count: PAGE }); renderPairs(); });
  $("more").addEventListener("click", () => { pairsState.count += 4 * PAGE; renderPairs(); });
}
