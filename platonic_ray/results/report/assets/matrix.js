// The models × models table: order, search, hover, keyboard.

const DENSE = 26;
let shown = { rows: [], columns: [] };

function ordered(list) {
  const place = new Map(list.map((model, at) => [model, at]));
  const at = (model) => place.get(model);
  const order = [...list];
  if (state.order === "name") order.sort((a, b) => models[a].name.localeCompare(models[b].name));
  if (state.order === "clusters") {
    const rank = new Map(metric().clusters.map((model, rank) => [model, rank]));
    order.sort((a, b) => rank.get(a) - rank.get(b));
  }
  if (state.order === "mean") {
    const mean = new Map(list.map((model) => [model, meanOf(model)]));
    order.sort((a, b) => (mean.get(b) - mean.get(a)) * (metric().distance ? -1 : 1) || at(a) - at(b));
  }
  return order;
}

function meanOf(model) {
  const { x, y, score } = metric().pairs;
  let sum = 0, count = 0;
  score.forEach((value, at) => {
    if (value === null || x[at] === y[at] || (x[at] !== model && y[at] !== model)) return;
    sum += value; count += 1;
  });
  return count ? sum / count : -Infinity;
}

function valueAt(row, column, which = state.value) {
  const cell = cellOf(metric().rows.indexOf(row), metric().columns.indexOf(column));
  return cell === null ? null : metric().pairs[which][cell.pair];
}

// By one column's (or row's) values, the largest first; what has none goes last.
function byValues(list, valueOf) {
  const sign = state.down ? 1 : -1;
  const key = new Map(list.map((model) => [model, valueOf(model)]));
  return [...list].sort((a, b) => {
    const [p, q] = [key.get(a), key.get(b)];
    if (p === null || q === null) return (p === null) - (q === null);
    return sign * (q - p);
  });
}

function renderMatrix() {
  const wanted = state.find.trim().toLowerCase();
  const found = (model) => models[model].name.toLowerCase().includes(wanted);
  let rows = ordered(metric().rows), columns = ordered(metric().columns);
  if (wanted) {
    // A search keeps the models it finds as rows, against all columns: who is near to them?
    rows = rows.filter(found);
    announce("found", `${rows.length} of ${metric().rows.length} models`);
  } else announce("found", "");
  if (state.column >= 0) rows = byValues(rows, (row) => (row === state.column ? null : valueAt(row, state.column)));
  if (state.row >= 0) columns = byValues(columns, (column) => (column === state.row ? null : valueAt(state.row, column)));
  shown = { rows, columns };

  const table = $("matrix-table");
  table.className = columns.length > DENSE ? "dense" : "";
  table.setAttribute("aria-label", `${metric().label}: ${state.value} of every two models`);
  const scale = scaleOf(state.value);
  const head = h("tr", {}, h("th", { scope: "col" }, h("span", { class: "unseen" }, "model")),
    ...columns.map((model) => header(model, "column")));
  const body = h("tbody");
  for (const row of rows) {
    const line = h("tr", {}, header(row, "row"));
    for (const column of columns) line.append(bodyCell(row, column, scale));
    body.append(line);
  }
  table.replaceChildren(h("thead", {}, head), body);
  const first = table.querySelector("td");
  if (first) first.tabIndex = 0;
  markChosen();
  renderScale(scale);
}

function header(model, side) {
  const sorted = state[side] === model;
  const choose = () => {
    state.down = state[side] === model ? !state.down : true;
    state[side] = model;
    renderMatrix();
    const again = $("matrix-table").querySelector(`th[data-${side}="${model}"] button`);
    if (again) again.focus();
  };
  const title = `${models[model].name} (${models[model].reads}${models[model].floor ? ", a floor" : ""}): sort by its scores`;
  return h("th", {
    scope: side === "column" ? "col" : "row", class: models[model].floor ? "floor" : null, [`data-${side}`]: model,
    "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null,
  }, h("button", { type: "button", title, onclick: choose }, name(model)));
}

function bodyCell(row, column, scale) {
  const cell = cellOf(metric().rows.indexOf(row), metric().columns.indexOf(column));
  if (cell === null) return h("td", { class: "none" });
  const value = metric().pairs[state.value][cell.pair];
  const attributes = { tabindex: -1, "data-row": row, "data-column": column };
  const same = row === column;
  let text = value === null ? "" : number(value);
  if (same) {
    attributes.class = "self";
    attributes.style = "background:var(--self)";
  } else if (metric().pairs.score[cell.pair] === null) {
    attributes.class = "undefined";
    text = "undef.";
  } else if (value !== null) {
    const color = mixed(scale.share(value));
    attributes.style = `background:${rgb(color)};color:${inkOn(color)}`;
    const q = metric().pairs.q[cell.pair];
    if (q !== null && q > data.alpha) attributes.class = "weak";
  }
  return h("td", attributes, text.replace(/^(−?)0\./, "$1."));
}

function renderScale(scale) {
  const box = $("scale");
  const ends = metric().distance && state.value === "score" ? "alike" : "";
  const bar = h("i", { "aria-hidden": true });
  const steps = Array.from({ length: 9 }, (_, at) => rgb(mixed(scale.share(scale.low + (at / 8) * (scale.high - scale.low)))));
  bar.style.background = `linear-gradient(90deg, ${steps.join(",")})`;
  const parts = [number(scale.low, 2), bar, number(scale.high, 2)];
  const chances = [...new Set(metric().pairs.chance.filter((value) => value !== null))];
  if (state.value === "score" && chances.length === 1) {
    const place = (chances[0] - scale.low) / (scale.high - scale.low), there = place >= 0 && place <= 1;
    if (there) {
      const mark = h("b");
      mark.style.left = `${100 * place}%`;
      bar.append(mark);
    }
    parts.push(`${there ? "line: " : ""}chance ${number(chances[0], 4)}${there ? "" : ", beyond this scale"}`);
  }
  if (ends) parts.push("a distance: smaller is more alike");
  if (models.some((model) => model.floor)) parts.push("italic: floors");
  if (metric().pairs.q.some((q) => q !== null && q > data.alpha)) parts.push(`dot: not significant, q > ${data.alpha}`);
  box.replaceChildren(...parts.map((part) => (typeof part === "string" ? h("span", {}, part) : part)));
}

function describe(row, column) {
  const cell = cellOf(metric().rows.indexOf(row), metric().columns.indexOf(column));
  const pairs = metric().pairs, at = cell.pair;
  const [first, second] = cell.flipped ? ["layer_y", "layer_x"] : ["layer_x", "layer_y"];
  const lines = [`${metric().label} ${number(pairs.score[at], 4)}`];
  if (pairs.layer_x[at] !== null) lines.push(`layers ${layerName(row, pairs[first][at])} × ${layerName(column, pairs[second][at])}`);
  if (pairs.calibrated[at] !== null) lines.push(`calibrated ${number(pairs.calibrated[at])}, p ${number(pairs.p[at], 4)}, q ${number(pairs.q[at], 4)}`);
  if (pairs.low[at] !== null) lines.push(`interval ${number(pairs.low[at], 4)} to ${number(pairs.high[at], 4)}`);
  if (pairs.status[at]) lines.push(pairs.status[at]);
  return lines;
}

function showTip(cell, x, y) {
  const [row, column] = [Number(cell.dataset.row), Number(cell.dataset.column)];
  const tip = $("tip");
  tip.replaceChildren(h("b", {}, name(row), " – ", name(column)), ...describe(row, column).map((line) => h("div", {}, h("bdi", {}, line))));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
}

const hideTip = () => { $("tip").hidden = true; };

function markChosen() {
  for (const cell of $("matrix-table").querySelectorAll("td.chosen")) cell.classList.remove("chosen");
  if (state.pair < 0) return;
  const [x, y] = [metric().pairs.x[state.pair], metric().pairs.y[state.pair]];
  for (const [row, column] of [[x, y], [y, x]]) {
    const cell = $("matrix-table").querySelector(`td[data-row="${row}"][data-column="${column}"]`);
    if (cell) cell.classList.add("chosen");
  }
}

function wireMatrix() {
  const table = $("matrix-table");
  const over = (event) => event.target.closest("td[data-row]");
  table.addEventListener("mousemove", (event) => { const cell = over(event); if (cell) showTip(cell, event.clientX, event.clientY); else hideTip(); });
  table.addEventListener("mouseleave", hideTip);
  table.addEventListener("focusin", (event) => {
    const cell = over(event);
    if (!cell) return;
    for (const other of table.querySelectorAll("td[tabindex='0']")) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.setAttribute("aria-label", [pairName(cell.dataset.row, cell.dataset.column), ...describe(Number(cell.dataset.row), Number(cell.dataset.column))].join("; "));
    const box = cell.getBoundingClientRect();
    if (cell.matches(":focus-visible")) showTip(cell, box.left, box.bottom);
  });
  table.addEventListener("focusout", hideTip);
  const open = (cell) => showPair(cellOf(metric().rows.indexOf(Number(cell.dataset.row)), metric().columns.indexOf(Number(cell.dataset.column))).pair, true);
  table.addEventListener("click", (event) => { const cell = over(event); if (cell) open(cell); });
  table.addEventListener("keydown", (event) => {
    const cell = over(event);
    if (!cell) return;
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(cell); return; }
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [down, right] = moves[event.key];
    const row = shown.rows.indexOf(Number(cell.dataset.row)) + down;
    const column = shown.columns.indexOf(Number(cell.dataset.column)) + right;
    const next = table.querySelector(`td[data-row="${shown.rows[row]}"][data-column="${shown.columns[column]}"]`);
    if (next) next.focus();
  });
  $("find").addEventListener("input", (event) => { state.find = event.target.value; renderMatrix(); });
  $("value").addEventListener("change", (event) => { state.value = event.target.value; renderMatrix(); });
  $("order").addEventListener("change", (event) => {
    state.order = event.target.value; state.row = state.column = -1; renderMatrix();
  });
}
