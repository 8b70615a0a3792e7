// The charts: Bokeh figures that are in the page without data, filled and colored here.

const charts = {};

async function embedCharts() {
  const items = JSON.parse($("charts").textContent);
  Bokeh.set_log_level("error");
  for (const [chart, item] of Object.entries(items)) {
    if (!$(item.target_id)) continue;
    await Bokeh.embed.embed_item(item, item.target_id);
    charts[chart] = Bokeh.documents[Bokeh.documents.length - 1];
  }
  for (const marks of [source("strip", "trained"), source("strip", "floors")]) {
    marks.selected.properties.indices.change.connect(() => {
      const at = marks.selected.indices[0];
      if (at === undefined) return;
      const row = marks.data.row[at];
      marks.selected.indices = [];
      showPair(row, true);
    });
  }
}

// The parts of a chart do not change; to find them anew would walk through all of its numbers.
const parts = {};
const partsOf = (chart) => (parts[chart] ??= [...charts[chart].roots()[0].references()]);
const part = (chart, name) => partsOf(chart).find((model) => model.name === name);
const source = (chart, name) => partsOf(chart).find((model) => model.type === "ColumnDataSource" && model.name === name);
const renderer = (chart, name) => partsOf(chart).find((model) => model.type === "GlyphRenderer" && model.name === name);
const ofType = (chart, type) => partsOf(chart).filter((model) => model.type === type);

function renderStrip() {
  const pairs = metric().pairs;
  const groups = [...new Set(pairs.group.filter((group) => group !== null))].sort();
  const sources = { trained: empty("x", "score", "pair", "kind", "row"), floors: empty("x", "score", "pair", "kind", "row") };
  pairs.score.forEach((score, at) => {
    const [x, y] = [pairs.x[at], pairs.y[at]];
    if (score === null || x === y) return;
    const floor = models[x].floor || models[y].floor;
    const into = sources[floor ? "floors" : "trained"];
    into.x.push([pairs.group[at], spread(at, floor)]); into.score.push(score); into.pair.push(pairName(x, y));
    into.kind.push(floor ? "(with a floor)" : ""); into.row.push(at);
  });
  part("strip", "groups").factors = groups.length ? groups : ["no pairs"];
  for (const [into, columns] of Object.entries(sources)) source("strip", into).data = columns;
  const chances = [...new Set(pairs.chance.filter((value) => value !== null))];
  part("strip", "chance").location = chances.length === 1 ? chances[0] : null;
  ofType("strip", "LinearAxis")[0].axis_label = `${metric().label}, ${metric().distance ? "smallest" : "best"} over layers`;
  renderRing();
}

const empty = (...columns) => Object.fromEntries(columns.map((column) => [column, []]));

// Where a mark stands beside the middle of its group: trained to the left, floors to the right.
const spread = (at, floor) => (floor ? 0.06 : -0.32) + 0.26 * ((at * 0.618034) % 1);

function renderRing() {
  const pairs = metric().pairs, at = state.pair;
  const there = at >= 0 && pairs.score[at] !== null && pairs.x[at] !== pairs.y[at];
  const floor = there && (models[pairs.x[at]].floor || models[pairs.y[at]].floor);
  source("strip", "chosen").data = there ? { x: [[pairs.group[at], spread(at, floor)]], score: [pairs.score[at]] } : empty("x", "score");
}

function renderMap(x, y, scores, best) {
  const [rows, columns] = [unique(models[x].layers), unique(models[y].layers)];
  const cells = empty("row", "column", "row_name", "column_name", "score");
  scores.forEach((score, at) => {
    const [i, j] = [Math.floor(at / columns.length), at % columns.length];
    cells.row.push(rows[i]); cells.column.push(columns[j]); cells.row_name.push(models[x].layers[i]); cells.column_name.push(models[y].layers[j]); cells.score.push(score);
  });
  part("map", "down").factors = [...rows].reverse();
  part("map", "across").factors = columns;
  const known = scores.filter((score) => !Number.isNaN(score));
  const ramp = part("map", "ramp");
  const low = Math.min(0, ...known), high = Math.max(...known, low);
  ramp.low = low; ramp.high = high > low ? high : low + 1;
  source("map", "cells").data = cells;
  source("map", "best").data = best ? { row: [rows[best[0]]], column: [columns[best[1]]] } : empty("row", "column");
  const figure = charts.map.roots()[0];
  figure.height = Math.max(190, Math.min(720, 22 * rows.length + 130));
  const [down, across] = [figure.left[0], figure.below[0]];
  down.axis_label = models[x].name; across.axis_label = models[y].name;
}

// Layers may share a name; the axis needs names that differ.
const unique = (names) => names.map((name, at) => (names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} (${at})`));

function renderGrowth() {
  if (!charts.growth) return;
  const curves = data.growth.filter((curve) => curve.metric === metric().label);
  const list = $("growth-pair");
  const label = (curve) => `${pairName(curve.x, curve.y)} · ${curve.protocol === "all" ? "all against all" : "queries against a growing gallery"}`;
  list.replaceChildren(...curves.map((curve, at) => h("option", { value: at }, label(curve))));
  const pairs = metric().pairs;
  const chosen = curves.findIndex((curve) => curve.x === pairs.x[state.pair] && curve.y === pairs.y[state.pair]);
  list.value = String(Math.max(0, chosen));
  drawGrowth(curves, Math.max(0, chosen));
  list.onchange = () => drawGrowth(curves, Number(list.value));
}

function drawGrowth(curves, at) {
  $("growth").querySelector("figure").hidden = curves.length === 0;
  const others = empty("n", "score"), one = empty("n", "score", "low", "high", "error", "pair", "chance");
  curves.slice(0, 300).forEach((curve, index) => {
    if (index !== at) { others.n.push(curve.size); others.score.push(curve.score.map((value) => value ?? NaN)); }
  });
  const rows = [];
  const curve = curves[at];
  (curve ? curve.size : []).forEach((n, i) => {
    const [score, error] = [curve.score[i] ?? NaN, curve.standard_error[i]];
    one.n.push(n); one.score.push(score); one.low.push(score - 2 * (error ?? 0)); one.high.push(score + 2 * (error ?? 0));
    one.error.push(error ?? NaN); one.pair.push(pairName(curve.x, curve.y)); one.chance.push(curve.chance[i] ?? NaN);
    rows.push(h("tr", {}, ...[n.toLocaleString("en"), curve.k[i] ?? "–", number(curve.score[i], 4), number(error, 4), number(curve.chance[i], 4)].map((text) => h("td", { class: "n" }, String(text)))));
  });
  part("growth", "sizes").ticks = curve ? curve.size : [];
  source("growth", "others").data = others;
  source("growth", "one").data = one;
  $("growth-table").replaceChildren(h("thead", {}, h("tr", {}, ...["samples", "k", "score", "standard error", "chance"].map((text) => h("th", { scope: "col", class: "n" }, text)))), h("tbody", {}, ...rows));
}

function renderCapability() {
  if (!charts.capability) return;
  const list = $("capability-name");
  if (!list.options.length) {
    list.append(...[...new Set(data.capability.map((row) => row.name))].map((name) => h("option", { value: name }, name)));
    list.onchange = renderCapability;
  }
  const rows = data.capability.filter((row) => row.name === list.value);
  const drawn = rows.filter((row) => row.value !== null && row.alignment[state.metric] !== null);
  source("capability", "able").data = {
    value: drawn.map((row) => row.value), alignment: drawn.map((row) => row.alignment[state.metric]), model: drawn.map((row) => models[row.model].name),
  };
  const figure = charts.capability.roots()[0];
  figure.below[0].axis_label = list.value;
  figure.left[0].axis_label = `mean ${metric().label}`;
  $("capability-table").replaceChildren(
    h("thead", {}, h("tr", {}, ...["model", list.value, `mean ${metric().label}`].map((text, at) => h("th", { scope: "col", class: at ? "n" : null }, text)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, name(row.model)), h("td", { class: "n" }, number(row.value, 4)), h("td", { class: "n" }, number(row.alignment[state.metric], 4))))));
}

// Color every chart from the page's own variables: it has a light and a dark theme.
function paintCharts() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const [ink, quiet, line, card, accent] = ["ink", "quiet", "line", "card", "accent"].map(color);
  for (const [chart, document_] of Object.entries(charts)) {
    const figure = document_.roots()[0];
    for (const property of ["background_fill_color", "border_fill_color", "outline_line_color"]) figure[property] = card;
    for (const axis of [...figure.left, ...figure.below]) {
      Object.assign(axis, { axis_label_text_color: ink, axis_label_text_font_style: "normal", major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null });
    }
    for (const grid of figure.center) if ("grid_line_color" in grid && grid.grid_line_color !== null) grid.grid_line_color = line;
    for (const model of partsOf(chart)) if (model.type === "ColorBar") Object.assign(model, { major_label_text_color: ink, major_tick_line_color: line, bar_line_color: null });
  }
  const paint = (chart, name, options) => { const found = charts[chart] && renderer(chart, name); if (found) Object.assign(found.glyph, options); };
  paint("strip", "trained", { line_color: accent, fill_color: accent });
  paint("strip", "floor", { line_color: quiet });
  paint("strip", "ring", { line_color: ink });
  paint("map", "cells", { line_color: card });
  paint("map", "ring", { line_color: "#ff8c1a" });
  paint("growth", "others", { line_color: quiet });
  for (const name of ["errors", "curve", "points"]) paint("growth", name, { line_color: accent, ...(name === "points" ? { fill_color: accent } : {}) });
  paint("capability", "able", { line_color: accent, fill_color: accent });
  paint("capability", "able-names", { text_color: ink, text_font_size: "11px" });
  paint("growth", "chance-line", { line_color: quiet });
  part("strip", "chance").line_color = quiet;
  part("map", "ramp").palette = palette();
  part("map", "ramp").nan_color = color("self");
}
