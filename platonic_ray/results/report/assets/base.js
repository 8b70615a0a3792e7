// What every part of the page shares: the numbers, the state, elements, formats and colors.

const data = JSON.parse(document.getElementById("data").textContent);
const models = data.models;
const state = { metric: 0, pair: -1, order: "study", value: "score", find: "", row: -1, column: -1, down: true };
const $ = (id) => document.getElementById(id);
const metric = () => data.metrics[state.metric];

// Make an element. Text is always text: nothing that a study named is parsed as HTML.
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const name = (model) => h("bdi", {}, models[model].name);
const pairName = (x, y) => `${models[x].name} – ${models[y].name}`;

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits) return value.toPrecision(2).replace("-", "−");
  return value.toFixed(digits).replace("-", "−");
}

const layerName = (model, layer) => (layer === null ? "–" : models[model].layers[layer]);

// The pair in a cell of the table: its row among the pairs, and whether it is shown the other way round.
function cellOf(row, column) {
  const index = metric().index[row][column];
  if (index === -1) return null;
  return index < 0 ? { pair: -2 - index, flipped: true } : { pair: index, flipped: false };
}

// Even steps of lightness, away from the page's own: safe for the color-blind, and in grey.
const RAMPS = {
  light: ["#fbfde8", "#edf8b1", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#253494", "#081d58"],
  dark: ["#1b2633", "#1d3557", "#24508a", "#2272ad", "#2c97bf", "#4fbac1", "#8fd6b6", "#cdebab", "#fafccf"],
};
const theme = () => document.documentElement.dataset.theme;
const hex = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

function mixed(share) {
  const ramp = RAMPS[theme()];
  const at = Math.max(0, Math.min(1, share)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  const [from, to] = [hex(ramp[low]), hex(ramp[low + 1])];
  return from.map((part, i) => Math.round(part + (at - low) * (to[i] - part)));
}

const rgb = (parts) => `rgb(${parts.join(",")})`;
const palette = () => Array.from({ length: 128 }, (_, at) =>
  "#" + mixed(at / 127).map((part) => part.toString(16).padStart(2, "0")).join(""));

// Ink that stands out more (WCAG 2.1 contrast).
function inkOn(parts) {
  const linear = parts.map((part) => part / 255).map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000000" : "#ffffff";
}

// Where a value of the matrix stands on the scale, 0 to 1, dark (or bright) being alike.
function scaleOf(which) {
  if (which === "p" || which === "q") return { low: 0, high: 1, share: (value) => 1 - Math.sqrt(value) };
  const { x, y } = metric().pairs;
  const known = metric().pairs[which].filter((value, at) => value !== null && x[at] !== y[at]);
  const low = Math.min(0, ...known);
  const top = known.reduce((most, value) => Math.max(most, value), low);
  const high = top > low ? top : low + 1;
  const share = (value) => (value - low) / (high - low);
  return { low, high, share: metric().distance ? (value) => 1 - share(value) : share };
}

const announce = (id, text) => { $(id).textContent = text; };
