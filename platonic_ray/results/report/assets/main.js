// Start: theme, metric, and the pair that is shown first.

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", dark ? "Switch to light colors" : "Switch to dark colors");
}

function chooseMetric(at) {
  const before = state.pair < 0 ? null : [metric().pairs.x[state.pair], metric().pairs.y[state.pair]];
  state.metric = at;
  for (const block of document.querySelectorAll("[data-metric]")) block.hidden = Number(block.dataset.metric) !== at;
  for (const option of $("value").options) option.disabled = !metric().pairs[option.value].some((value) => value !== null);
  if ($("value").selectedOptions[0].disabled) { $("value").value = "score"; state.value = "score"; }
  const pairs = metric().pairs;
  const same = before ? pairs.x.findIndex((x, row) => x === before[0] && pairs.y[row] === before[1]) : -1;
  state.pair = same >= 0 ? same : firstPair();
  renderMatrix();
  renderStrip();
  renderCapability();
  return state.pair >= 0 ? showPair(state.pair, false) : renderPairs();
}

// The most alike of trained models that read different things, else of different models, else any.
function firstPair() {
  const { x, y, score, group } = metric().pairs;
  const best = (wanted) => score.reduce((best, value, at) => {
    if (value === null || !wanted(at)) return best;
    return best < 0 || (metric().distance ? value < score[best] : value > score[best]) ? at : best;
  }, -1);
  const trained = (at) => x[at] !== y[at] && !models[x[at]].floor && !models[y[at]].floor;
  for (const wanted of [(at) => trained(at) && models[x[at]].reads !== models[y[at]].reads, trained, (at) => x[at] !== y[at]]) {
    const at = best(wanted);
    if (at >= 0) return at;
  }
  return score.length ? 0 : -1;
}

async function start() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  setTheme(system.matches);
  const repaint = () => { paintCharts(); renderMatrix(); };
  $("theme").addEventListener("click", () => { setTheme(theme() !== "dark"); repaint(); });
  system.addEventListener("change", () => { setTheme(system.matches); repaint(); });
  for (const input of document.querySelectorAll("input[name='metric']")) {
    input.addEventListener("change", () => chooseMetric(Number(input.value)));
  }
  wireMatrix();
  wirePairs();
  await embedCharts();
  paintCharts();
  await chooseMetric(0);
  document.documentElement.dataset.ready = "true";
}

start();
